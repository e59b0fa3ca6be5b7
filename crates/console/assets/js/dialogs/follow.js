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
import { openDialog } from "./dialog.js";

/** Bytes on their way are told by nobody; they are asked for. */
const ASK_MS = 1_000;

/** Opens the window of an operation. */
export function follow(id) {
  const dialog = openDialog({ title: "Operation", symbol: "planned", body: () => [], buttons: () => [] });
  become(dialog, id);
}

/** Makes an open window follow the operation. */
export function become(dialog, id) {
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
  const ask = (verb, body) => async () => {
    try {
      await change(`operations/${operation.id}/${verb}`, body);
      it.trouble = null;
      notice(verb === "cancel" ? "It is taken back" : "It is tried again");
      refresh();
    } catch (trouble) {
      it.trouble = trouble;
    }
    dialog.update();
  };
  const rests = operation.next_command && operation.state !== "in-doubt";
  const early = operation.state === "running";
  return [
    rests && button("Try Again Now", ask("resume"), { symbol: "resync", key: "resume" }),
    early && button("Take Back", ask("cancel", { force: false }), { symbol: "undo", key: "cancel" }),
  ];
}

/** The address of the page names the window, so that a reload opens it again. */
function keepAddress(id) {
  const address = new URL(location.href);
  if (id) address.searchParams.set("operation", id);
  else address.searchParams.delete("operation");
  history.replaceState(null, "", address);
}
