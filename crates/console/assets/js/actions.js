// What can be done with a host and with a VM, in the words and the order of Hyper-V Manager: each with the reason why it
// cannot be done now, if so. The reasons here spare a click; what is allowed is decided by the daemon, in the plan of each dialog.

import { Problem } from "./api.js";
import { notice } from "./notices.js";
import { mayDo, session } from "./session.js";
import { use } from "./store.js";
import { isDebt, isEnded } from "./world.js";
import { address, go } from "./route.js";

/** Windows are not part of the first page. */
const dialogs = {
  enable: () => import("./dialogs/enable.js"),
  planned: () => import("./dialogs/planned-failover.js"),
  failover: () => import("./dialogs/failover.js"),
  test: () => import("./dialogs/test-failover.js"),
  reverse: () => import("./dialogs/reverse.js"),
  verbs: () => import("./dialogs/verbs.js"),
  settings: () => import("./dialogs/vm-settings.js"),
  peers: () => import("./dialogs/peers.js"),
  follow: () => import("./dialogs/follow.js"),
};

const NOT_LOADED =
  "This window cannot be loaded now: the daemon does not answer, or was replaced by another version. Load the page again.";

/** @typedef {{id: string, label: string, symbol: string, reason: string|null, run: () => void, divided?: boolean}} Action */

export function perform(action) {
  if (!action.reason) action.run();
}

const opens =
  (dialog, name, ...given) =>
  async () => {
    try {
      await (await dialogs[dialog]())[name](...given);
    } catch (failure) {
      const told = failure instanceof Problem ? `${failure.title}: ${failure.detail}` : NOT_LOADED;
      notice(told, "failed");
    }
  };

/** Fetches the windows while nothing else is done, so that they open at once, and while the daemon restarts. */
export const fetchWindows = () => Object.values(dialogs).forEach((load) => load().catch(() => {}));

/** Opens the window that follows an operation. */
export const follow = (id) => opens("follow", "follow", id)();

/** @returns {Action[]} */
export function hostActions(host) {
  const own = host.own ? null : `Sign in to the console of ${host.name} for this`;
  return [
    action("invite", "Pair with a Host…", "link", "administrator", own, opens("peers", "invite")),
    action("join", "Join with a Token…", "key", "administrator", own, opens("peers", "join")),
    action("import", "Import Initial Copy…", "download", "administrator", own, opens("verbs", "importCopy")),
    action("settings", "Host Settings", "settings", "viewer", own, () => go(address("settings", "host"))),
    action("authorization", "Authorization", "user", "viewer", own, () =>
      go(address("settings", "authorization")),
    ),
  ];
}

/** @returns {Action[]} */
export function vmActions(vm, host) {
  if (!vm.side) {
    return [
      action(
        "enable",
        "Enable Replication…",
        "shield",
        "operator",
        whyNotEnable(vm, host),
        opens("enable", "enable", vm.machine),
      ),
      ...rawDisks(vm, host),
    ];
  }
  const side = vm.mine;
  const facts = side && circumstances(side);
  return VERBS.map(({ id, label, symbol, role, why, run, divided }) => ({
    ...action(
      id,
      label,
      symbol,
      role,
      side ? why(facts) : `This host takes no part: sign in to ${vm.host}`,
      () => run(side, vm),
    ),
    divided,
  })).filter((verb) => verb.reason !== HIDDEN);
}

function whyNotEnable(vm, host) {
  const { test_failover: test, obstacles, disks } = vm.machine;
  if (test) return "It is the copy of a test failover";
  if (!host.own) return `Sign in to the console of ${host.name}, where it is`;
  if (obstacles.length) return obstacles[0];
  const stuck = disks.filter((disk) => disk.obstacle);
  if (disks.length === 0) return "It has no disk";
  // One that cannot be replicated is left out in the wizard, as long as another can.
  return stuck.length === disks.length
    ? stuck.map((disk) => `Disk ${disk.target} is a ${disk.obstacle}`).join("; ")
    : null;
}

/** Raw disks can be replicated when a wrapper notes their changes: into one, and out of it. */
function rawDisks(vm, host) {
  const { disks, state } = vm.machine;
  const why = !host.own
    ? `Sign in to the console of ${host.name}, where it is`
    : state === "off"
      ? null
      : "Only while it is off: shut it down first";
  const verb = (id, label) => action(id, label, "disk", "administrator", why, opens("verbs", id, vm.machine));
  return [
    disks.some((disk) => RAW.has(disk.obstacle)) && verb("wrap", "Prepare Raw Disks…"),
    disks.some((disk) => disk.wraps) && verb("unwrap", "Put Back Raw Disks…"),
  ].filter(Boolean);
}

/** What a wrapper can be put around; the words of the API. */
const RAW = new Set(["raw file", "block device"]);
/** Verbs that make no sense at all here, such as Pause of what is paused. */
const HIDDEN = "hidden";

function circumstances(side) {
  const tests = (use("test-failovers").value ?? []).filter(
    (test) => test.vm === side.vm && test.state !== "ended",
  );
  const open = (use("operations").value ?? []).find((one) => one.id === side.operation && !isEnded(one));
  return {
    side,
    busy: side.operation ? `A ${open?.kind ?? "handover"} is under way` : null,
    debt: isDebt(side),
    failedOver: side.state === "Failed over, not complete",
    primary: side.mode === "primary",
    tests,
  };
}

const onReplica = ({ side, primary }) =>
  primary ? `Starts on the replica server: sign in to ${side.replica_server}` : null;
const onPrimary = ({ side, primary }) =>
  primary ? null : `Starts on the primary server: sign in to ${side.primary_server}`;
const ifProtected = ({ debt }) => (debt ? "The VM is not protected: reverse the replication first" : null);

const VERBS = [
  {
    id: "follow",
    label: "Show Operation…",
    symbol: "planned",
    role: "viewer",
    why: (it) => (it.busy ? null : HIDDEN),
    run: (side) => follow(side.operation),
  },
  {
    id: "planned",
    label: "Planned Failover…",
    symbol: "planned",
    role: "operator",
    why: (it) => it.busy ?? ifProtected(it),
    run: (side) => opens("planned", "plannedFailover", side)(),
  },
  {
    id: "failover",
    label: "Failover…",
    symbol: "failover",
    role: "operator",
    why: (it) => it.busy ?? onReplica(it),
    run: (side) => opens("failover", "failover", side)(),
  },
  {
    id: "test",
    label: "Test Failover…",
    symbol: "test",
    role: "operator",
    why: (it) => onReplica(it),
    run: (side) => opens("test", "testFailover", side)(),
  },
  {
    id: "stop-test",
    label: "Stop Test Failover…",
    symbol: "stop",
    role: "operator",
    why: (it) => (it.tests.length ? onReplica(it) : HIDDEN),
    run: (side) => opens("verbs", "stopTest", side)(),
  },
  {
    id: "reverse",
    label: "Reverse Replication…",
    symbol: "reverse",
    role: "operator",
    why: (it) => it.busy ?? (it.debt ? onPrimary(it) : "It is for after a failover without reverse"),
    run: (side) => opens("reverse", "reverse", side)(),
  },
  {
    id: "complete",
    label: "Complete Failover…",
    symbol: "complete",
    role: "operator",
    why: (it) => (it.failedOver ? it.busy : HIDDEN),
    run: (side) => opens("verbs", "complete", side)(),
  },
  {
    id: "cancel",
    label: "Cancel Failover…",
    symbol: "undo",
    role: "operator",
    why: (it) => (it.failedOver ? it.busy : HIDDEN),
    run: (side) => opens("verbs", "cancelFailover", side)(),
  },
  {
    id: "health",
    label: "View Replication Health",
    symbol: "chart",
    role: "viewer",
    divided: true,
    why: () => null,
    run: (side, vm) => go(address("hosts", vm.host, vm.key, "replication")),
  },
  {
    id: "pause",
    label: "Pause Replication…",
    symbol: "pause",
    role: "operator",
    why: (it) => (it.side.paused ? HIDDEN : (it.busy ?? ifProtected(it))),
    run: (side) => opens("verbs", "pause", side)(),
  },
  {
    id: "resume",
    label: "Resume Replication…",
    symbol: "play",
    role: "operator",
    why: (it) => (it.side.paused ? it.busy : HIDDEN),
    run: (side) => opens("verbs", "resume", side)(),
  },
  {
    id: "resynchronize",
    label: "Resynchronize…",
    symbol: "resync",
    role: "operator",
    why: (it) => it.busy ?? ifProtected(it) ?? onPrimary(it),
    run: (side) => opens("verbs", "resynchronize", side)(),
  },
  {
    id: "verify",
    label: "Verify…",
    symbol: "verify",
    role: "operator",
    why: (it) => it.busy ?? ifProtected(it) ?? onPrimary(it),
    run: (side) => opens("verbs", "verify", side)(),
  },
  {
    id: "point",
    label: "Create Recovery Point…",
    symbol: "point",
    role: "operator",
    why: (it) => it.busy ?? ifProtected(it) ?? onPrimary(it),
    run: (side) => opens("verbs", "createPoint", side)(),
  },
  {
    id: "settings",
    label: "Replication Settings…",
    symbol: "settings",
    role: "operator",
    divided: true,
    why: (it) => it.busy ?? onPrimary(it),
    run: (side) => opens("settings", "vmSettings", side)(),
  },
  {
    id: "remove",
    label: "Remove Replication…",
    symbol: "remove",
    role: "administrator",
    why: (it) => it.busy,
    run: (side) => opens("verbs", "remove", side)(),
  },
];

/** The command that takes a disk into replication, as it is now. */
const TAKES_IN = /--add-disk ([^\s;]+)/;

/** The disk that a cure takes into replication; the console does it by a button. */
export const diskOf = (cure) => TAKES_IN.exec(cure ?? "")?.[1] ?? null;

/** Takes a disk into replication that was added to the VM, or that is elsewhere in it than before. */
export function diskAction(side, disk) {
  const facts = circumstances(side);
  const why = facts.busy ?? onPrimary(facts);
  const run = opens("verbs", "addDisk", side, disk);
  return action("add-disk", `Replicate Disk ${disk}…`, "disk", "operator", why, run);
}

function action(id, label, symbol, role, reason, run) {
  const forbidden =
    reason !== HIDDEN && !mayDo(role)
      ? `Needs the role ${role}; ${session.who.user} is ${session.who.role}`
      : null;
  return { id, label, symbol, reason: forbidden ?? reason, run };
}

/** One action of a VM by its id; null when it cannot be done. */
export const actionOf = (vm, host, id) =>
  vmActions(vm, host).find((one) => one.id === id && !one.reason) ?? null;
