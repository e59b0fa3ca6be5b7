// Summary: what it is, where it stands, why it is not as it should be, and the way out.

import { h } from "../dom.js";
import { actionOf, diskAction, diskOf, perform, vmActions } from "../actions.js";
import { live } from "../operation.js";
import { bar, button, card, command, cure, empty, facts, health, icon, shown } from "../parts.js";
import { power, replicationState, role } from "../pages/vms.js";
import { refresh, use } from "../store.js";
import { ago, bytes, moment, plural, span } from "../words.js";
import { awaySince, blindness, detail, diskWords } from "../world.js";
import { serverNow } from "../api.js";
import { address } from "../route.js";
import { asideWords, setAside } from "./aside.js";

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
      carried(known),
      copying(known),
      h("div", { class: "cards" }, standing(vm, host, known), machine(vm, known), disks(vm, known)),
    ],
    () => refresh(),
  );
}

function naked(vm, host) {
  const enable = actionOf(vm, host, "enable");
  const wrap = actionOf(vm, host, "wrap");
  const why = vmActions(vm, host)[0].reason;
  return [
    empty(
      "shield",
      vm.machine.test_failover ? "A copy of a test failover" : "Nobody protects this virtual machine",
      why ?? "If this host is lost, so is the machine, up to your last backup.",
      enable && button(enable.label, () => perform(enable), { kind: "primary" }),
      wrap && button(wrap.label, () => perform(wrap), { symbol: wrap.symbol }),
    ),
    h("div", { class: "cards" }, machine(vm), ownDisks(vm.machine)),
  ];
}

function reasons(vm, host, known) {
  const unknown = whyUnknown(vm, host);
  if (known.reasons.length === 0 || !host.seen) return unknown;
  const way = ["reverse", "resume", "follow"].map((id) => actionOf(vm, host, id)).find(Boolean);
  return [
    unknown,
    h(
      "ul",
      { class: "reasons", key: "reasons" },
      known.reasons.map((reason, index) =>
        h(
          "li",
          { key: index, class: `reason ${reason.severity}` },
          icon(reason.severity),
          h("div", { class: "grow" }, h("p", null, reason.text), cure(reason.cure)),
          wayButton(diskOf(reason.cure) ? diskAction(vm.mine, diskOf(reason.cure)) : index === 0 && way),
        ),
      ),
    ),
  ];
}

/** Whose word what follows is, when nobody who knows can be asked. */
function whyUnknown(vm, host) {
  if (host.seen && !blindness(host) && vm.health !== "unknown") return null;
  const words = host.seen
    ? `${vm.host} cannot see what the machine does: what follows is what was written down before.`
    : `${vm.host} does not answer: what it holds is unknown. What follows is the word of this host.`;
  return h("div", { class: "reason unknown", key: "unknown" }, icon("unknown"), h("p", null, words));
}

/** What leads out of it; null: there is no such action. */
const wayButton = (way) =>
  way &&
  button(way.label, () => perform(way), {
    symbol: way.symbol,
    disabled: way.reason !== null,
    title: way.reason,
  });

/** A first copy that goes by hand: where it lies, and what is to be done with it. */
function carried(known) {
  const copy = known.carried;
  if (!copy) return null;
  return h(
    "div",
    { class: "reason info", key: "carried" },
    icon("info"),
    h(
      "div",
      { class: "grow" },
      h(
        "p",
        null,
        h("strong", null, "Initial copy by hand: "),
        copy.is_whole ? "it lies in " : "it is being written to ",
        h("code", null, copy.directory),
        ` on ${known.primary_server}.`,
      ),
      copy.is_whole &&
        h(
          "p",
          null,
          `Carry it to ${known.replica_server}. There: Import Initial Copy…, among the actions of the host, or`,
        ),
      copy.is_whole && command("virt-replica import DIRECTORY"),
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

function standing(vm, host, known) {
  const away = awaySince(vm.mine);
  const apart = setAside(vm.mine);
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
      [
        "Set aside",
        apart?.length
          ? h("a", { href: address("hosts", host.name, vm.key, "points") }, asideWords(apart))
          : null,
      ],
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

const diskList = (disks) =>
  card(
    plural(disks.length, "Disk"),
    h(
      "ul",
      { class: "rows" },
      disks.map(([target, about, kind, state, way]) =>
        h(
          "li",
          { key: target },
          icon("disk"),
          h("span", { class: "grow" }, target, h("small", null, about)),
          way ? wayButton(way) : h("span", { class: kind }, state),
        ),
      ),
    ),
  );

function disks(vm, known) {
  const here = new Map((vm.machine?.disks ?? []).map((disk) => [disk.target, disk]));
  const decided = new Set(known.disks.map((disk) => disk.target));
  const added = [...here.values()].filter((disk) => known.mode === "primary" && !decided.has(disk.target));
  // Unless somebody has to say so, an added disk is taken in by itself.
  const waits = (disk) => known.new_disks === "warn" && !disk.obstacle;
  return diskList([
    ...known.disks.map(({ target, replicated, size_bytes: size }) => {
      const about = [bytes(size), here.has(target) && diskWords(here.get(target))].filter(Boolean).join(" · ");
      return [target, about, replicated ? "good" : "quiet", replicated ? "replicated" : "excluded"];
    }),
    ...added.map((disk) => {
      if (!waits(disk)) return [disk.target, diskWords(disk), "late", "not replicated"];
      const way = { ...diskAction(vm.mine, disk.target), label: "Replicate…" };
      return [disk.target, `${diskWords(disk)} · not replicated`, "", "", way];
    }),
  ]);
}

/** The disks of a VM that nobody protects. */
const ownDisks = (it) =>
  diskList(
    it.disks.map((disk) =>
      disk.obstacle
        ? [disk.target, diskWords(disk), "late", "cannot be replicated as it is"]
        : [disk.target, diskWords(disk), "quiet", "not replicated"],
    ),
  );
