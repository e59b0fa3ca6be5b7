// The verbs that need no more than a word: each shows its plan and asks.

import { notice } from "../notices.js";
import { refresh } from "../store.js";
import { fullMoment, typedSeconds } from "../words.js";
import { openChange, sentence } from "./dialog.js";
import { into, radios, text, tick, trimmed } from "./fields.js";
import { become } from "./follow.js";

const base = (side) => `relationships/${encodeURIComponent(side.id)}`;
const simple = (title, symbol, verb, go) => (side) =>
  openChange({ title: `${title} ${side.vm}`, symbol, go, path: `${base(side)}/${verb}`, side });

export const pause = simple("Pause replication of", "pause", "pause", "Pause");
export const resume = simple("Resume replication of", "play", "resume", "Resume");
export const resynchronize = simple("Resynchronize", "resync", "resynchronize", "Resynchronize");
export const verify = simple("Verify", "verify", "verify", "Verify");

/** Takes a disk into replication, as it is now. */
export const addDisk = (side, disk) =>
  openChange({
    title: `Replicate disk ${disk} of ${side.vm}`,
    symbol: "disk",
    go: "Replicate",
    path: base(side),
    side,
    request: () => ({ add_disks: [disk] }),
  });

/** Makes a failover final. */
export const complete = (side) =>
  openChange({
    title: `Complete the failover of ${side.vm}`,
    symbol: "complete",
    go: "Complete",
    danger: true,
    path: `${base(side)}/complete-failover`,
    side,
    intro: "The other recovery points are given up. It cannot be cancelled afterwards.",
    then: (operation, dialog) => become(dialog, operation.id),
  });

/** Takes a failover back. */
export function cancelFailover(side) {
  const choice = { off: false, timeout: "5m" };
  openChange({
    title: `Cancel the failover of ${side.vm}`,
    symbol: "undo",
    go: "Take Back",
    danger: true,
    path: `${base(side)}/cancel-failover`,
    side,
    intro: "The VM is shut down here, what it wrote since is set aside, and this host is the replica again.",
    request: () =>
      typedSeconds(choice.timeout) === null
        ? null
        : { turn_off: choice.off, shutdown_timeout_seconds: typedSeconds(choice.timeout) },
    fields: (again) => [
      text("The guest may take to shut down", choice.timeout, into(choice, again)("timeout"), {
        wrong: typedSeconds(choice.timeout) === null && "a time such as 5m",
        class: "short",
      }),
      tick("Turn it off when it does not obey", choice.off, into(choice, again)("off")),
    ],
    then: (operation, dialog) => become(dialog, operation.id),
  });
}

/** Ends all test failovers of a VM. */
export const stopTest = (side) =>
  openChange({
    title: `Stop the test failover of ${side.vm}`,
    symbol: "stop",
    go: "Stop",
    path: `test-failovers/${encodeURIComponent(side.vm)}/stop`,
  });

/** Ends one of them. */
export const stopOne = (test) =>
  openChange({
    title: `Stop ${test.name}`,
    symbol: "stop",
    go: "Stop",
    path: `test-failovers/${encodeURIComponent(test.id)}/stop`,
  });

export function createPoint(side) {
  const choice = { tag: "", frozen: false };
  openChange({
    title: `Create a recovery point of ${side.vm}`,
    symbol: "point",
    go: "Create",
    path: `${base(side)}/points`,
    side,
    request: () => ({ tag: choice.tag || null, application_consistent: choice.frozen }),
    fields: (again) => [
      text("What it is called", choice.tag, into(choice, again)("tag"), {
        hint: "It stays until it is removed. Empty: “on demand”.",
      }),
      tick(
        "Application-consistent",
        choice.frozen,
        into(choice, again)("frozen"),
        "The guest agent freezes the guest's file systems for some tenths of a second.",
      ),
    ],
  });
}

export const removePoint = (side, point) =>
  openChange({
    title: "Remove a recovery point",
    symbol: "remove",
    go: "Remove",
    danger: true,
    intro: `${side.vm} at ${fullMoment(point.at_ms)}, ${point.consistency}.`,
    path: `${base(side)}/points/${encodeURIComponent(point.id)}/remove`,
    side,
  });

/** Deletes what only this host has of a VM's disks. */
export const removeAside = (side, aside) =>
  openChange({
    title: `Delete what was set aside of ${side.vm}`,
    symbol: "remove",
    go: "Delete for Good",
    danger: true,
    word: () => side.vm,
    intro: `Set aside ${fullMoment(aside.at_ms)}. No other host has it, and no recovery point.`,
    path: `${base(side)}/diverged/${encodeURIComponent(aside.id)}/remove`,
    side,
  });

/** Takes first copies that were carried here. */
export function importCopy() {
  const choice = { folder: "" };
  openChange({
    title: "Import an initial copy",
    symbol: "download",
    go: "Import",
    path: "import",
    intro: "Takes what the wizard of the primary server wrote to a folder, once the folder is here.",
    request: () => (choice.folder.startsWith("/") ? { directory: choice.folder } : null),
    fields: (again) =>
      text("Folder on this host", choice.folder, into(choice, again)("folder", trimmed), {
        hint: "Such as /mnt/carried.",
        wrong: choice.folder !== "" && !choice.folder.startsWith("/") && "a folder, from the root",
      }),
  });
}

const rawDisks = (title, verb, go, intro) => (machine) =>
  openChange({
    title: `${title} of ${machine.name}`,
    symbol: "disk",
    go,
    intro,
    path: `vms/${encodeURIComponent(machine.id)}/${verb}`,
    then: (done, dialog) => {
      dialog.close();
      notice(sentence(done.message));
      refresh();
    },
  });

export const wrap = rawDisks(
  "Prepare raw disks",
  "wrap-raw-disks",
  "Prepare",
  "A raw disk has no place to note its changes. A small file beside it gets that task; the data stays where it is, byte for byte.",
);
export const unwrap = rawDisks(
  "Put back raw disks",
  "unwrap-raw-disks",
  "Put Back",
  "The definition names the raw disks themselves again. Their data is not touched.",
);

/** Ends the replication of a VM. */
export function remove(side) {
  const choice = { replica: "keep", alone: false };
  openChange({
    title: `Remove the replication of ${side.vm}`,
    symbol: "remove",
    go: "Remove",
    danger: true,
    word: () => (choice.replica === "delete" ? side.vm : null),
    path: `${base(side)}/remove`,
    side,
    request: () => ({ replica: choice.replica, this_host_only: choice.alone }),
    fields: (again) => [
      radios(
        "The replica's files",
        choice.replica,
        [
          ["keep", "Stay: they can be started by hand"],
          ["delete", "Are deleted, for good"],
        ],
        into(choice, again)("replica"),
      ),
      tick("On this host only: the other one is lost for good", choice.alone, into(choice, again)("alone")),
    ],
  });
}
