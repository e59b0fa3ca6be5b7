// The two hosts and their VMs as people speak of them, put together from the answers of the API. A host that does not answer is
// unknown, and so is the health of what it holds: never what it was when it was last heard.

import { link } from "./live.js";
import { session } from "./session.js";
import { use } from "./store.js";

/** States in which nobody receives; the words of the API. */
const DEBTS = new Set(["Unprotected", "Failed over, not reversed", "Failed over, not complete"]);

/**
 * @typedef {{name: string, own: boolean, prefix: string, seen: boolean, lastSeen: number|null, view: object|null, peer: object|null,
 *   known: boolean}} Host
 * @typedef {{key: string, name: string, host: string, power: string|null, side: object|null, mine: object|null, health: string,
 *   last: number|null, machine: object|null}} Vm
 *   `side`: the relationship as its host tells; `mine`: the same as this console's own host tells, through which it is changed.
 */

/** This console's host first, then those that it is paired with. @returns {Host[]} */
export function hosts() {
  const own = use("host");
  const mine = {
    name: own.value?.name ?? session.who.host,
    own: true,
    prefix: "",
    seen: link.state === "live",
    lastSeen: link.since || null,
    view: own.value ?? null,
    peer: null,
    known: own.value !== undefined,
  };
  return [mine, ...(use("peers").value ?? []).map(paired)];
}

function paired(peer) {
  const prefix = `peers/${encodeURIComponent(peer.id)}/`;
  const answer = use(`${prefix}host`);
  return {
    name: peer.name,
    own: false,
    prefix,
    seen: link.state === "live" && !answer.problem && answer.value !== undefined,
    lastSeen: peer.last_seen_at_ms,
    view: answer.value ?? null,
    peer,
    known: answer.value !== undefined || answer.problem !== null,
  };
}

const NONE = [];
/** The lists below as they were made last, by host, with the answers that they were made of. */
const made = new Map();

/**
 * The VMs of a host, as far as they are known: those of its hypervisor, and those of which it holds a copy.
 * @returns {Vm[]|null} null: nothing is known yet
 */
export function vmsOf(host) {
  const [mine, sides, machines] = listsOf(host);
  const from = [
    mine.value ?? mine.beginning,
    sides.value ?? sides.beginning,
    // A hypervisor that cannot be asked leaves what the relationships tell.
    machines.value ?? machines.beginning ?? (machines.problem ? NONE : null),
    host.seen && !sides.problem,
    host.seen && !machines.problem,
    endOf(mine, (side) => side.vm),
    endOf(sides, (side) => side.vm),
    endOf(machines, (machine) => machine.name),
  ];
  const last = made.get(host.name);
  if (last?.from.every((answer, index) => answer === from[index])) return last.vms;
  const vms = join(host, ...from);
  made.set(host.name, { from, vms });
  return vms;
}

/** Whether these are all VMs of the host, as they are now: nothing may be said of how many there are otherwise. */
export const areAll = (host) =>
  host.seen && listsOf(host).every((answer) => answer.value !== undefined && !answer.problem);

/** Why the hypervisor of a host that answers cannot be asked; null: it can. */
export const blindness = (host) => (host.seen ? use(`${host.prefix}vms`).problem : null);

/** Whether the rest of a host's list is still on its way. */
export const isBeginning = (host) => listsOf(host).some((answer) => !answer.value && answer.beginning);

/** The name behind which nothing of a list is known yet: lists come in the order of names. Null: all is known. */
const endOf = (answer, name) => (answer.value || !answer.beginning ? null : name(answer.beginning.at(-1)));

/** What a host's VMs are put together from: the relationships of this host, those of that host, and its hypervisor's VMs. */
export const listsOf = (host) => [
  use("relationships"),
  use(`${host.prefix}relationships`),
  use(`${host.prefix}vms`),
];

function join(host, mine, sides, machines, sidesNow, machinesNow, ...ends) {
  if (!host.seen && !host.own)
    return mine && mine.filter((side) => otherHost(side) === host.name).map((side) => unseen(side, host));
  if (!sides || !machines || !mine) return null;
  const known = new Map(mine.map((side) => [side.id, side]));
  const byVm = new Map(sides.map((side) => [side.vm_uuid, side]));
  const listed = new Set(machines.map((machine) => machine.id));
  const undefinedHere = sides
    .filter((side) => !listed.has(side.vm_uuid))
    .map((side) => ({ id: side.vm_uuid, name: side.vm, state: null }));
  // What stands behind the end of another list may be told otherwise by its rest.
  const told = ({ name }) => ends.every((end) => end === null || name < end);
  return [...machines, ...undefinedHere]
    .filter(told)
    .map((machine) => ({
      ...row(machine, byVm.get(machine.id), host, known, sidesNow),
      ...(machinesNow ? { power: machine.state } : unasked(byVm.get(machine.id))),
    }));
}

const row = (machine, side, host, known, now) => ({
  key: machine.id,
  name: machine.name,
  host: host.name,
  side: side ?? null,
  mine: (side && known.get(side.id)) ?? null,
  health: side ? (now ? side.health : "unknown") : "none",
  last: side?.last_synchronized_at_ms ?? null,
  machine,
});

/** Of a VM whose hypervisor cannot be asked: nothing of it is well, as far as anybody knows. */
const unasked = (side) => ({ power: null, ...(side?.health === "normal" ? { health: "unknown" } : {}) });

/** What is known of a VM's other side while its host does not answer: that it exists. */
const unseen = (side, host) => ({
  key: side.vm_uuid,
  name: side.vm,
  host: host.name,
  power: null,
  mine: side,
  health: "unknown",
  last: side.last_synchronized_at_ms,
  machine: null,
  side: {
    ...side,
    mode: side.mode === "primary" ? "replica" : "primary",
    state: "Unknown",
    health: "unknown",
    operation: null,
  },
});

/** The server that is not this console's, of a relationship that it has a side of. */
export const otherHost = (side) => (side.mode === "primary" ? side.replica_server : side.primary_server);

/** The peer of a side, as its own host sees it. */
export const peerOf = (vm) => (vm.side ? otherHost(vm.side) : "");

/** Whether nobody receives what the VM writes. */
export const isDebt = (side) => DEBTS.has(side.state);

/** Whether nobody protects it, although somebody could want it: copies of test failovers are to be thrown away. */
export const isNaked = (vm) => !vm.side && !vm.machine?.test_failover;

/** What a disk of a VM is, as its host has it. */
export const diskWords = (disk) =>
  disk.wraps ? `raw disk ${disk.wraps}, behind a wrapper` : (disk.obstacle ?? disk.format);

/** A VM of a host by its UUID. */
export const findVm = (host, key) => vmsOf(host)?.find((vm) => vm.key === key) ?? null;

/** As what a relationship is seen now: a change that was decided upon it is refused when it is no longer that. */
export const revisionOf = (side) =>
  use("relationships").value?.find((one) => one.id === side.id)?.revision ?? side.revision;

/** All that this host knows of a relationship. */
export const detail = (side) => use(`relationships/${encodeURIComponent(side.id)}`);

/** Those operations that have not ended. */
export const openOperations = () => (use("operations").value ?? []).filter((one) => !isEnded(one));

export const isEnded = (operation) => ["completed", "undone", "given-up"].includes(operation.state);

/** Since when a VM runs on another host than the one it was first protected on; null: it is at home, or nothing is known. */
export const awaySince = (side) => side.away_since_ms ?? null;
