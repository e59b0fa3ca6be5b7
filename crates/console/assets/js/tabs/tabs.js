// The tabs below the list: what is known of one VM.

import { h } from "../dom.js";
import { vmActions } from "../actions.js";
import { focusRow } from "../list.js";
import { openMenu } from "../menu.js";
import { button, health, icon, iconButton } from "../parts.js";
import { address, go } from "../route.js";
import { events } from "./events.js";
import { networking } from "./networking.js";
import { operations } from "./operations.js";
import { points } from "./points.js";
import { replication } from "./replication.js";
import { summary } from "./summary.js";

const TABS = [
  ["summary", "Summary", summary],
  ["replication", "Replication", replication],
  ["points", "Recovery Points", points],
  ["networking", "Networking", networking],
  ["operations", "Operations", operations],
  ["events", "Events", events],
];

/** The lower half of the page for the selected VM. */
export function tabs(vm, host, route) {
  const chosen = TABS.find(([id]) => id === route.tab) ?? TABS[0];
  const to = (id) => go(address("hosts", host.name, vm.key, id), { replace: true });
  return h(
    "section",
    { class: "detail-pane", "aria-label": vm.name },
    h(
      "header",
      { class: "detail-head" },
      h("h2", null, icon("vm"), vm.name),
      health(vm.health),
      button("Actions", (event) => openMenu(`Actions for ${vm.name}`, vmActions(vm, host), event), {
        kind: "when-narrow",
        symbol: "more",
        "aria-haspopup": "menu",
      }),
      iconButton("Close the details", "close", () => {
        go(address("hosts", host.name));
        requestAnimationFrame(() => requestAnimationFrame(() => focusRow(vm.key)));
      }),
    ),
    h(
      "div",
      {
        class: "tabs",
        role: "tablist",
        "aria-label": `About ${vm.name}`,
        onKeyDown: (event) => walk(event, chosen[0], to),
      },
      TABS.map(([id, label]) =>
        h(
          "button",
          {
            key: id,
            type: "button",
            role: "tab",
            id: `tab-${id}`,
            "aria-controls": "tab-panel",
            "aria-selected": String(id === chosen[0]),
            tabindex: id === chosen[0] ? "0" : "-1",
            onClick: () => to(id),
          },
          label,
        ),
      ),
    ),
    h(
      "div",
      {
        class: "tab-panel",
        role: "tabpanel",
        id: "tab-panel",
        tabindex: "0",
        "aria-labelledby": `tab-${chosen[0]}`,
        key: `${vm.key} ${chosen[0]}`,
      },
      chosen[2](vm, host),
    ),
  );
}

function walk(event, now, to) {
  const at = TABS.findIndex(([id]) => id === now);
  const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: TABS.length - 1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  const id = TABS[(next + TABS.length) % TABS.length][0];
  to(id);
  requestAnimationFrame(() => document.getElementById(`tab-${id}`)?.focus());
}
