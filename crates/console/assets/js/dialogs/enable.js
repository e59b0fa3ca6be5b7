// The Enable Replication wizard, page by page as in Hyper-V Manager.

import { h } from "../dom.js";
import { notice } from "../notices.js";
import { empty, facts } from "../parts.js";
import { address, go } from "../route.js";
import { refresh, use } from "../store.js";
import { ago, bytes, every, typedBytes } from "../words.js";
import { diskWords, hosts } from "../world.js";
import {
  connection,
  freezeForm,
  frequency,
  link,
  networks,
  pairsForm,
  recoveryPoints,
  repeated,
  wrongLimit,
  wrongPoints,
  wrongRepeated,
} from "./choices.js";
import { into, radios, tick } from "./fields.js";
import { initial, missingInitial } from "./initial.js";
import { openWizard } from "./wizard.js";

export function enable(machine) {
  const own = hosts()[0].name;
  const peers = use("peers").value ?? [];
  const it = {
    peer: peers.length === 1 ? peers[0].name : null,
    frequency: "300",
    compression: "adaptive",
    limit: "",
    points: "latest",
    frozen: "never",
    excluded: new Set(machine.disks.filter((disk) => disk.obstacle).map((disk) => disk.target)),
    networks: [],
    namesHere: own,
    get namesThere() {
      return it.peer ?? "there";
    },
    initial: "now",
    at: "",
    folder: "",
    seeds: {},
  };
  const disks = () => (use(`vms/${encodeURIComponent(machine.id)}`).value ?? machine).disks;
  openWizard({
    title: `Enable Replication of ${machine.name}`,
    symbol: "shield",
    go: "Enable Replication",
    path: "relationships",
    request: () => request(machine, it, disks()),
    summary: () => summary(it, disks()),
    pages: [
      {
        title: "Replica Server",
        body: (again) => replicaServer(it, again),
        missing: () => (it.peer ? null : "Choose a replica server"),
      },
      {
        title: "Connection Parameters",
        body: (again) => [connection(it.peer), link(it, again)],
        missing: () => wrongLimit(it),
      },
      {
        title: "Disks",
        body: (again) => chooseDisks(it, disks(), again),
        missing: () =>
          disks().some((disk) => !it.excluded.has(disk.target)) ? null : "At least one disk is replicated",
      },
      { title: "Networks", body: (again) => networks(it, again) },
      {
        title: "Replication Frequency",
        body: (again) => frequency(it, again),
        missing: () => (it.frequency === null ? "Say how often" : null),
      },
      {
        title: "Recovery Points",
        body: (again) => [
          recoveryPoints(it, again),
          repeated(
            it,
            "frozen",
            "Application-consistent every",
            "The guest agent freezes the guest's file systems for some tenths of a second: never, or a time such as 4h.",
            again,
          ),
        ],
        missing: () =>
          wrongPoints(it) ?? (wrongRepeated(it.frozen) ? "Say how often the guest is frozen" : null),
      },
      {
        title: "Initial Replication",
        body: (again) => initial(it, disks(), again),
        missing: () => missingInitial(it),
      },
    ],
    done: (_, dialog) => {
      dialog.close();
      notice(`${machine.name} is replicated to ${it.peer}`);
      refresh();
      go(address("hosts", own, machine.id, "summary"));
    },
  });
}

function replicaServer(it, again) {
  const all = hosts().filter((host) => !host.own);
  if (all.length === 0)
    return empty("link", "This host is paired with no other", "Pair it first: Peers, at the left.");
  return radios(
    "Where the replica is kept",
    it.peer,
    all.map((host) => [
      host.name,
      h(
        "span",
        { class: "peer-choice" },
        host.name,
        h(
          "small",
          null,
          host.seen
            ? `${bytes(host.view?.storage_free_bytes)} free`
            : `does not answer; last ${ago(host.lastSeen)}`,
        ),
      ),
    ]),
    into(it, again)("peer"),
  );
}

const chooseDisks = (it, disks, again) => [
  h(
    "p",
    { class: "intro", key: "intro" },
    "A disk that is not replicated is empty on the replica server, so that the VM starts. Page files and scratch disks can be left out.",
  ),
  disks.map((disk) =>
    tick(
      `${disk.target} · ${diskWords(disk)}`,
      !it.excluded.has(disk.target),
      (on) => {
        it.excluded[on ? "delete" : "add"](disk.target);
        again();
      },
      disk.obstacle
        ? "It has no place to note its changes, so it is left out. For a raw disk: shut the VM down, then Prepare Raw Disks…"
        : `${bytes(disk.size_bytes)}, of which ${bytes(disk.allocated_bytes)} are in use`,
      { disabled: Boolean(disk.obstacle) },
    ),
  ),
];

const summary = (it, disks) =>
  facts([
    ["Replica server", it.peer],
    [
      "Disks",
      disks
        .filter((disk) => !it.excluded.has(disk.target))
        .map((disk) => disk.target)
        .join(", "),
    ],
    ["Excluded", [...it.excluded].join(", ") || null],
    ["Frequency", every(Number(it.frequency))],
    ["Recovery points", it.points],
    ["Application-consistent", it.frozen === "never" ? "never" : `every ${it.frozen}`],
    ["Compression", it.compression],
    ["Rate limit", it.limit || "only the host's"],
    [
      "Networks",
      pairsForm(it.networks)
        .map((pair) => pair.join(" → "))
        .join(", ") || "same names",
    ],
    [
      "Initial replication",
      {
        now: "now",
        at: `at ${it.at.replace("T", " ")}`,
        seed: "from existing copies",
        export: `written to ${it.folder}`,
      }[it.initial],
    ],
  ]);

const request = (machine, it, disks) => ({
  vm: machine.id,
  peer: it.peer,
  frequency_seconds: Number(it.frequency),
  compression: it.compression,
  rate_limit_bytes_per_second: it.limit ? typedBytes(it.limit) : null,
  disks: it.excluded.size ? { "all-but": [...it.excluded] } : "all",
  networks: pairsForm(it.networks),
  recovery_points: it.points,
  application_consistent_every: freezeForm(it.frozen),
  initial_at_ms: it.initial === "at" ? Date.parse(it.at) : null,
  export: it.initial === "export" ? it.folder : null,
  seeds:
    it.initial === "seed"
      ? disks.map((disk) => [disk.target, it.seeds[disk.target]]).filter(([, file]) => file)
      : [],
});
