// The Reverse Replication wizard: everything is filled in from the original, so that nothing can be mismatched by accident.

import { get } from "../api.js";
import { h } from "../dom.js";
import { notice } from "../notices.js";
import { facts } from "../parts.js";
import { refresh } from "../store.js";
import { every } from "../words.js";
import { otherHost } from "../world.js";
import { compression, connection, frequency } from "./choices.js";
import { into, text, trimmed } from "./fields.js";
import { openWizard } from "./wizard.js";

export async function reverse(side) {
  const known = await get(`relationships/${encodeURIComponent(side.id)}`);
  const it = {
    peer: otherHost(side),
    frequency: String(side.frequency_seconds),
    compression: known.compression,
  };
  openWizard({
    title: `Reverse Replication of ${side.vm}`,
    symbol: "reverse",
    go: "Finish",
    side,
    path: `relationships/${encodeURIComponent(side.id)}/reverse`,
    request: () => ({ peer: it.peer, frequency_seconds: Number(it.frequency), compression: it.compression }),
    pages: [
      {
        title: "Before You Begin",
        body: () =>
          h(
            "div",
            null,
            h(
              "p",
              null,
              `${side.vm} runs on `,
              h("strong", null, side.primary_server),
              " and nobody receives what it writes. This wizard protects it again, in the other direction.",
            ),
            h(
              "p",
              { class: "quiet" },
              "The other host has all that was there at the failover: only what changed since travels.",
            ),
          ),
      },
      {
        title: "Replica Server",
        body: (again) =>
          text("Replica server", it.peer, into(it, again)("peer", trimmed), {
            hint: "The former primary. Filled in from the original.",
          }),
        missing: () => (it.peer ? null : "Name the replica server"),
      },
      {
        title: "Connection Parameters",
        body: (again) => [
          compression(it, again, { hint: "As in the original: one that differs is refused by name." }),
          connection(it.peer),
        ],
      },
      {
        title: "Replication Frequency",
        body: (again) => frequency(it, again),
        missing: () => (it.frequency === null ? "Say how often" : null),
      },
    ],
    summary: () =>
      facts([
        ["Replica server", it.peer],
        ["Frequency", every(Number(it.frequency))],
        ["Compression", it.compression],
        ["Recovery points", known.recovery_points],
      ]),
    done: (_, dialog) => {
      dialog.close();
      notice(`${side.vm} is replicated from ${side.primary_server} to ${it.peer}`);
      refresh();
    },
  });
}
