// Recovery points on a time line, and as a list: what each holds, what reads it, what can be started from it.

import { h } from "../dom.js";
import { actionOf, perform } from "../actions.js";
import { button, empty, facts, icon, shown } from "../parts.js";
import { refresh, repaint, use } from "../store.js";
import { ago, bytes, fullMoment, moment, plural } from "../words.js";
import { serverNow } from "../api.js";
import { aside } from "./aside.js";

/** Units of the drawing across the page; fewer on a narrow screen, or nobody could read it. */
const width = () => (innerWidth < 760 ? 360 : 900);
const EDGE = 14;
/** The point under the eye, by its id. */
let chosen = null;

export function points(vm, host) {
  if (!vm.mine)
    return empty(
      "point",
      "No recovery points",
      vm.side ? `They are known at ${vm.host}.` : "They begin with replication.",
    );
  return shown(
    use(`relationships/${encodeURIComponent(vm.mine.id)}/points`),
    (list) => page(vm, host, list),
    () => refresh(),
  );
}

function page(vm, host, { points: all, chain }) {
  const create = actionOf(vm, host, "point");
  const bar = h(
    "div",
    { class: "chart-bar" },
    h("h3", null, plural(all.length, "recovery point")),
    h("span", { class: "quiet" }, `${bytes(chain.bytes)} on ${vm.mine.replica_server}`),
    h("span", { class: "spring" }),
    create && button("Create Recovery Point…", () => perform(create), { symbol: "point" }),
  );
  if (all.length === 0)
    return [
      bar,
      empty(
        "point",
        "No recovery point yet",
        "The first one is there when the initial replication is complete.",
      ),
      aside(vm.mine),
    ];
  const newest = all.at(-1);
  const point = all.find((one) => one.id === chosen) ?? newest;
  return [
    bar,
    timeLine(all, point),
    h(
      "div",
      { class: "point-detail card" },
      h(
        "h3",
        null,
        fullMoment(point.at_ms),
        point === newest && h("span", { class: "tag" }, "newest"),
        point.tag && h("span", { class: "tag named" }, point.tag),
      ),
      facts([
        ["Consistency", point.consistency],
        ["Number", point.ordinal],
        ["Age", ago(point.at_ms)],
        ["Disks", point.disks.join(", ") || "unknown"],
        ["Its own files", bytes(point.bytes)],
        ["Read by", point.pinned_by.length ? point.pinned_by.join(", ") : null],
        ["Id", h("code", null, point.id)],
      ]),
      verbs(vm, host, point, point === newest),
    ),
    table(all, point),
    aside(vm.mine),
  ];
}

function verbs(vm, host, point, isNewest) {
  const from = (id, label) => {
    const action = actionOf(vm, host, id);
    return (
      action && button(label, async () => (await opener[id]())(vm.mine, point.id), { symbol: action.symbol })
    );
  };
  const remove = actionOf(vm, host, "point") && !isNewest && point.pinned_by.length === 0;
  const found = [
    from("test", "Test Failover from here…"),
    from("failover", "Failover to here…"),
    remove &&
      button("Remove…", async () => (await import("../dialogs/verbs.js")).removePoint(vm.mine, point), {
        symbol: "remove",
        kind: "danger",
      }),
  ].filter(Boolean);
  return found.length > 0 && h("div", { class: "buttons" }, found);
}

const opener = {
  test: async () => (await import("../dialogs/test-failover.js")).testFailover,
  failover: async () => (await import("../dialogs/failover.js")).failover,
};

function timeLine(all, selected) {
  const from = all[0].at_ms;
  const until = Math.max(serverNow(), from + 1);
  const right = width() - EDGE;
  const x = (at) => EDGE + ((at - from) / (until - from)) * (right - EDGE);
  const mark = (point) =>
    h(
      "circle",
      {
        key: point.id,
        class: `point ${kind(point)} ${point === selected ? "selected" : ""}`,
        cx: x(point.at_ms),
        cy: 26,
        r: point === selected ? 8 : 5.5,
        onClick: () => {
          chosen = point.id;
          repaint();
        },
      },
      h("title", null, `${fullMoment(point.at_ms)}, ${point.consistency}${point.tag ? `, ${point.tag}` : ""}`),
    );
  return h(
    "figure",
    { class: "time-line" },
    h(
      "svg",
      {
        viewBox: `0 0 ${width()} 64`,
        role: "img",
        "aria-label": `Recovery points from ${fullMoment(from)} until now; the list below has them all`,
      },
      h("line", { class: "axis", x1: EDGE, x2: right, y1: 26, y2: 26 }),
      all.map(mark),
      h("text", { class: "mark", x: EDGE, y: 56 }, moment(from)),
      h("text", { class: "mark", x: right, y: 56, "text-anchor": "end" }, "now"),
    ),
    h(
      "figcaption",
      null,
      ["application", "file-system", "crash", "off"].map((name) =>
        h("span", { key: name, class: `key ${name}` }, LEGEND[name]),
      ),
    ),
  );
}

const LEGEND = {
  application: "application-consistent",
  "file-system": "file-system-consistent",
  crash: "crash-consistent",
  off: "powered off",
};
const kind = (point) => Object.keys(LEGEND).find((name) => LEGEND[name] === point.consistency) ?? "crash";

const table = (all, selected) =>
  h(
    "table",
    { class: "plain" },
    h(
      "thead",
      null,
      h(
        "tr",
        null,
        ["Number", "Moment", "Consistency", "Tag"].map((name) => h("th", { scope: "col" }, name)),
        h("th", { scope: "col", class: "number" }, "Size"),
      ),
    ),
    h(
      "tbody",
      null,
      [...all].reverse().map((point) =>
        h(
          "tr",
          {
            key: point.id,
            class: point === selected ? "selected" : null,
            onClick: () => {
              chosen = point.id;
              repaint();
            },
          },
          h(
            "td",
            null,
            h(
              "button",
              {
                type: "button",
                class: "as-link",
                "aria-pressed": String(point === selected),
                onClick: () => {
                  chosen = point.id;
                  repaint();
                },
              },
              point.ordinal,
            ),
          ),
          h("td", { class: "once" }, moment(point.at_ms)),
          h("td", null, point.consistency),
          h(
            "td",
            null,
            point.tag ?? "",
            point.pinned_by.length > 0 && h("span", { class: "tag" }, icon("test"), "in a test"),
          ),
          h("td", { class: "number" }, bytes(point.bytes)),
        ),
      ),
    ),
  );
