// What happened, the newest first: to one VM, or to everything of this host.

import { h } from "../dom.js";
import { button, chips, command, empty, icon, shown } from "../parts.js";
import { refresh, repaint, use } from "../store.js";
import { fullMoment } from "../words.js";

const FILTERS = [
  ["All", ["info", "warning", "critical"]],
  ["Warnings", ["warning", "critical"]],
  ["Critical", ["critical"]],
];
/** Events that are asked for at first, and with “Older”: the most that the API gives at once. */
const FIRST = 200;
const MOST = 1000;
let chosen = 0;
let limit = FIRST;

/** Of one VM. */
export function events(vm, host) {
  const name = encodeURIComponent(vm.side ? vm.side.id : vm.name);
  return list(
    `${vm.mine ? "" : host.prefix}events?vm=${name}&`,
    "What happens to this virtual machine is kept here.",
    false,
  );
}

/** Of everything here. */
export const allEvents = () => list("events?", "What happens on this host is kept here.", true);

const list = (path, nothing, ofAll) =>
  shown(
    use(`${path}limit=${limit}`),
    (all) => {
      if (all.length === 0) return empty("info", "No events", nothing);
      const kept = all.filter((event) => FILTERS[chosen][1].includes(event.severity)).reverse();
      return [
        chips(
          "Severity",
          FILTERS.map(([name]) => [name]),
          chosen,
          (index) => {
            chosen = index;
            repaint();
          },
        ),
        table(kept, ofAll),
        kept.length === 0 && h("p", { class: "nothing" }, "None of this severity."),
        all.length === limit && older(),
      ];
    },
    () => refresh(),
  );

function older() {
  if (limit === MOST) return h("p", { class: "quiet" }, "What was before: ", command("virt-replica events"));
  const more = () => {
    limit = MOST;
    repaint();
  };
  return button("Older…", more);
}

const table = (kept, ofAll) =>
  h(
    "table",
    { class: "plain events" },
    h(
      "thead",
      null,
      h(
        "tr",
        null,
        ["Severity", "Moment", "Number", ofAll && "Virtual machine", "What happened"]
          .filter(Boolean)
          .map((name) => h("th", { scope: "col" }, name)),
      ),
    ),
    h(
      "tbody",
      null,
      kept.map((event) =>
        h(
          "tr",
          { key: event.sequence, class: event.severity },
          h("td", null, h("span", { class: `health ${event.severity}` }, icon(event.severity), event.severity)),
          h("td", { class: "once" }, fullMoment(event.at_ms)),
          h("td", null, event.number),
          ofAll && h("td", null, event.vm ?? "this host"),
          h("td", null, event.text),
        ),
      ),
    ),
  );
