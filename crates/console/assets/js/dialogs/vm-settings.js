// Replication Settings of one VM. Only what was changed is sent.

import { get } from "../api.js";
import { h } from "../dom.js";
import { every, typedLimit, typedSeconds } from "../words.js";
import {
  drillsForm,
  freezeForm,
  frequency,
  limitForm,
  link,
  networks,
  pairsForm,
  recoveryPoints,
  repeated,
  wrongLimit,
  wrongPoints,
  wrongRepeated,
} from "./choices.js";
import { openChange } from "./dialog.js";
import { into, radios, text, trimmed } from "./fields.js";

const typed = (seconds) => (seconds ? every(seconds) : "never");

export async function vmSettings(side) {
  const known = await get(`relationships/${encodeURIComponent(side.id)}`);
  const from = asTyped(known);
  const it = structuredClone(from);
  Object.assign(it, { namesHere: known.primary_server, namesThere: known.replica_server });
  openChange({
    title: `Replication Settings of ${side.vm}`,
    symbol: "settings",
    go: "Apply",
    wide: true,
    path: `relationships/${encodeURIComponent(side.id)}`,
    side,
    request: () => (wrong(it) ? null : changes(from, it)),
    fields: (again) =>
      h(
        "div",
        { class: "groups" },
        group("Replication", frequency(it, again), link(it, again)),
        group(
          "Recovery points",
          recoveryPoints(it, again),
          repeated(it, "frozen", "Application-consistent every", "never, or a time such as 4h", again),
        ),
        group(
          "Proofs",
          repeated(it, "drills", "Test failover by itself every", "never, or a time such as 7d", again),
          repeated(it, "verifications", "Verify by itself every", "never, or a time such as 7d", again),
        ),
        group("Networks", networks(it, again)),
        group(
          "When something changes",
          text("A resynchronization begins", it.resynchronize, into(it, again)("resynchronize"), {
            hint: "automatic, manual, or a window such as: window 22:00-06:00",
          }),
          radios(
            "A disk that is added to the VM",
            it.newDisks,
            [
              ["replicate", "is replicated"],
              ["warn", "makes health warn until a person decides"],
            ],
            into(it, again)("newDisks"),
          ),
        ),
        group(
          "Health turns to Warning",
          LIMITS.map(([name, label, unit]) =>
            text(label, it[name], into(it, again)(name, trimmed), {
              wrong: wrongNumber(it[name], unit),
              class: "short",
            }),
          ),
        ),
      ),
  });
}

const group = (title, ...fields) => h("section", { class: "group", key: title }, h("h3", null, title), fields);

const LIMITS = [
  ["missed", "above this share of missed cycles, %", "percent"],
  ["age", "when nothing was synchronized for", "time"],
  ["latency", "above an average latency of", "time"],
  ["interval", "counted over", "time"],
];
const wrongNumber = (value, unit) =>
  unit === "percent"
    ? /^\d{1,3}$/.test(value) && Number(value) <= 100
      ? null
      : "a number from 0 to 100"
    : typedSeconds(value) === null
      ? "a time such as 5m"
      : null;

const wrong = (it) =>
  it.frequency === null ||
  wrongLimit(it) ||
  wrongPoints(it) ||
  ["frozen", "drills", "verifications"].some((name) => wrongRepeated(it[name])) ||
  LIMITS.some(([name, , unit]) => wrongNumber(it[name], unit));

const asTyped = (known) => ({
  frequency: String(known.frequency_seconds),
  compression: known.compression,
  limit: typedLimit(known.rate_limit_bytes_per_second),
  points: known.recovery_points || "latest",
  frozen: typed(known.application_consistent_every_seconds),
  drills: typed(known.drill_every_seconds),
  verifications: typed(known.verify_every_seconds),
  resynchronize: known.resynchronize ?? "automatic",
  newDisks: known.new_disks,
  networks: known.networks.map((pair) => [...pair]),
  missed: String(known.thresholds.missed_cycles_percent_max),
  age: every(known.thresholds.last_synchronized_age_max_seconds),
  latency: every(known.thresholds.average_latency_max_seconds),
  interval: every(known.thresholds.monitoring_interval_seconds),
});

/** What differs, in the form of the API. */
function changes(from, it) {
  const forms = {
    frequency_seconds: ["frequency", Number],
    compression: ["compression", String],
    rate_limit: ["limit", limitForm],
    recovery_points: ["points", String],
    application_consistent_every: ["frozen", freezeForm],
    drills: ["drills", drillsForm],
    verifications: ["verifications", drillsForm],
    resynchronize: ["resynchronize", String],
    new_disks: ["newDisks", String],
    networks: ["networks", pairsForm],
  };
  const limits = {
    missed_cycles_percent_max: ["missed", Number],
    last_synchronized_age_max_seconds: ["age", typedSeconds],
    average_latency_max_seconds: ["latency", typedSeconds],
    monitoring_interval_seconds: ["interval", typedSeconds],
  };
  const differing = (table) =>
    Object.fromEntries(
      Object.entries(table)
        .filter(([, [name]]) => JSON.stringify(from[name]) !== JSON.stringify(it[name]))
        .map(([field, [name, form]]) => [field, form(it[name])]),
    );
  const thresholds = differing(limits);
  return { ...differing(forms), ...(Object.keys(thresholds).length ? { thresholds } : {}) };
}
