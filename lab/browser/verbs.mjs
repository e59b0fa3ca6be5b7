// What the story of a maintenance window leaves out: proofs, recovery points, drills, and what is left to do when the other host is lost.
// The VM is at home and protected when it begins.

import { accessible, enter, lab, picture, tell } from "./browser.mjs";
import { VM, action, dialog, open, press, row, says } from "./pages.mjs";

const [FIRST, SECOND] = ["hvhost01", "hvhost02"];
const TAG = "before the update";
let alice, otto;

const tab = (page, name) => page.getByRole("tab", { name, exact: true }).click();
const panel = (page) => page.getByRole("tabpanel");
const field = (page, label) => dialog(page).getByLabel(label);
/** What the window says, sooner or later. */
const told = (page, words) => dialog(page).getByText(words).first().waitFor();
const gone = (page) => dialog(page).waitFor({ state: "detached" });
/** The plan of what the fields say now is there. */
const planned = (page) => dialog(page).locator(".plan:not(.old)").getByText("Actions").waitFor();
/** Opens a window, and presses its button when its plan is there. */
async function ask(page, verb, button) {
  await action(page, verb).click();
  await dialog(page).getByRole("button", { name: button, exact: true, disabled: false }).click();
}
/** Whoever destroys something types its name first. */
async function confirmed(page, button) {
  const press = dialog(page).getByRole("button", { name: button, exact: true });
  await planned(page);
  if (await press.isEnabled()) throw new Error(`${button} asks for no word`);
  await field(page, `Type ${VM} to confirm`).fill(VM);
  await press.click();
}

async function chapterHold() {
  alice = await enter(FIRST, "alice");
  otto = await enter(SECOND, "otto");
  await open(alice, FIRST);
  await open(otto, SECOND);
  await ask(alice, "Pause Replication…", "Pause");
  await says(alice, "Replicating, paused", "Warning");
  await ask(alice, "Resume Replication…", "Resume");
  await says(alice, "Replicating", "Normal");
}

async function chapterProofs() {
  const happened = (words) => panel(alice).getByText(words).first().waitFor();
  await tab(alice, "Events");
  await ask(alice, "Verify…", "Verify");
  await happened(/is equal to the VM's disks/);
  await ask(alice, "Resynchronize…", "Resynchronize");
  await happened(/^resynchronized: /);
  await says(alice, "Replicating", "Normal");
}

async function chapterPoint() {
  await action(alice, "Create Recovery Point…").click();
  await field(alice, "What it is called").fill(TAG);
  await press(alice, "Create");
  await gone(alice);
  await tab(alice, "Recovery Points");
  await panel(alice).getByRole("cell", { name: TAG }).waitFor();
}

async function chapterTest() {
  await tab(otto, "Recovery Points");
  await panel(otto)
    .getByRole("row", { name: new RegExp(TAG) })
    .getByRole("button")
    .click();
  await panel(otto).getByRole("button", { name: "Test Failover from here…" }).click();
  await told(otto, "A network of its own");
  await field(otto, "Keep the copy after its check").check();
  await planned(otto);
  await picture(otto, "test-failover");
  await accessible(otto, "the window of a test failover");
  await press(otto, "Test");
  await panel(otto).getByText("passed").waitFor();
  await otto.getByRole("row", { name: `${VM} - Test` }).waitFor();
  await ask(otto, "Stop Test Failover…", "Stop");
  await otto.getByRole("row", { name: `${VM} - Test` }).waitFor({ state: "detached" });
  await says(otto, "Receiving", "Normal");
}

async function chapterFailover() {
  await lab("lose", FIRST);
  await action(otto, "Failover…").click();
  await told(otto, "What will be lost");
  const point = dialog(otto).getByRole("combobox", { name: "Recovery point" });
  await point.selectOption({ label: (await point.getByText(TAG).innerText()).trim() });
  await told(otto, /newer recovery points? stays?/);
  await planned(otto);
  await picture(otto, "failover");
  await accessible(otto, "the window of a failover");
  await press(otto, "Fail Over");
  await told(otto, "Result");
  await press(otto, "Close");
  await says(otto, "Running", "Primary", "Failed over, not complete");
  await picture(otto, "failed-over");
}

async function chapterCancel() {
  await action(otto, "Cancel Failover…").click();
  await field(otto, "Turn it off when it does not obey").check();
  await press(otto, "Take Back");
  await told(otto, "Result");
  await press(otto, "Close");
  await says(otto, "Off", "Replica", "Receiving");
}

async function chapterAside() {
  const admin = await enter(SECOND, "alice");
  await open(admin, SECOND);
  await tab(admin, "Recovery Points");
  await panel(admin).getByText("Set aside").waitFor();
  await accessible(admin, "what was set aside");
  await panel(admin).getByRole("button", { name: "Delete…" }).scrollIntoViewIfNeeded();
  await picture(admin, "set-aside");
  await panel(admin).getByRole("button", { name: "Delete…" }).click();
  await confirmed(admin, "Delete for Good");
  await panel(admin).getByText("Set aside").waitFor({ state: "detached" });
  await admin.context().close();
}

async function chapterComplete() {
  await ask(otto, "Failover…", "Fail Over");
  await told(otto, "Result");
  await press(otto, "Close");
  await ask(otto, "Complete Failover…", "Complete");
  await told(otto, "Result");
  await press(otto, "Close");
  await says(otto, "Running", "Primary", "Unprotected");
}

async function chapterRemove() {
  const admin = await enter(SECOND, "alice");
  await open(admin, SECOND);
  await action(admin, "Remove Replication…").click();
  await field(admin, /On this host only/).check();
  await press(admin, "Remove");
  await gone(admin);
  await says(admin, "Running", "Not enabled");
  await row(admin).click();
  await action(admin, "Enable Replication…").waitFor();
}

await tell({
  "pause and resume": chapterHold,
  "verify and resynchronize": chapterProofs,
  "a recovery point by hand": chapterPoint,
  "a test failover": chapterTest,
  "failover to an older point": chapterFailover,
  "it is taken back": chapterCancel,
  "what was set aside": chapterAside,
  "failover to the newest point, made final": chapterComplete,
  "the end of replication": chapterRemove,
});
