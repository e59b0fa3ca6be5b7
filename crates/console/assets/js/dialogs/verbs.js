// The verbs that need no more than a word: each shows its plan and asks.

import { fullMoment, typedSeconds } from "../words.js";
import { openChange } from "./dialog.js";
import { radios, text, tick } from "./fields.js";
import { become } from "./follow.js";

const base = (side) => `relationships/${encodeURIComponent(side.id)}`;
const simple = (title, symbol, verb, go) => (side) =>
  openChange({ title: `${title} ${side.vm}`, symbol, go, path: `${base(side)}/${verb}`, side });

export const pause = simple("Pause replication of", "pause", "pause", "Pause");
export const resume = simple("Resume replication of", "play", "resume", "Resume");
export const resynchronize = simple("Resynchronize", "resync", "resynchronize", "Resynchronize");
export const verify = simple("Verify", "verify", "verify", "Verify");

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
      text(
        "The guest may take to shut down",
        choice.timeout,
        (value) => {
          choice.timeout = value;
          again();
        },
        { wrong: typedSeconds(choice.timeout) === null && "a time such as 5m", class: "short" },
      ),
      tick("Turn it off when it does not obey", choice.off, (on) => {
        choice.off = on;
        again();
      }),
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

export function createPoint(side) {
  const choice = { tag: "", frozen: false };
  openChange({
    title: `Create a recovery point of ${side.vm}`,
    symbol: "point",
    go: "Create",
    path: `${base(side)}/points`,
    request: () => ({ tag: choice.tag || null, application_consistent: choice.frozen }),
    fields: (again) => [
      text(
        "What it is called",
        choice.tag,
        (value) => {
          choice.tag = value;
          again();
        },
        { hint: "It stays until it is removed. Empty: “on demand”." },
      ),
      tick(
        "Application-consistent",
        choice.frozen,
        (on) => {
          choice.frozen = on;
          again();
        },
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
  });

/** Ends the replication of a VM. */
export function remove(side) {
  const choice = { replica: "keep", alone: false };
  openChange({
    title: `Remove the replication of ${side.vm}`,
    symbol: "remove",
    go: "Remove",
    danger: true,
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
        (value) => {
          choice.replica = value;
          again();
        },
      ),
      tick("On this host only: the other one is lost for good", choice.alone, (on) => {
        choice.alone = on;
        again();
      }),
    ],
  });
}
