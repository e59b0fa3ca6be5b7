// Events of one VM, the newest first.

import { h } from "../dom.js";
import { chips, empty, icon, shown } from "../parts.js";
import { refresh, repaint, use } from "../store.js";
import { fullMoment } from "../words.js";

const SYMBOLS = { info: "info", warning: "warning", critical: "critical" };
const FILTERS = [
  ["All", ["info", "warning", "critical"]],
  ["Warnings", ["warning", "critical"]],
  ["Critical", ["critical"]],
];
let chosen = 0;

export function events(vm, host) {
  const from = vm.mine ? "" : host.prefix;
  return shown(
    use(`${from}events?vm=${encodeURIComponent(vm.side ? vm.side.id : vm.name)}`),
    (all) => {
      if (all.length === 0)
        return empty("info", "No events", "What happens to this virtual machine is kept here.");
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
        h(
          "table",
          { class: "plain events" },
          h(
            "thead",
            null,
            h(
              "tr",
              null,
              ["Severity", "Moment", "Number", "What happened"].map((name) => h("th", { scope: "col" }, name)),
            ),
          ),
          h(
            "tbody",
            null,
            kept.map((event) =>
              h(
                "tr",
                { key: event.sequence, class: event.severity },
                h(
                  "td",
                  null,
                  h(
                    "span",
                    { class: `health ${event.severity}` },
                    icon(SYMBOLS[event.severity]),
                    event.severity,
                  ),
                ),
                h("td", null, fullMoment(event.at_ms)),
                h("td", { class: "number" }, event.number),
                h("td", null, event.text),
              ),
            ),
          ),
        ),
        kept.length === 0 && h("p", { class: "nothing" }, "None of this severity."),
      ];
    },
    () => refresh(),
  );
}
