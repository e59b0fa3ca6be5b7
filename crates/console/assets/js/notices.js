// Short words at the edge of the page, read aloud as well: what was done, and what could not be.

import { h, paint } from "./dom.js";

const SHOWN_MS = 6_000;
/** @type {{id: number, text: string, kind: string}[]} */
let notices = [];
let next = 1;

const place = () => document.getElementById("notices");

/** Shows and says `text`; `kind`: `done` or `failed`. */
export function notice(text, kind = "done") {
  const id = next++;
  notices = [...notices, { id, text, kind }];
  show();
  setTimeout(() => {
    notices = notices.filter((one) => one.id !== id);
    show();
  }, SHOWN_MS);
}

/** Says `text` to screen readers only. */
export function announce(text) {
  document.getElementById("said").textContent = text;
}

function show() {
  paint(
    place(),
    notices.map(({ id, text, kind }) => h("p", { key: id, class: `notice ${kind}` }, text)),
  );
}
