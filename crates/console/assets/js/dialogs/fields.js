// What windows ask for: each a label with its field, its hint, and what is wrong with it.

import { h } from "../dom.js";

let count = 0;
/** Ids by label object, so that a field keeps its own through every paint. */
const ids = new Map();
const idOf = (label) => {
  if (!ids.has(label)) ids.set(label, `field-${++count}`);
  return ids.get(label);
};

/** What a field calls when it changes: keeps the value under a name of `it`, in the form that is given, and tells of it. */
export const into =
  (it, changed) =>
  (name, form = (value) => value) =>
  (value) => {
    it[name] = form(value);
    changed();
  };
/** Without the blanks around it. */
export const trimmed = (value) => value.trim();

/** A line of text. `changed(text)`; `known`: words that are offered. */
export function text(label, value, changed, { hint, wrong, known, ...props } = {}) {
  const id = idOf(label);
  return h(
    "div",
    { class: `field ${wrong ? "wrong" : ""}`, key: label },
    h("label", { for: id }, label),
    h("input", {
      id,
      type: "text",
      value,
      onInput: (event) => changed(event.target.value),
      "aria-describedby": hint || wrong ? `${id}-hint` : null,
      "aria-invalid": wrong ? "true" : null,
      spellcheck: "false",
      autocomplete: "off",
      list: known ? `${id}-known` : null,
      ...props,
    }),
    known &&
      h(
        "datalist",
        { id: `${id}-known` },
        known.map((word) => h("option", { key: word, value: word })),
      ),
    (wrong || hint) && h("p", { class: "hint", id: `${id}-hint` }, wrong || hint),
  );
}

/** One of a few, as a list that folds. `options`: values with their words. */
export function select(label, value, options, changed, { hint } = {}) {
  const id = idOf(label);
  return h(
    "div",
    { class: "field", key: label },
    h("label", { for: id }, label),
    h(
      "select",
      { id, onChange: (event) => changed(event.target.value), "aria-describedby": hint ? `${id}-hint` : null },
      options.map(([one, words]) => h("option", { key: one, value: one, selected: one === value }, words)),
    ),
    hint && h("p", { class: "hint", id: `${id}-hint` }, hint),
  );
}

/** One of a few, all in sight. `options`: values with words, and a hint or fields of its own. */
export function radios(label, value, options, changed) {
  const name = idOf(label);
  return h(
    "fieldset",
    { class: "field radios", key: label },
    h("legend", null, label),
    options.map(([one, words, more]) =>
      h(
        "div",
        { key: one, class: "radio" },
        h(
          "label",
          null,
          h("input", { type: "radio", name, value: one, checked: one === value, onChange: () => changed(one) }),
          h("span", null, words),
        ),
        more && h("div", { class: "more" }, more),
      ),
    ),
  );
}

/** A box to tick. */
export const tick = (label, checked, changed, hint, props = {}) =>
  h(
    "div",
    { class: "field tick", key: label },
    h(
      "label",
      null,
      h("input", { type: "checkbox", checked, onChange: (event) => changed(event.target.checked), ...props }),
      h("span", null, label),
    ),
    hint && h("p", { class: "hint" }, hint),
  );
