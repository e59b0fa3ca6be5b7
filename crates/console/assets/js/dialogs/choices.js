// The choices of a relationship that more than one window asks for, and the form in which the API takes them.

import { h } from "../dom.js";
import { button, checks, shown } from "../parts.js";
import { refresh, use } from "../store.js";
import { every, typedBytes, typedSeconds } from "../words.js";
import { into, radios, select, text, trimmed } from "./fields.js";

const FREQUENCIES = [
  ["30", "30 seconds"],
  ["300", "5 minutes"],
  ["900", "15 minutes"],
];
const GRID = /^(?:\d+|latest|\d+x(?:all|\d*[smhd])(?:,\d+x(?:all|\d*[smhd]))*)$/;

/** Frequency: the three of Hyper-V, or any from 5 s to 24 h. `it.frequency`: seconds as text; null while what is typed is none. */
export function frequency(it, changed) {
  const usual = FREQUENCIES.some(([value]) => value === it.frequency) && !it.otherFrequency;
  const set = (value) => {
    it.otherFrequency = value === "other";
    it.frequency = value === "other" ? it.frequency : value;
    changed();
  };
  const typed = it.typedFrequency ?? every(Number(it.frequency));
  return radios(
    "Replication frequency",
    usual ? it.frequency : "other",
    [
      ...FREQUENCIES,
      [
        "other",
        "Another",
        !usual &&
          text(
            "Time between two cycles",
            typed,
            (value) => {
              const seconds = typedSeconds(value);
              Object.assign(it, {
                typedFrequency: value,
                frequency: seconds === null ? null : String(seconds),
              });
              changed();
            },
            {
              hint: "From 5s to 24h.",
              wrong: it.frequency === null && "a time such as 30s or 10m",
              class: "short",
            },
          ),
      ],
    ],
    set,
  );
}

/** Which recovery points stay. `it.points`: as it is typed for the command line. */
export function recoveryPoints(it, changed) {
  const kind = (it.pointsKind ??=
    it.points === "latest" ? "latest" : /^\d+$/.test(it.points) ? "hours" : "grid");
  const set = (value) => {
    Object.assign(it, {
      pointsKind: value,
      points: { latest: "latest", hours: "24", grid: "24x1h,7x1d" }[value],
    });
    changed();
  };
  const typed = (label, hint) =>
    text(label, it.points, into(it, changed)("points", trimmed), { hint, wrong: wrongPoints(it) });
  return radios(
    "Recovery points",
    kind,
    [
      ["latest", "Maintain only the latest recovery point"],
      [
        "hours",
        "Additional hourly recovery points",
        kind === "hours" && typed("How many hours", "One for each hour that has one."),
      ],
      [
        "grid",
        "A grid of periods",
        kind === "grid" &&
          typed("Periods", "24x1h,7x1d keeps one for each of 24 hours and of 7 days; 12xall the newest 12."),
      ],
    ],
    set,
  );
}

export const wrongPoints = (it) =>
  GRID.test(it.points) ? null : "a number of hours, or periods such as 24x1h,7x1d";

/** Something that happens every so often, or never. `it[name]`: as it is typed, `never` for never. */
export const repeated = (it, name, label, hint, changed) =>
  text(label, it[name], into(it, changed)(name, trimmed), {
    hint,
    wrong: wrongRepeated(it[name]) && "never, or a time such as 4h or 7d",
    class: "short",
  });

export const wrongRepeated = (value) => value !== "never" && typedSeconds(value) === null;

/** What is compressed on its way. */
export const compression = (it, changed, options) =>
  select(
    "Compression",
    it.compression,
    [
      ["adaptive", "When the link is slower than the compressor"],
      ["on", "Always"],
      ["off", "Never"],
    ],
    into(it, changed)("compression"),
    options,
  );

/** Compression and the limit of this VM. `it.limit`: as it is typed; empty for none. */
export const link = (it, changed) => [
  compression(it, changed),
  text("Limit of this VM's traffic", it.limit, into(it, changed)("limit", trimmed), {
    hint: "Such as 50MiB/s. Empty: only the host's limit.",
    wrong: wrongLimit(it),
    class: "short",
  }),
];

/** Everything that replication needs of the other host, looked at now. */
export function connection(peer) {
  const answer = use(`peers/${encodeURIComponent(peer)}/test`);
  return h(
    "section",
    { class: "plan", key: "test" },
    h("h4", null, `Connection to ${peer}`),
    shown(answer, checks),
    button("Test again", () => refresh((path) => path === answer.path), { symbol: "resync" }),
  );
}

export const wrongLimit = (it) =>
  it.limit === "" || typedBytes(it.limit) !== null ? null : "a size such as 50MiB/s";

/** Names of networks here and there. `it.networks`: pairs. */
export function networks(it, changed) {
  const set = (index, side) => (value) => {
    it.networks[index][side] = value.trim();
    changed();
  };
  return h(
    "div",
    { class: "field", key: "networks" },
    h(
      "table",
      { class: "plain" },
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          h("th", { scope: "col" }, it.namesHere),
          h("th", { scope: "col" }, it.namesThere),
          h("th", null, h("span", { class: "sr" }, "Remove")),
        ),
      ),
      h(
        "tbody",
        null,
        it.networks.map((pair, index) =>
          h(
            "tr",
            { key: index },
            h(
              "td",
              null,
              h("input", {
                type: "text",
                value: pair[0],
                "aria-label": `Network ${index + 1}: ${it.namesHere}`,
                onInput: (event) => set(index, 0)(event.target.value),
              }),
            ),
            h(
              "td",
              null,
              h("input", {
                type: "text",
                value: pair[1],
                "aria-label": `Network ${index + 1}: ${it.namesThere}`,
                onInput: (event) => set(index, 1)(event.target.value),
              }),
            ),
            h(
              "td",
              null,
              h(
                "button",
                {
                  type: "button",
                  class: "button quiet",
                  onClick: () => {
                    it.networks.splice(index, 1);
                    changed();
                  },
                },
                "Remove",
              ),
            ),
          ),
        ),
      ),
    ),
    h(
      "button",
      {
        type: "button",
        class: "button",
        onClick: () => {
          it.networks.push(["", ""]);
          changed();
        },
      },
      "Add a pair of names",
    ),
    h(
      "p",
      { class: "hint" },
      "Only networks that are called otherwise over there. All others keep their name.",
    ),
  );
}

// ── the forms of the API ──

export const limitForm = (typed) => (typed === "" ? "unlimited" : { "bytes-per-second": typedBytes(typed) });
export const drillsForm = (typed) => (typed === "never" ? "never" : { "every-seconds": typedSeconds(typed) });
export const freezeForm = (typed) => (typed === "never" ? "never" : { seconds: typedSeconds(typed) });
export const pairsForm = (pairs) => pairs.filter(([here, there]) => here && there);
