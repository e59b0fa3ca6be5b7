// The context menu: what can be done, and, greyed, what cannot and why. Walked by arrow keys and first letters.

import { h, paint } from "./dom.js";
import { icon } from "./parts.js";
import { perform } from "./actions.js";

const EDGE = 8;

/** Opens a menu at the pointer, or at the row or button that asked for it. */
export function openMenu(label, actions, event) {
  const opener = document.activeElement;
  const place = document.getElementById("menu");
  const close = (back = true) => {
    place.hidePopover();
    if (back) opener?.focus?.();
  };
  paint(
    place,
    h(
      "ul",
      { role: "menu", "aria-label": label, onKeyDown: (key) => walk(key, close) },
      actions.map((action) => item(action, close)),
    ),
  );
  place.showPopover();
  move(place, event);
  place.querySelector("[role=menuitem]")?.focus();
}

const item = (action, close) =>
  h(
    "li",
    { role: "none", key: action.id, class: action.divided ? "divided" : null },
    h(
      "button",
      {
        type: "button",
        role: "menuitem",
        tabindex: "-1",
        "aria-disabled": action.reason ? "true" : null,
        onClick: () => {
          if (!action.reason) {
            close();
            perform(action);
          }
        },
      },
      icon(action.symbol),
      h("span", null, action.label, action.reason && h("small", null, action.reason)),
    ),
  );

/** Beside the pointer, and inside the window. */
function move(place, event) {
  const anchor = event.clientX
    ? { left: event.clientX, bottom: event.clientY }
    : event.currentTarget.getBoundingClientRect();
  const { width, height } = place.getBoundingClientRect();
  place.style.left = `${Math.max(EDGE, Math.min(anchor.left, innerWidth - width - EDGE))}px`;
  place.style.top = `${Math.max(EDGE, Math.min(anchor.bottom, innerHeight - height - EDGE))}px`;
}

function walk(event, close) {
  const items = [...event.currentTarget.querySelectorAll("[role=menuitem]")];
  const at = items.indexOf(document.activeElement);
  const wrap = (index) => items[(index + items.length) % items.length];
  const byLetter = () =>
    [...items.slice(at + 1), ...items].find((one) =>
      one.textContent.toLowerCase().startsWith(event.key.toLowerCase()),
    );
  const to =
    {
      ArrowDown: () => wrap(at + 1),
      ArrowUp: () => wrap(at - 1),
      Home: () => items[0],
      End: () => items.at(-1),
    }[event.key] ?? (event.key.length === 1 && event.key !== " " ? byLetter : null);
  if (to) {
    event.preventDefault();
    to()?.focus();
  } else if (event.key === "Tab") {
    close();
  }
}
