// The whole story of a planned failover by clicks, with what is refused on the way. Three people: an administrator and an operator at the
// consoles of both hosts, and a viewer.

import { readFileSync } from "node:fs";
import { LIMIT, accessible, enter, lab, picture, signIn, tell, visit } from "./browser.mjs";
import { VM, action, dialog, open, press, row, says } from "./pages.mjs";

const [FIRST, SECOND] = ["hvhost01", "hvhost02"];
let alice, otto, vera;

/** A step of the handover has begun; on a busy machine it may be over before the page shows it. */
const begun = (page, step) =>
  dialog(page)
    .locator(".step:is(.running, .done) strong", { hasText: new RegExp(`^${step}$`) })
    .waitFor();

async function chapterSignIn() {
  const page = await visit(FIRST);
  await picture(page, "sign-in");
  await accessible(page, "the sign-in page");
  for (const [user, password] of [
    ["alice", "wrong"],
    ["nobody-of-that-name", "wrong"],
  ]) {
    await signIn(page, user, password);
    await page.getByRole("alert").getByText("name and password do not fit").waitFor();
  }
  await signIn(page, "alice");
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  alice = page;
  otto = await enter(SECOND, "otto");
  vera = await enter(FIRST, "vera");
}

/** Paired hosts become strangers and are paired again; then one has a new certificate, and the other knows it. */
async function chapterPairing() {
  const there = await enter(SECOND, "alice");
  const room = (page, name) => page.goto(new URL(`/settings/${name}`, page.url()).href);
  const pairedWith = (page, host) => page.getByRole("heading", { name: new RegExp(`^${host}`) }).waitFor();
  for (const page of [alice, there]) {
    await room(page, "peers");
    await page.getByRole("button", { name: "Remove…" }).click();
    await press(page, "Remove");
    await page.getByText("This host is paired with no other").waitFor();
  }
  await alice.getByRole("button", { name: "Pair with a Host…" }).click();
  await press(alice, "Make a Token");
  await dialog(alice).getByText("It is shown this once").waitFor();
  const token = await dialog(alice).locator("code").first().innerText();
  await picture(alice, "pairing");
  await accessible(alice, "a token");
  await there.getByRole("button", { name: "Join with a Token…" }).click();
  await dialog(there).getByLabel("Token", { exact: true }).fill(token);
  await press(there, "Pair");
  await pairedWith(there, FIRST);
  await press(alice, "Close");
  await pairedWith(alice, SECOND);
  await room(alice, "host");
  await alice.getByRole("button", { name: "New Certificate…" }).click();
  await press(alice, "Replace");
  await dialog(alice).waitFor({ state: "detached" });
  await there.getByRole("button", { name: "Test connection" }).click();
  await there.locator(".checks .pass").first().waitFor();
  if (await there.locator(".checks .fail").count()) throw new Error("they do not know each other any more");
  await there.context().close();
  await alice.goto(new URL("/", alice.url()).href);
}

async function chapterEnable() {
  await lab("boot"); // the guest did while people signed in
  await alice.getByRole("listitem").filter({ hasText: VM }).getByRole("button", { name: "Enable…" }).click();
  await dialog(alice)
    .getByRole("radio", { name: new RegExp(`^${SECOND}`) })
    .check();
  await press(alice, "Next");
  await dialog(alice).locator(".checks .pass").first().waitFor(); // the connection is tested now
  await accessible(alice, "the wizard");
  for (const page of ["Disks", "Networks", "Replication Frequency"]) {
    await press(alice, "Next");
    await dialog(alice).getByRole("heading", { name: page }).waitFor();
  }
  await dialog(alice).getByRole("radio", { name: "Another" }).check();
  await dialog(alice).getByLabel("Time between two cycles").fill("5s");
  await press(alice, "Next");
  await press(alice, "Next");
  await press(alice, "Next");
  await dialog(alice).getByText("Prerequisites").waitFor();
  await dialog(alice)
    .getByText(/all \d+ met/)
    .waitFor();
  await picture(alice, "enable");
  await press(alice, "Enable Replication");
  await dialog(alice).waitFor({ state: "detached" });
  await says(alice, "Running", "Primary", "Replicating");
  // On a busy machine cycles of 5 s are missed; health does not hang on their share here.
  await action(alice, "Replication Settings…").click();
  await dialog(alice).getByLabel("above this share of missed cycles, %").fill("100");
  await dialog(alice).getByText("Both hosts will use the new settings").waitFor();
  await press(alice, "Apply");
  await dialog(alice).waitFor({ state: "detached" });
  await says(alice, "Running", "Primary", "Replicating", "Normal");
  await open(otto, SECOND);
  await says(otto, "Off", "Replica", "Receiving", "Normal");
}

async function chapterRoles() {
  await open(vera, FIRST);
  const planned = action(vera, "Planned Failover…")
    .or(vera.getByRole("button", { name: /^Planned Failover…/ }))
    .first();
  if ((await planned.getAttribute("aria-disabled")) !== "true")
    throw new Error("a viewer may press Planned Failover");
  if (!/Needs the role operator/.test(await planned.getAttribute("title")))
    throw new Error("it does not say why");
  // What the page does not offer, the daemon refuses.
  const ask = (token) =>
    vera.evaluate(async (csrf) => {
      const session = await (await fetch("/session")).json();
      const headers = csrf ? { "X-CSRF-Token": session.csrf } : {};
      const response = await fetch("/api/v1/relationships/testVM01/pause", { method: "POST", headers });
      return `${response.status} ${(await response.json()).detail}`;
    }, token);
  const [viewer, forged] = [await ask(true), await ask(false)];
  if (!viewer.startsWith("403") || !viewer.includes("operator"))
    throw new Error(`a viewer's command: ${viewer}`);
  if (!forged.startsWith("403")) throw new Error(`without the token: ${forged}`);
  await vera.context().close();
  await says(alice, "Replicating", "Normal");
}

async function chapterStale() {
  await action(alice, "Pause Replication…").click();
  await dialog(alice).getByText("No cycle will begin").waitFor();
  // The plan that alice looks at was made before somebody else paused.
  await lab("run", FIRST, "pause", VM, "--yes");
  await press(alice, "Pause");
  await dialog(alice).getByRole("alert").getByText("State changed").waitFor();
  await press(alice, "Cancel");
  await says(alice, "Replicating, paused", "Warning");
  await action(alice, "Resume Replication…").click();
  await press(alice, "Resume");
  await says(alice, "Replicating", "Normal");
}

/** Planned Failover from the context menu; gives the window while it goes on. */
async function failOver(page, { reverse }) {
  await row(page).click({ button: "right" });
  await page.getByRole("menuitem", { name: "Planned Failover…" }).click();
  const box = (name) => dialog(page).getByRole("checkbox", { name });
  for (const name of [
    "Reverse the replication direction after failover",
    "Start the Replica virtual machine after failover",
  ]) {
    if (!(await box(name).isChecked())) throw new Error(`${name} is not ticked by default`);
  }
  await dialog(page)
    .getByText(/all \d+ met/)
    .waitFor();
  if (!reverse) {
    // The plan on the screen is that of before: nobody has seen yet what the button would do now.
    const early = await box("Reverse the replication direction after failover").evaluate((ticked) => {
      ticked.click();
      return !ticked.closest("dialog").querySelector("footer button:last-child").disabled;
    });
    if (early) throw new Error("what is carried out was not shown");
  }
  await dialog(page).locator(".plan:not(.old)").waitFor();
  await dialog(page).getByText("Expected downtime").waitFor();
  await picture(page, "planned-failover");
  await accessible(page, "the window of a planned failover");
  await press(page, "Fail Over");
}

async function chapterWithoutReverse() {
  await failOver(alice, { reverse: false });
  await begun(alice, "Shut down");
  await picture(alice, "handover");
  await dialog(alice).getByText("equal on both hosts: nothing was lost").waitFor();
  await accessible(alice, "the report");
  await picture(alice, "report");
  await press(alice, "Close");
  await says(otto, "Running", "Primary", "Unprotected", "Warning");
  await otto.getByRole("navigation").getByRole("link", { name: "Overview" }).click();
  await otto
    .getByText(/The VM is unprotected.*since/)
    .first()
    .waitFor();
  await picture(otto, "unprotected");
}

async function chapterReverse() {
  await otto.getByRole("button", { name: "Reverse Replication…" }).first().click();
  for (const page of ["Replica Server", "Connection Parameters", "Replication Frequency", "Summary"]) {
    await press(otto, "Next");
    await dialog(otto).getByRole("heading", { name: page }).waitFor();
    if (page === "Replica Server" && (await dialog(otto).getByLabel("Replica server").inputValue()) !== FIRST)
      throw new Error("it is not filled in");
  }
  await dialog(otto).locator("button:enabled", { hasText: "Finish" }).waitFor();
  await picture(otto, "reverse");
  await press(otto, "Finish");
  await dialog(otto).waitFor({ state: "detached" });
  await open(otto, SECOND);
  await says(otto, "Running", "Primary", "Replicating", "Normal");
  await says(alice, "Off", "Replica", "Receiving", "Normal");
}

async function chapterFailback() {
  await failOver(otto, { reverse: true });
  await begun(otto, "Shut down");
  await lab("kill", SECOND);
  await otto.getByRole("alert").getByText("does not answer").first().waitFor();
  await picture(otto, "restarting");
  await lab("start", SECOND);
  // The same window goes on, without a reload.
  await dialog(otto).getByText("equal on both hosts: nothing was lost").waitFor();
  await press(otto, "Close");
  await says(alice, "Running", "Primary", "Replicating", "Normal");
  const state = await lab("state", FIRST);
  if (!state.startsWith("running")) throw new Error(`the VM is ${state} at home`);
}

/** The cycles as a file that a spreadsheet reads. */
async function savesCycles(page) {
  const saved = page.waitForEvent("download");
  await page.getByRole("link", { name: "Save as CSV" }).click();
  const file = await saved;
  const [head, first] = readFileSync(await file.path(), "utf8").split("\n");
  if (!file.suggestedFilename().endsWith(".csv") || !head.includes("begun_at_ms") || !first)
    throw new Error(`${file.suggestedFilename()}: ${head}`);
}

/** The host's own settings. */
async function changesLimit(page) {
  await page.getByRole("button", { name: "Change the Limit…" }).click();
  await dialog(page).getByLabel("Limit", { exact: true }).fill("200MiB/s");
  await press(page, "Apply");
  await dialog(page).waitFor({ state: "detached" });
  await page
    .getByText(/200(\.0)? MiB\/s/)
    .first()
    .waitFor();
}

async function chapterPages() {
  for (const tab of ["Replication", "Recovery Points", "Networking", "Operations", "Events", "Summary"]) {
    await alice.getByRole("tab", { name: tab, exact: true }).click();
    await alice.getByRole("tabpanel", { name: tab }).locator(":not(.loading)").first().waitFor();
    await accessible(alice, `the tab ${tab}`, "main");
    if (tab === "Replication") await savesCycles(alice);
    await picture(alice, tab.toLowerCase().replace(" ", "-"));
  }
  for (const [name, path] of [
    ["overview", "/"],
    ["peers", "/settings/peers"],
    ["host", "/settings/host"],
    ["authorization", "/settings/authorization"],
  ]) {
    await alice.goto(new URL(path, alice.url()).href);
    await alice.getByRole("heading", { level: 1 }).waitFor();
    if (name === "authorization") await alice.getByText("virt-replica-operator").waitFor();
    await accessible(alice, name);
    if (name === "host") await changesLimit(alice);
    await picture(alice, name);
  }
  const dark = await enter(FIRST, "alice", { theme: "dark" });
  await open(dark, FIRST);
  await dark.getByRole("tab", { name: "Replication" }).click();
  await dark.getByRole("img", { name: /^Lag/ }).waitFor();
  await accessible(dark, "the dark theme");
  await picture(dark, "health-dark");
  await dark.context().close();
  const narrow = await enter(FIRST, "vera", { size: { width: 420, height: 860 } });
  await accessible(narrow, "a narrow screen");
  await picture(narrow, "narrow");
  await narrow.context().close();
}

async function chapterKeyboard() {
  await alice.goto(new URL(`/hosts/${FIRST}`, alice.url()).href);
  await row(alice).focus();
  await alice.keyboard.press("Enter");
  await alice.getByRole("tab", { name: "Summary" }).focus();
  await alice.keyboard.press("ArrowRight");
  await alice.getByRole("tab", { name: "Replication", selected: true }).waitFor();
  await row(alice).focus();
  await alice.keyboard.press("Shift+F10");
  await alice.locator("[role=menuitem]:focus", { hasText: "Planned Failover…" }).waitFor();
  await alice.keyboard.press("Enter");
  await dialog(alice).getByText("Planned Failover of").waitFor();
  await alice.keyboard.press("Escape");
  await dialog(alice).waitFor({ state: "detached" });
  // What closes leaves its place to where it came from, and another page begins at its heading.
  await alice.getByRole("button", { name: "Close the details" }).focus();
  await alice.keyboard.press("Enter");
  await alice.locator("tr:focus", { hasText: VM }).waitFor();
  await alice.getByRole("navigation").getByRole("link", { name: "Overview" }).focus();
  await alice.keyboard.press("Enter");
  await alice.locator("h1:focus", { hasText: "Overview" }).waitFor();
  await alice.goBack();
  await alice.locator("h1:focus", { hasText: "Virtual machines" }).waitFor();
}

async function chapterSessionEnds() {
  await alice.getByRole("button", { name: "Sign out" }).click();
  await alice.getByText("Signed out").waitFor();
  // Another tab of the same browser learns it, and stays where it is.
  const address = otto.url();
  // A window that is open then lies over nothing.
  await action(otto, "Planned Failover…").click();
  await dialog(otto).locator(".plan:not(.old)").waitFor();
  await lab("run", SECOND, "console", "end-sessions", "--user", "otto", "--yes");
  await otto.getByText("Your session has ended").waitFor({ timeout: LIMIT });
  await signIn(otto, "otto");
  await row(otto).waitFor();
  if (otto.url() !== address) throw new Error(`${otto.url()} is not where otto was: ${address}`);
}

await tell({
  "sign in": chapterSignIn,
  "pair two hosts": chapterPairing,
  enable: chapterEnable,
  "roles are enforced": chapterRoles,
  "a stale decision is refused": chapterStale,
  "planned failover without reverse": chapterWithoutReverse,
  "reverse by hand": chapterReverse,
  "failback with reverse, over a restart": chapterFailback,
  "every page": chapterPages,
  keyboard: chapterKeyboard,
  "the session ends": chapterSessionEnds,
});
