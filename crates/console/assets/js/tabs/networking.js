// Networking: into which network of the other host each of the VM's networks leads after a failover.

import { h } from "../dom.js";
import { actionOf, perform } from "../actions.js";
import { button, card, empty, facts, icon, shown } from "../parts.js";
import { refresh } from "../store.js";
import { detail } from "../world.js";

export function networking(vm, host) {
  const networks = vm.machine?.networks ?? [];
  if (!vm.mine)
    return networks.length
      ? card("Networks", facts(networks.map((name) => [name, "as it is"])))
      : empty("network", "No networks", "The virtual machine has no network card.");
  return shown(
    detail(vm.mine),
    (known) => page(vm, host, known, networks),
    () => refresh(),
  );
}

function page(vm, host, known, networks) {
  const mapped = new Map(
    known.networks.flatMap(([first, second]) => [
      [first, second],
      [second, first],
    ]),
  );
  const change = actionOf(vm, host, "settings");
  const rows = networks.map((name) =>
    h(
      "tr",
      { key: name },
      h("td", null, icon("network"), " ", name),
      h("td", null, mapped.get(name) ?? name, !mapped.has(name) && h("small", null, " same name")),
    ),
  );
  return [
    h(
      "p",
      { class: "quiet" },
      "After a failover each network card of the VM is plugged into the network of the other host that stands beside its own. That the network exists there is checked before every failover.",
    ),
    networks.length === 0
      ? empty("network", "No networks are known here", "The host that runs the virtual machine tells them.")
      : h(
          "table",
          { class: "plain" },
          h(
            "thead",
            null,
            h(
              "tr",
              null,
              h("th", { scope: "col" }, `On ${vm.host}`),
              h(
                "th",
                { scope: "col" },
                `On ${vm.host === known.primary_server ? known.replica_server : known.primary_server}`,
              ),
            ),
          ),
          h("tbody", null, rows),
        ),
    known.networks.length > 0 &&
      h(
        "p",
        { class: "quiet" },
        `Chosen names: ${known.networks.map(([first, second]) => `${first} ⇄ ${second}`).join(", ")}.`,
      ),
    change && button("Change…", () => perform(change), { symbol: "settings" }),
  ];
}
