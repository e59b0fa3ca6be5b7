// Follows an operation in a window: every step as it goes, whoever began it, over a restart of the daemon. Closing the window does not
// disturb it.

import { h } from "../dom.js";
import { change } from "../api.js";
import { announce, notice } from "../notices.js";
import { advice, capital, live, report, stateWords, steps } from "../operation.js";
import { bar, button, icon, problem, shown } from "../parts.js";
import { refresh, use } from "../store.js";
import { link } from "../live.js";
import { mayDo } from "../session.js";
import { isEnded } from "../world.js";
import { openChange, openDialog } from "./dialog.js";

/** The bytes on their way grow; a word on each step comes by itself. */
const ASK_MS = 1_000;

/** Opens the window of an operation. */
export function follow(id) {
  const dialog = openDialog({ title: "Operation", symbol: "planned", body: () => [], buttons: () => [] });
  become(dialog, id);
}

/** Makes an open window follow the operation. */
export function become(dialog, id) {
  if (!dialog.open) return; // it was closed meanwhile; the operation goes on
  const path = `operations/${encodeURIComponent(id)}`;
  const it = { said: "", trouble: null };
  keepAddress(id);
  const timer = setInterval(() => refresh((one) => one === path && !isOver(path)), ASK_MS);
  const close = () => dialog.close();
  dialog.become({
    get title() {
      return heading(use(path).value);
    },
    symbol: "planned",
    wide: true,
    body: () => [
      link.state === "lost" && lostNote(),
      it.trouble && problem(it.trouble),
      shown(use(path), (operation) => view(operation, it)),
    ],
    buttons: () => [
      h("span", { class: "spring" }),
      ways(use(path).value, it, dialog),
      button(isOver(path) ? "Close" : "Close, it goes on", close, { kind: isOver(path) ? "primary" : "" }),
    ],
    closed: () => {
      clearInterval(timer);
      keepAddress(null);
    },
  });
}

const isOver = (path) => Boolean(use(path).value && isEnded(use(path).value));
const heading = (operation) => (operation ? `${capital(operation.kind)} of ${operation.vm}` : "Operation");

const lostNote = () =>
  h(
    "div",
    { class: "reason unknown", role: "status" },
    icon("resync", "spin"),
    h(
      "p",
      null,
      "The daemon does not answer. The operation lives in the journals of both hosts: it goes on, and this window with it, as soon as the daemon is back.",
    ),
  );

function view(operation, it) {
  const { done, count, step } = live(operation);
  const now = isEnded(operation) ? stateWords(operation) : step;
  if (it.said !== now) announce((it.said = now));
  return [
    h(
      "div",
      { class: `progress-head ${operation.state}`, role: "status" },
      h(
        "p",
        null,
        h("strong", null, `${operation.old_primary} → ${operation.new_primary}`),
        ` ${stateWords(operation)}`,
      ),
      h("span", null, `${done} of ${count}`),
    ),
    bar(done, count, "Steps done"),
    advice(operation),
    isEnded(operation) && report(operation),
    h("h3", null, "Actions"),
    steps(operation),
  ];
}

/** What a person can do about it. */
function ways(operation, it, dialog) {
  if (!operation || isEnded(operation) || !mayDo("operator")) return null;
  const again = async () => {
    try {
      await change(`operations/${operation.id}/resume`);
      it.trouble = null;
      notice("It is tried again");
      refresh();
    } catch (trouble) {
      it.trouble = trouble;
    }
    if (dialog.open) dialog.update();
  };
  const rests = operation.next_command && operation.state !== "in-doubt";
  const decides = operation.next_command?.includes("--force") && mayDo("administrator");
  return [
    rests && button("Try Again Now", again, { symbol: "resync", key: "resume" }),
    operation.state === "running" &&
      button("Take Back…", () => takeBack(operation), { symbol: "undo", key: "cancel" }),
    decides && button("Decide…", () => decide(operation), { symbol: "undo", kind: "danger", key: "decide" }),
  ];
}

const takeBack = (operation) =>
  openChange({
    title: `Take back the ${operation.kind} of ${operation.vm}`,
    symbol: "undo",
    go: "Take Back",
    path: `operations/${operation.id}/cancel`,
    request: () => ({ force: false }),
  });

/** What the other host did is unknown, and a person says it. */
const decide = (operation) =>
  openChange({
    title: `Decide the ${operation.kind} of ${operation.vm}`,
    symbol: "undo",
    go: "Decide",
    danger: true,
    word: () => operation.vm,
    path: `operations/${operation.id}/cancel`,
    request: () => ({ force: true }),
    intro: `${operation.explanation}. Look at the other host first: with this you vouch for what is said below.`,
  });

/** The address of the page names the window, so that a reload opens it again. */
function keepAddress(id) {
  const address = new URL(location.href);
  if (id) address.searchParams.set("operation", id);
  else address.searchParams.delete("operation");
  history.replaceState(null, "", address);
}
