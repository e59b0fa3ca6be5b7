// Summary: what it is, where it stands, why it is not as it should be, and the way out.

import { h } from "../dom.js";
import { actionOf, perform } from "../actions.js";
import { live } from "../operation.js";
import { bar, button, card, cure, empty, facts, health, icon, shown } from "../parts.js";
import { power, replicationState, role } from "../pages/vms.js";
import { refresh, use } from "../store.js";
import { ago, bytes, moment, plural, span } from "../words.js";
import { awaySince, detail } from "../world.js";
import { serverNow } from "../api.js";

export function summary(vm, host) {
  if (!vm.side) return [naked(vm, host)];
  if (!vm.mine)
    return [
      h("p", { class: "quiet" }, `This host takes no part in its replication; ${vm.host} knows more.`),
      machine(vm),
    ];
  return shown(
    detail(vm.mine),
    (known) => [
      reasons(vm, host, known),
      copying(known),
      h("div", { class: "cards" }, standing(vm, known), machine(vm, known), disks(known)),
    ],
    () => refresh(),
  );
}

function naked(vm, host) {
  const enable = actionOf(vm, host, "enable");
  const obstacles = vm.machine.obstacles;
  return [
    empty(
      "shield",
      vm.machine.test_failover ? "A copy of a test failover" : "Nobody protects this virtual machine",
      obstacles.length
        ? obstacles.join("; ")
        : "If this host is lost, so is the machine, up to your last backup.",
      enable && button("Enable Replication…", () => perform(enable), { kind: "primary" }),
    ),
    machine(vm),
  ];
}

function reasons(vm, host, known) {
  if (vm.health === "unknown")
    return h(
      "div",
      { class: "reason unknown" },
      icon("unknown"),
      h(
        "p",
        null,
        `${vm.host} does not answer: what it holds is unknown. What follows is the word of this host.`,
      ),
    );
  if (known.reasons.length === 0) return null;
  const way = ["reverse", "resume", "follow"].map((id) => actionOf(vm, host, id)).find(Boolean);
  return h(
    "ul",
    { class: "reasons" },
    known.reasons.map((reason, index) =>
      h(
        "li",
        { key: index, class: `reason ${reason.severity}` },
        icon(reason.severity),
        h("div", { class: "grow" }, h("p", null, reason.text), cure(reason.cure)),
        index === 0 && way && button(way.label, () => perform(way), { symbol: way.symbol }),
      ),
    ),
  );
}

function copying(known) {
  const copy = known.initial_copy;
  const compared = known.comparison;
  if (copy) {
    const left =
      copy.bytes_total && copy.bytes_per_second
        ? ((copy.bytes_total - copy.bytes_done) / copy.bytes_per_second) * 1000
        : null;
    return h(
      "div",
      { class: "copying", key: "copy" },
      h(
        "p",
        null,
        h("strong", null, "Copy under way: "),
        `${bytes(copy.bytes_done)} of ${bytes(copy.bytes_total)}`,
        copy.bytes_per_second ? `, ${bytes(copy.bytes_per_second)}/s` : "",
        left === null ? "" : `, ${span(left)} left`,
      ),
      bar(copy.bytes_done, copy.bytes_total, "Copied"),
    );
  }
  if (!compared) return null;
  return h(
    "div",
    { class: "copying", key: "compare" },
    h(
      "p",
      null,
      h("strong", null, compared.cause ? "Resynchronization: " : "Verification: "),
      compared.waiting ??
        `${bytes(compared.compared_bytes)} of ${bytes(compared.total_bytes)} compared, ${bytes(compared.differing_bytes)} differ`,
    ),
    bar(compared.compared_bytes, compared.total_bytes, "Compared"),
  );
}

function standing(vm, known) {
  const away = awaySince(vm.mine);
  const operation =
    known.operation && (use("operations").value ?? []).find((one) => one.id === known.operation);
  return card(
    "Replication",
    facts([
      ["State", replicationState(vm)],
      ["Health", health(vm.health)],
      ["Role of this side", role(vm)],
      ["Primary server", known.primary_server],
      ["Replica server", known.replica_server],
      [
        "Unprotected since",
        known.unprotected_since_ms
          ? `${moment(known.unprotected_since_ms)} (${ago(known.unprotected_since_ms)})`
          : null,
      ],
      ["On the DR side", away === null ? null : `for ${span(serverNow() - away)}`],
      [
        "Last synchronized",
        known.last_synchronized_at_ms
          ? `${moment(known.last_synchronized_at_ms)} (${ago(known.last_synchronized_at_ms)})`
          : "never",
      ],
      ["Next cycle", known.next_due_at_ms ? moment(known.next_due_at_ms) : "none is due"],
      ["Operation", operation ? `${operation.kind}: ${live(operation).step}` : null],
    ]),
  );
}

function machine(vm, known) {
  const it = vm.machine;
  return card(
    "Virtual machine",
    facts([
      ["State", power(vm)],
      ["Processors", it?.processors ?? null],
      ["Memory", it?.memory_bytes ? bytes(it.memory_bytes) : null],
      ["Networks", it?.networks?.length ? it.networks.join(", ") : null],
      ["UUID", h("code", null, vm.key)],
      ["Relationship", known ? h("code", null, `${known.id}, epoch ${known.epoch}`) : null],
      ["Folder of the replica", known?.directory ? h("code", null, known.directory) : null],
    ]),
  );
}

const disks = (known) =>
  card(
    plural(known.disks.length, "Disk"),
    h(
      "ul",
      { class: "rows" },
      known.disks.map((disk) =>
        h(
          "li",
          { key: disk.target },
          icon("host"),
          h("span", { class: "grow" }, disk.target, h("small", null, bytes(disk.size_bytes))),
          h("span", { class: disk.replicated ? "good" : "quiet" }, disk.replicated ? "replicated" : "excluded"),
        ),
      ),
    ),
  );
