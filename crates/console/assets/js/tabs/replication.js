// View Replication Health: the numbers of the monitoring interval and their course.

import { h } from "../dom.js";
import { columns, curve, missedStrip } from "./charts.js";
import { actionOf, perform } from "../actions.js";
import { button, card, chips, empty, facts, icon, shown } from "../parts.js";
import { refresh, repaint, use } from "../store.js";
import { bytes, every, moment, plural, span } from "../words.js";
import { detail, isDebt } from "../world.js";
import { serverNow } from "../api.js";

/** How much of the course is shown. */
const WINDOWS = [
  ["Hour", 3_600_000],
  ["12 hours", 43_200_000],
  ["Day", 86_400_000],
  ["Week", 604_800_000],
];
let chosen = 1;
/** Cycles of one page of the API. */
const PAGE = 1000;

export function replication(vm, host) {
  if (!vm.mine)
    return empty("chart", "Not replicated by this host", vm.side ? `Its numbers are at ${vm.host}.` : null);
  const cycles = use(`relationships/${encodeURIComponent(vm.mine.id)}/cycles`);
  return shown(
    detail(vm.mine),
    (known) => [
      h("div", { class: "cards" }, numbers(known), settings(vm, host, known)),
      h(
        "div",
        { class: "chart-bar" },
        h("h3", null, "Course"),
        chips(
          "Window",
          WINDOWS.map(([name]) => [name]),
          chosen,
          (index) => {
            chosen = index;
            repaint();
          },
        ),
        h("span", { class: "spring" }),
        h(
          "a",
          {
            class: "button",
            href: `/api/v1/relationships/${encodeURIComponent(vm.mine.id)}/cycles.csv`,
            download: `${vm.name}-cycles.csv`,
          },
          icon("download"),
          "Save as CSV",
        ),
      ),
      shown(
        cycles,
        (list) => charts(known, list),
        () => refresh(),
      ),
    ],
    () => refresh(),
  );
}

function numbers(known) {
  const it = known.statistics;
  const within = span(known.thresholds.monitoring_interval_seconds * 1000);
  return card(
    `In the last ${within}`,
    facts([
      ["Successful cycles", `${it.cycles_acknowledged} of ${it.cycles_due}`],
      ["Missed", it.cycles_missed],
      ["Average size", bytes(it.average_bytes)],
      ["Maximum size", bytes(it.maximum_bytes)],
      ["Average on the wire", bytes(it.average_sent_bytes)],
      ["Average latency", span(it.average_latency_ms)],
      ["Maximum latency", span(it.maximum_latency_ms)],
      ["Yet to be replicated", bytes(known.pending_bytes)],
      ["Last synchronized", moment(known.last_synchronized_at_ms)],
      ["Proven to be equal", known.verified_at_ms ? moment(known.verified_at_ms) : "never"],
    ]),
  );
}

function settings(vm, host, known) {
  const change = actionOf(vm, host, "settings");
  const repeated = (seconds) => (seconds ? `every ${every(seconds)}` : "never");
  return card(
    "Settings",
    facts([
      ["Frequency", every(known.frequency_seconds)],
      [
        "Recovery points",
        known.recovery_points === "latest" ? "only the latest" : `the newest, and ${known.recovery_points}`,
      ],
      ["Application-consistent", repeated(known.application_consistent_every_seconds)],
      ["Compression", known.compression],
      [
        "Rate limit",
        known.rate_limit_bytes_per_second ? `${bytes(known.rate_limit_bytes_per_second)}/s` : "only the host's",
      ],
      ["Drills", repeated(known.drill_every_seconds)],
      ["Verifications", repeated(known.verify_every_seconds)],
      ["Resynchronization", known.resynchronize ?? "automatic"],
      ["New disks", known.new_disks === "warn" ? "health warns" : "are replicated"],
    ]),
    change && button("Change…", () => perform(change), { symbol: "settings" }),
  );
}

function charts(known, list) {
  const until = serverNow();
  // A page of cycles may not reach back so far: the chart begins where they do.
  const from = Math.max(until - WINDOWS[chosen][1], list.length < PAGE ? 0 : list.at(-1).begun_at_ms);
  const shownOnes = list
    .filter((cycle) => cycle.begun_at_ms >= from)
    .sort((one, two) => one.begun_at_ms - two.begun_at_ms);
  if (shownOnes.length === 0)
    return empty(
      "chart",
      "No cycle in this time",
      isDebt(known) ? "Nobody receives." : "The numbers appear with the first one.",
    );
  const done = shownOnes.filter((cycle) => cycle.outcome === "acknowledged");
  const frame = { from, until };
  const rpo = known.frequency_seconds * 1000;
  return h(
    "div",
    { class: "charts" },
    curve({
      ...frame,
      title: "Lag",
      unit: span,
      points: lagCourse(list, from, until),
      limit: rpo,
      limitWords: `RPO ${every(known.frequency_seconds)}`,
    }),
    columns({
      ...frame,
      title: "Size of each cycle",
      unit: bytes,
      bars: done.map((cycle) => [cycle.begun_at_ms, cycle.bytes]),
    }),
    columns({
      ...frame,
      title: "Latency",
      unit: span,
      bars: done.map((cycle) => [cycle.begun_at_ms, cycle.duration_ms]),
      limit: known.thresholds.average_latency_max_seconds * 1000,
      limitWords: "health turns",
    }),
    missedStrip({
      ...frame,
      title: `${plural(shownOnes.filter((cycle) => cycle.outcome !== "acknowledged").length, "cycle")} missed or failed`,
      cycles: shownOnes,
    }),
  );
}

/** How old the newest recovery point had become whenever the next was acknowledged, and how old it is now. */
function lagCourse(list, from, until) {
  const acknowledged = list
    .filter((cycle) => cycle.outcome === "acknowledged")
    .sort((one, two) => one.begun_at_ms - two.begun_at_ms);
  const oldest = acknowledged.slice(1).map((cycle, index) => {
    const at = cycle.begun_at_ms + cycle.duration_ms;
    return [at, at - acknowledged[index].begun_at_ms];
  });
  const last = acknowledged.at(-1);
  return [...oldest.filter(([at]) => at >= from), ...(last ? [[until, until - last.begun_at_ms]] : [])];
}
