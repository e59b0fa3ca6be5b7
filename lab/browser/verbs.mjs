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

/** What must hold first is red with its cure, and green when that was done. */
async function chapterPrerequisites() {
  await lab("virsh", FIRST, "suspend", VM);
  await action(alice, "Planned Failover…").click();
  const red = dialog(alice).locator(".checks .fail");
  await red.getByText("the VM is paused").waitFor();
  await red.getByText(`virsh resume ${VM}`).waitFor();
  await picture(alice, "prerequisites");
  if (await dialog(alice).getByRole("button", { name: "Fail Over", exact: true }).isEnabled())
    throw new Error("it can be failed over all the same");
  await lab("virsh", FIRST, "resume", VM);
  await press(alice, "Check again");
  await dialog(alice)
    .getByText(/all \d+ met/)
    .waitFor();
  await press(alice, "Cancel");
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

/** A disk that waits for a person is taken in where its warning stands. */
async function chapterDisk() {
  await lab("run", FIRST, "set", VM, "--new-disks", "warn", "--yes");
  await lab("plug", FIRST, "vdb");
  await says(alice, "Warning");
  await tab(alice, "Summary");
  await panel(alice).getByText("disk vdb of VM").waitFor();
  await picture(alice, "added-disk");
  await panel(alice).getByRole("button", { name: "Replicate Disk vdb…" }).first().click();
  await dialog(alice).getByText("Disk vdb will be replicated").waitFor();
  await press(alice, "Replicate");
  await gone(alice);
  await says(alice, "Replicating", "Normal");
  await panel(alice)
    .getByRole("listitem")
    .filter({ hasText: "vdb" })
    .getByText("replicated", { exact: true })
    .waitFor();
}

/** Who cannot be asked is unknown, at both consoles, with the cure; what is left is not told as all there is. */
async function chapterBlind() {
  const blind = (page) => row(page).locator(".c-power", { hasText: "Unknown" }).waitFor();
  const watcher = await enter(FIRST, "vera");
  await lab("stop-libvirt", FIRST);
  await blind(alice);
  await alice.getByText("libvirt does not answer").first().waitFor();
  await alice.getByText("systemctl start libvirtd").first().waitFor();
  await picture(alice, "blind");
  await accessible(alice, "a host without libvirt");
  await watcher.locator(".figure", { hasText: "not protected" }).getByText("?").waitFor();
  await watcher.getByText(`What ${FIRST} runs is unknown`).waitFor();
  // A page that has never seen the VMs says no less.
  await watcher.goto(new URL(`/hosts/${FIRST}`, watcher.url()).href);
  await blind(watcher);
  await watcher.getByText("What there is cannot be read").waitFor();
  if (
    await row(watcher)
      .getByText(/^(Running|Normal)$/)
      .count()
  )
    throw new Error("unknown is shown as well");
  await watcher.context().close();
  await open(otto, FIRST);
  await blind(otto);
  await otto.getByText("libvirt does not answer").first().waitFor();
  await lab("start-libvirt", FIRST);
  await says(alice, "Running", "Replicating", "Normal");
  await says(otto, "Running");
  await open(otto, SECOND);
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
  await told(otto, /Kept until the failover is complete: \d+ newer recovery point/);
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
  "what must hold first": chapterPrerequisites,
  "verify and resynchronize": chapterProofs,
  "an added disk": chapterDisk,
  "a recovery point by hand": chapterPoint,
  "a host without libvirt": chapterBlind,
  "a test failover": chapterTest,
  "failover to an older point": chapterFailover,
  "it is taken back": chapterCancel,
  "what was set aside": chapterAside,
  "failover to the newest point, made final": chapterComplete,
  "the end of replication": chapterRemove,
});
