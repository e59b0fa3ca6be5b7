// The frame of every window: the browser's own modal dialog (it holds the focus, gives it back, and makes the rest inert), painted
// anew whenever what it shows changes. And the usual window of a change: its plan, its prerequisites, one button.

import { h, paint } from "../dom.js";
import { change, plan } from "../api.js";
import { notice } from "../notices.js";
import { capital } from "../operation.js";
import { button, checks, icon, iconButton, loading, problem } from "../parts.js";
import { session } from "../session.js";
import { repaint, watch } from "../store.js";
import { bytes, span } from "../words.js";
import { revisionOf } from "../world.js";
import { into, text, trimmed } from "./fields.js";

const REPLAN_AFTER_MS = 350;
let count = 0;

/**
 * Opens a window. `content`: `{title, symbol, body(), buttons(), wide?, closed?()}`.
 * @returns {{update: () => void, close: () => void, become: (content: object) => void}}
 */
export function openDialog(content) {
  const id = `dialog-${++count}`;
  const element = document.createElement("dialog");
  element.setAttribute("aria-labelledby", id);
  const update = () => {
    if (!session.who) return element.close(); // what it shows is for who was signed in
    element.className = content.wide ? "wide" : "";
    paint(
      element,
      h(
        "header",
        null,
        icon(content.symbol),
        h("h2", { id }, content.title),
        iconButton("Close the window", "close", () => element.close()),
      ),
      h("div", { class: "dialog-body", tabindex: "0" }, content.body()),
      h("footer", null, content.buttons()),
    );
  };
  const unwatch = watch(update);
  const dialog = {
    open: true,
    update,
    close: () => element.close(),
    become: (next) => {
      content = next;
      update();
      element.querySelector(".dialog-body").focus(); // the button that was pressed is gone
    },
  };
  element.addEventListener("close", () => {
    dialog.open = false;
    unwatch();
    element.remove();
    content.closed?.();
    repaint();
  });
  document.body.append(element);
  update();
  element.showModal();
  return dialog;
}

/**
 * The window of a change.
 * `path` and `request()`: what is asked for; `fields(again)`: what can be chosen, `again()` when a choice changed;
 * `go`: the word on the button; `danger`: it cannot be taken back; `word()`: what must be typed first, if anything; `then(result, dialog)`:
 * instead of closing; `side`: the relationship that the user decides upon.
 */
export function openChange(options) {
  // `current`: the plan is that of `request`, which is what the fields say now; nothing else is ever carried out.
  const it = {
    plan: null,
    problem: null,
    waiting: false,
    asked: 0,
    revision: null,
    request: undefined,
    current: false,
    typed: "",
  };
  const word = () => options.word?.() ?? null;
  const dialog = openDialog({
    title: options.title,
    symbol: options.symbol,
    wide: options.wide,
    body: () => [
      options.intro && h("p", { class: "intro" }, options.intro),
      options.fields?.(again),
      planView(it, replan),
      word() !== null &&
        text(`Type ${word()} to confirm`, it.typed, into(it, () => dialog.update())("typed", trimmed), {
          class: "short",
        }),
    ],
    buttons: () => [
      cost(it.plan),
      h("span", { class: "spring quiet", role: "status" }, it.waiting && "Under way…"),
      button(it.waiting ? "Close, it goes on" : "Cancel", () => dialog.close()),
      button(options.go, commit, {
        kind: options.danger ? "danger filled" : "primary",
        disabled:
          it.waiting ||
          !it.current ||
          it.plan.checks.some((check) => !check.ok) ||
          (word() !== null && it.typed !== word()),
        symbol: options.symbol,
      }),
    ],
  });
  let timer = 0;

  function again() {
    clearTimeout(timer);
    it.asked++;
    it.current = false;
    timer = setTimeout(replan, REPLAN_AFTER_MS);
    dialog.update();
  }

  async function replan() {
    const asked = ++it.asked;
    const request = options.request?.();
    if (request === null) return; // a field is not filled in yet
    const revision = options.side ? revisionOf(options.side) : null;
    try {
      const answer = await plan(options.path, request);
      if (asked === it.asked)
        Object.assign(it, { plan: answer, problem: null, request, revision, current: true });
    } catch (trouble) {
      if (asked === it.asked) Object.assign(it, { plan: null, problem: trouble, current: false });
    }
    if (dialog.open) dialog.update();
  }

  async function commit() {
    // A plan that is on its way would paint over what the change is answered.
    clearTimeout(timer);
    it.asked++;
    Object.assign(it, { waiting: true, problem: null });
    dialog.update();
    try {
      const result = await change(options.path, it.request, it.revision);
      if (options.then && dialog.open) return options.then(result, dialog);
      notice(result.message ? sentence(result.message) : `${options.title}: done`);
      dialog.close();
    } catch (trouble) {
      Object.assign(it, { waiting: false, problem: trouble });
      if (trouble.code === "stale") Object.assign(it, { plan: null, current: false }); // the button to look again is beneath
      if (dialog.open) dialog.update();
      else notice(`${options.title}: ${trouble.title}. ${trouble.detail}`, "failed");
    }
  }

  replan();
  return dialog;
}

/** What must hold first, and what will happen. */
export function planView(it, again) {
  const { plan: known } = it;
  if (!known)
    return it.problem
      ? problem(it.problem, again)
      : h("section", { class: "plan" }, h("h3", null, "Prerequisites"), loading(4));
  return h(
    "div",
    { class: `plan ${it.current === false ? "old" : ""}`, "aria-busy": String(it.current === false) },
    it.problem && problem(it.problem, again),
    known.checks?.length > 0 &&
      h(
        "section",
        { key: "checks" },
        h("h3", null, "Prerequisites", tally(known.checks)),
        checks(known.checks),
      ),
    known.summary?.length > 0 &&
      h(
        "section",
        { key: "actions" },
        h("h3", null, "Actions"),
        h(
          "ol",
          { class: "actions-list" },
          known.summary.map((line) => h("li", { key: line }, line)),
        ),
      ),
    known.checks?.some((check) => !check.ok) && button("Check again", again, { symbol: "resync" }),
  );
}

/** What a plan costs, beside the button: bytes and downtime, also as unknown. */
export function cost(known) {
  if (!known || !(known.touches_guest || typeof known.expected_bytes === "number")) return null;
  return h(
    "dl",
    { class: "cost", key: "cost" },
    h("div", null, h("dt", null, "Expected to travel"), h("dd", null, bytes(known.expected_bytes))),
    known.touches_guest &&
      h(
        "div",
        null,
        h("dt", null, "Expected downtime"),
        h(
          "dd",
          null,
          typeof known.expected_downtime_ms === "number"
            ? `about ${span(known.expected_downtime_ms)}`
            : "unknown",
        ),
      ),
  );
}

function tally(list) {
  const failed = list.filter((check) => !check.ok).length;
  return h(
    "span",
    { class: `tally ${failed ? "fail" : "pass"}`, role: "status" },
    failed ? `${failed} of ${list.length} not met` : `all ${list.length} met`,
  );
}

/** As a sentence of its own. */
export const sentence = (text) => `${capital(text)}.`;
