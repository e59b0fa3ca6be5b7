// The small pieces that every page is made of: icons, health, commands to copy, and the states empty, loading and failed.

import { h } from "./dom.js";
import { announce } from "./notices.js";
import { moment } from "./words.js";

const SPRITE = new URL("../icons.svg", import.meta.url).href;

/** An icon of the sprite; it says nothing to a screen reader, for words stand beside it. */
export const icon = (name, kind = "") =>
  h("svg", { class: `icon ${kind}`, "aria-hidden": "true" }, h("use", { href: `${SPRITE}#${name}` }));

/** A button with an icon and words. `kind`: `primary`, `danger`, `quiet`. */
export const button = (label, onClick, { kind = "", symbol, ...props } = {}) =>
  h("button", { type: "button", class: `button ${kind}`, onClick, ...props }, symbol && icon(symbol), label);

/** A button that shows its icon only; its words are for screen readers and the pointer. */
export const iconButton = (label, symbol, onClick, props = {}) =>
  h(
    "button",
    { type: "button", class: "icon-button", onClick, title: label, "aria-label": label, ...props },
    icon(symbol),
  );

const HEALTH = {
  normal: ["ok", "Normal"],
  warning: ["warning", "Warning"],
  critical: ["critical", "Critical"],
  unknown: ["unknown", "Unknown"],
  none: ["dash", "Not protected"],
};

/** Health by shape, colour and word. */
export function health(value) {
  const [symbol, words] = HEALTH[value] ?? HEALTH.unknown;
  return h("span", { class: `health ${value}` }, icon(symbol), words);
}

/** A command or text that is copied by a click. */
export function command(text) {
  const copy = async (event) => {
    const holder = event.currentTarget;
    await navigator.clipboard.writeText(text);
    holder.classList.add("copied");
    setTimeout(() => holder.classList.remove("copied"), 1500);
    announce("Copied");
  };
  return h(
    "button",
    { type: "button", class: "command", onClick: copy, title: "Copy" },
    h("code", null, text),
    icon("copy"),
  );
}

/** How something is cured: the command when it is one, else the advice in words. */
export function cure(text) {
  if (!text) return null;
  const [words, typed] = split(text);
  return h(
    "p",
    { class: "cure" },
    h("span", { class: "label" }, "Cure"),
    words && h("span", null, words),
    typed && command(typed),
  );
}

/** Where the command begins in a cure such as `on the replica server: virt-replica resume vm`. */
function split(text) {
  const at = text.search(/\b(virt-replica|virsh|systemctl|apt-get|mount|usermod)\b/);
  const single = at >= 0 && !text.slice(at).includes(";");
  return single ? [text.slice(0, at).trim(), text.slice(at)] : [text, ""];
}

/** A problem: what, why, the cure, and the checks that refused. */
export function problem(trouble, again) {
  return h(
    "div",
    { class: "problem", role: "alert" },
    icon("critical"),
    h(
      "div",
      null,
      h("h3", null, trouble.title),
      trouble.detail && h("p", null, trouble.detail),
      cure(trouble.cure),
      trouble.checks?.length > 0 && checks(trouble.checks),
      again && button("Try again", again, { symbol: "resync" }),
    ),
  );
}

/** Prerequisites, each ticked or crossed with its cure. */
export function checks(list) {
  return h(
    "ul",
    { class: "checks" },
    list.map((check, index) =>
      h(
        "li",
        { class: check.ok ? "pass" : "fail", style: { "--order": index } },
        icon(check.ok ? "ok" : "critical"),
        h("span", { class: "sr" }, check.ok ? "Holds: " : "Does not hold: "),
        h(
          "div",
          null,
          h("span", null, check.name),
          check.detail && h("p", { class: "detail" }, check.detail),
          cure(check.cure),
        ),
      ),
    ),
  );
}

/** Nothing to show, and what one can do about it. */
export const empty = (symbol, title, text, ...actions) =>
  h("div", { class: "empty" }, icon(symbol), h("h3", null, title), text && h("p", null, text), actions);

/** The place of something that is on its way. */
export const loading = (lines = 3) =>
  h(
    "div",
    { class: "loading", role: "status" },
    h("span", { class: "sr" }, "Loading"),
    Array.from({ length: lines }, () => h("span", { class: "bone", "aria-hidden": "true" })),
  );

/** That what is shown is of before: since when, and why. While the daemon does not answer at all, the frame says so. */
export const old = ({ at, problem: trouble }) =>
  trouble &&
  trouble.code !== "unreachable" &&
  h(
    "div",
    { class: "reason unknown", key: "old", role: "status" },
    icon("unknown"),
    h(
      "div",
      null,
      h(
        "p",
        null,
        at ? `As of ${moment(at)}; it cannot be read now: ` : "What there is cannot be read: ",
        trouble.detail || trouble.title,
      ),
      cure(trouble.cure),
    ),
  );

/** The answer's value through `show`, or that it is on its way, or what went wrong. An old value is shown as what it is. */
export function shown(answer, show, again) {
  if (answer.value !== undefined) return [old(answer), show(answer.value)];
  return answer.problem ? problem(answer.problem, again) : loading();
}

/** Names and values. Values that are null are left out. */
export const facts = (pairs) =>
  h(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value !== null)
      .map(([name, value]) => h("div", { key: name }, h("dt", null, name), h("dd", null, value))),
  );

/** A few words of which one holds, or each with how many it would show. `chosen`: an index. */
export const chips = (label, names, chosen, choose) =>
  h(
    "div",
    { class: "chips", role: "group", "aria-label": label },
    names.map(([name, count], index) =>
      h(
        "button",
        {
          type: "button",
          class: "chip",
          "aria-pressed": String(index === chosen),
          onClick: () => choose(index),
        },
        name,
        count !== undefined && h("span", { class: "count" }, count),
      ),
    ),
  );

/** Progress in a bar; `total` null: not known yet. */
export const bar = (done, total, label) =>
  h("progress", {
    ...(total ? { max: total, value: done } : {}),
    "aria-label": label,
    key: total ? "known" : "unknown",
  });

const titled =
  (tag) =>
  (title, ...children) =>
    h("section", { class: "card" }, h(tag, null, title), children);
/** A card with a title, below the name of a virtual machine. */
export const card = titled("h3");
/** The same below the title of a page. */
export const pageCard = titled("h2");
