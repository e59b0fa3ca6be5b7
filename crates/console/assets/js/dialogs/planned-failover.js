// Planned Failover: prerequisites, actions, two boxes, the expected downtime before the button, then the steps as they go.

import { h } from "../dom.js";
import { typedSeconds } from "../words.js";
import { openChange } from "./dialog.js";
import { into, text, tick } from "./fields.js";
import { become } from "./follow.js";

export function plannedFailover(side) {
  const choice = { reverse: true, start: true, timeout: "5m" };
  const seconds = () => typedSeconds(choice.timeout);
  openChange({
    title: `Planned Failover of ${side.vm}`,
    symbol: "planned",
    go: "Fail Over",
    wide: true,
    path: `relationships/${encodeURIComponent(side.id)}/planned-failover`,
    side,
    intro: h(
      "span",
      null,
      "Hands the virtual machine over from ",
      h("strong", null, side.primary_server),
      " to ",
      h("strong", null, side.replica_server),
      " with nothing lost. The guest is shut down, the last changes travel, and it starts on the other host.",
    ),
    request: () =>
      seconds() === null
        ? null
        : { reverse: choice.reverse, start: choice.start, shutdown_timeout_seconds: seconds() },
    fields: (again) =>
      h(
        "div",
        { class: "choices" },
        tick(
          "Reverse the replication direction after failover",
          choice.reverse,
          into(choice, again)("reverse"),
          choice.reverse
            ? "Protected again at once, the other way."
            : "The VM is unprotected until you reverse by hand.",
        ),
        tick(
          "Start the Replica virtual machine after failover",
          choice.start,
          into(choice, again)("start"),
          choice.start ? null : "It stays off; users cannot connect until you start it.",
        ),
        text("The guest may take to shut down", choice.timeout, into(choice, again)("timeout"), {
          wrong: seconds() === null && "a time such as 5m or 90s",
          hint: "Then everything is taken back, and the guest runs on.",
          class: "short",
        }),
      ),
    then: (operation, dialog) => become(dialog, operation.id),
  });
}
