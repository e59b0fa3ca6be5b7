// Short words at the edge of the page, read aloud as well: what was done, and what could not be.

import { h, paint } from "./dom.js";

const SHOWN_MS = 6_000;
/** What could not be done is there to be read, until it is closed. */
const FAILED_MS = 60_000;
/** @type {{id: number, text: string, kind: string}[]} */
let notices = [];
let next = 1;

const place = () => document.getElementById("notices");

/** Shows and says `text`; `kind`: `done` or `failed`. */
export function notice(text, kind = "done") {
  const id = next++;
  notices = [...notices, { id, text, kind }];
  show();
  setTimeout(() => close(id), kind === "failed" ? FAILED_MS : SHOWN_MS);
}

function close(id) {
  notices = notices.filter((one) => one.id !== id);
  show();
}

/** Says `text` to screen readers only. */
export function announce(text) {
  const place = document.getElementById("said");
  place.textContent = "";
  setTimeout(() => (place.textContent = text)); // the same words again are said again
}

function show() {
  paint(
    place(),
    notices.map(({ id, text, kind }) =>
      h(
        "p",
        { key: id, class: `notice ${kind}` },
        text,
        h("button", { type: "button", class: "as-link", onClick: () => close(id) }, "Close"),
      ),
    ),
  );
}
