// A window of several pages with a rail of their names: Back, Next, and at the end a summary with the plan. For Enable and Reverse.

import { h } from "../dom.js";
import { change, plan } from "../api.js";
import { notice } from "../notices.js";
import { button, icon } from "../parts.js";
import { revisionOf } from "../world.js";
import { cost, openDialog, planView } from "./dialog.js";

/**
 * `pages`: `{title, body(again), missing?()}`, where `missing` says why one cannot go on. `path`, `request()`, `go`,
 * `side`, `done(result, dialog)` as of a change.
 */
export function openWizard(options) {
  const it = { page: 0, plan: null, problem: null, waiting: false, asked: 0, revision: null };
  const last = options.pages.length; // the summary
  const titles = [...options.pages.map((page) => page.title), "Summary"];
  const missing = (index) => options.pages[index]?.missing?.() ?? null;
  const firstMissing = () => titles.findIndex((_, index) => missing(index));
  const dialog = openDialog({ title: options.title, symbol: options.symbol, wide: true, body, buttons });

  function show(page) {
    it.page = page;
    if (page === last) replan();
    dialog.update();
    document.querySelector("dialog:last-of-type .wizard-page h3")?.focus();
  }

  function body() {
    const stop = firstMissing();
    const reachable = (index) => stop < 0 || index <= stop;
    return h(
      "div",
      { class: "wizard" },
      h(
        "ol",
        { class: "rail", "aria-label": "Pages" },
        titles.map((title, index) =>
          h(
            "li",
            { key: title, class: index < it.page ? "past" : null },
            h(
              "button",
              {
                type: "button",
                "aria-current": index === it.page ? "step" : null,
                disabled: !reachable(index),
                onClick: () => show(index),
              },
              index < it.page ? icon("check") : h("span", { class: "dot" }, index + 1),
              title,
            ),
          ),
        ),
      ),
      h(
        "div",
        { class: "wizard-page", key: it.page },
        h("h3", { tabindex: "-1" }, titles[it.page]),
        it.page === last
          ? [options.summary?.(), planView(it, replan)]
          : options.pages[it.page].body(() => dialog.update()),
      ),
    );
  }

  function buttons() {
    const why = missing(it.page);
    return [
      it.page === last && cost(it.plan),
      h("span", { class: "spring quiet", role: "status" }, it.waiting ? "Under way…" : why),
      button("Back", () => show(it.page - 1), { disabled: it.page === 0 || it.waiting }),
      it.page < last &&
        button("Next", () => show(it.page + 1), { kind: "primary", disabled: why !== null, key: "next" }),
      it.page === last &&
        button(options.go, finish, {
          kind: "primary",
          disabled: it.waiting || !it.plan || it.plan.checks.some((check) => !check.ok),
          key: "finish",
        }),
      button(it.waiting ? "Close, it goes on" : "Cancel", () => dialog.close()),
    ];
  }

  async function replan() {
    const asked = ++it.asked;
    const revision = options.side ? revisionOf(options.side) : null;
    Object.assign(it, { plan: null, problem: null, revision });
    try {
      const answer = await plan(options.path, options.request());
      if (asked === it.asked) it.plan = answer;
    } catch (trouble) {
      if (asked === it.asked) it.problem = trouble;
    }
    if (dialog.open) dialog.update();
  }

  async function finish() {
    it.waiting = true;
    dialog.update();
    try {
      options.done(await change(options.path, options.request(), it.revision), dialog);
    } catch (trouble) {
      Object.assign(it, { waiting: false, problem: trouble });
      if (trouble.code === "stale") it.plan = null; // the button to look again is beneath
      if (dialog.open) dialog.update();
      else notice(`${options.title}: ${trouble.title}. ${trouble.detail}`, "failed");
    }
  }
  return dialog;
}
