// The VMs of one host: the list above, what is known of the selected one below, what can be done with it at the right.

import { h } from "../dom.js";
import { hostActions, vmActions } from "../actions.js";
import { lazy } from "../lazy.js";
import { table } from "../list.js";
import { openMenu } from "../menu.js";
import { button, empty, health, icon, loading, old, problem } from "../parts.js";
import { address, go } from "../route.js";
import { use, refresh } from "../store.js";
import { age, ago, coarse, moment } from "../words.js";
import { areAll, hosts, isBeginning, isDebt, isNaked, listsOf, peerOf, vmsOf } from "../world.js";

const POWER = { running: "Running", paused: "Paused", off: "Off" };
const WORST_FIRST = { critical: 0, unknown: 1, warning: 2, none: 3, normal: 4 };
const ROLES = { primary: "Primary", replica: "Replica" };

/** Power in the words of Hyper-V Manager. */
export const power = (vm) => (vm.power === null ? "Unknown" : (POWER[vm.power] ?? vm.power));
/** Role of this side. */
export const role = (vm) => (vm.side ? ROLES[vm.side.mode] : "—");
/** Where replication stands. */
export function replicationState(vm) {
  if (!vm.side) return vm.machine?.test_failover ? "Copy of a test failover" : "Not enabled";
  return vm.side.paused ? `${vm.side.state}, paused` : vm.side.state;
}
/** How far the copy is behind the VM: growing where nobody receives, unknown where nobody says. */
function lag(vm) {
  if (!vm.side || vm.health === "unknown") return null;
  return vm.last === null ? null : age(vm.last);
}

const COLUMNS = [
  {
    id: "name",
    label: "Name",
    sort: (vm) => vm.name,
    show: (vm) =>
      h("span", { class: "vm-name" }, icon("vm", vm.power === "running" ? "on" : ""), h("span", null, vm.name)),
  },
  { id: "power", label: "State", sort: power, show: power },
  { id: "role", label: "Role", sort: role, show: role },
  { id: "replication", label: "Replication", sort: replicationState, show: replicationState },
  { id: "health", label: "Health", sort: (vm) => WORST_FIRST[vm.health], show: (vm) => health(vm.health) },
  { id: "peer", label: "Peer", sort: peerOf, show: peerOf },
  {
    id: "last",
    label: "Last synchronized",
    sort: (vm) => -(vm.last ?? 0),
    show: (vm) => (vm.side ? moment(vm.last) : "—"),
    title: (vm) => (vm.last ? ago(vm.last) : ""),
  },
  { id: "lag", label: "Lag", number: true, sort: (vm) => lag(vm) ?? -1, show: (vm) => lagCell(vm) },
];

function lagCell(vm) {
  const behind = lag(vm);
  if (!vm.side) return "—";
  if (behind === null) return "unknown";
  const late = isDebt(vm.side) || behind > vm.side.frequency_seconds * 2000;
  return h("span", { class: late ? "late" : null }, coarse(behind));
}

/** What the filter above the list looks at. */
const words = (vm) =>
  [vm.name, power(vm), role(vm), replicationState(vm), vm.health, peerOf(vm)].join(" ").toLowerCase();

const TABS = () => import("../tabs/tabs.js");

export function page(route) {
  const host = hosts().find((one) => one.name === route.host);
  if (!host)
    return use("peers").value
      ? empty("host", `There is no host ${route.host} here`, "Its pairing may have been removed.")
      : loading(6);
  const vms = vmsOf(host);
  const selected = vms?.find((vm) => vm.key === route.vm) ?? null;
  return h(
    "div",
    { class: `split ${selected ? "with-detail" : ""}`, key: host.name },
    h(
      "section",
      { class: "list-pane", "aria-label": `Virtual machines of ${host.name}` },
      h(
        "h1",
        null,
        "Virtual machines",
        h("span", { class: "of" }, host.name),
        button("Actions", (event) => openMenu(`Actions for ${host.name}`, hostActions(host), event), {
          kind: "when-narrow",
          symbol: "more",
          "aria-haspopup": "menu",
        }),
      ),
      !host.seen && host.known && unseenHost(host),
      listOf(host, vms, selected),
    ),
    selected && (lazy(TABS)?.tabs(selected, host, route) ?? loading(4)),
  );
}

function unseenHost(host) {
  return h(
    "div",
    { class: "banner unknown", role: "status" },
    icon("unknown"),
    h(
      "p",
      null,
      h("strong", null, `${host.name} does not answer. `),
      `What it holds is unknown since ${host.lastSeen ? moment(host.lastSeen) : "this daemon started"}.`,
    ),
    !host.own && button("Test connection", () => go(address("settings", "peers")), { kind: "quiet" }),
  );
}

function listOf(host, vms, selected) {
  const ill = listsOf(host).find((answer) => answer.problem);
  const whole = !isBeginning(host);
  // Whoever cannot be asked may have any number of them.
  if (!vms || (vms.length === 0 && (ill || !whole)))
    return ill ? problem(ill.problem, () => refresh()) : loading(6);
  if (vms.length === 0)
    return empty("vm", "No virtual machines here", "VMs appear as soon as libvirt knows them.");
  const list = table({
    id: `vms of ${host.name}`,
    label: `Virtual machines of ${host.name}`,
    columns: COLUMNS,
    rows: vms,
    whole,
    words,
    selected: selected?.key,
    sorted: "name",
    filters: [
      ["All", () => true],
      [
        "Needs attention",
        (vm) => vm.health === "critical" || vm.health === "warning" || vm.health === "unknown",
      ],
      ["Primary", (vm) => vm.side?.mode === "primary"],
      ["Replica", (vm) => vm.side?.mode === "replica"],
      ["Not protected", isNaked, !areAll(host)],
    ],
    choose: (vm) => go(address("hosts", host.name, vm.key, tabNow()), { replace: selected !== null }),
    menu: (vm, where) => openMenu(`Actions for ${vm.name}`, vmActions(vm, host), where),
  });
  return [ill && host.seen && old(ill), list];
}

const tabNow = () => location.pathname.split("/")[4];

/** What stands at the right of this page. */
export function pane(route) {
  const host = hosts().find((one) => one.name === route.host);
  if (!host) return [];
  const vm = vmsOf(host)?.find((one) => one.key === route.vm);
  return [[host.name, hostActions(host)], ...(vm ? [[vm.name, vmActions(vm, host)]] : [])];
}
