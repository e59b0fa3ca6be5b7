// Test Failover: a throw-away copy from a point, in a network of its own, while replication goes on.

import { h } from "../dom.js";
import { notice } from "../notices.js";
import { address, go } from "../route.js";
import { use } from "../store.js";
import { typedSeconds } from "../words.js";
import { openChange } from "./dialog.js";
import { into, radios, text, tick } from "./fields.js";
import { points } from "./failover.js";

/** The networks that VMs of this host are plugged into. */
const networksHere = () => [...new Set((use("vms").value ?? []).flatMap((vm) => vm.networks))].sort();

export function testFailover(side, point = null) {
  const choice = { point, where: "isolated", network: "", port: "", timeout: "10m", keep: false };
  const seconds = () => typedSeconds(choice.timeout);
  const port = () =>
    choice.port === ""
      ? null
      : /^\d{1,5}$/.test(choice.port) && Number(choice.port) > 0 && Number(choice.port) < 65536
        ? Number(choice.port)
        : undefined;
  openChange({
    title: `Test Failover of ${side.vm}`,
    symbol: "test",
    go: "Test",
    wide: true,
    path: `relationships/${encodeURIComponent(side.id)}/test-failover`,
    side,
    intro: h(
      "span",
      null,
      "Starts a copy named ",
      h("strong", null, `${side.vm} - Test`),
      ". The VM and its replication are not touched; what the copy writes is thrown away.",
    ),
    request: () =>
      seconds() === null || port() === undefined || (choice.where === "network" && !choice.network)
        ? null
        : {
            point: choice.point,
            network: choice.where === "network" ? choice.network : null,
            probe_port: port(),
            boot_timeout_seconds: seconds(),
            keep: choice.keep,
          },
    fields: (again) => {
      const set = into(choice, again);
      return [
        points(side, choice, again),
        radios(
          "Network",
          choice.where,
          [
            ["isolated", "A network of its own, in which there is nobody"],
            [
              "network",
              "A network of the replica server",
              choice.where === "network" &&
                text("Its name", choice.network, set("network"), {
                  wrong: !choice.network && "a bridge or libvirt network of the replica server",
                  known: networksHere(),
                }),
            ],
          ],
          set("where"),
        ),
        text("TCP port that must answer", choice.port, set("port"), {
          hint: "Empty: that the guest agent answers is enough.",
          wrong: port() === undefined && "a number from 1 to 65535",
          class: "short",
          inputmode: "numeric",
        }),
        text("Booting and answering may take", choice.timeout, set("timeout"), {
          wrong: seconds() === null && "a time such as 10m",
          class: "short",
        }),
        tick(
          "Keep the copy after its check",
          choice.keep,
          set("keep"),
          "Until you stop the test. Planned failover waits until then.",
        ),
      ];
    },
    then: (test, dialog) => {
      dialog.close();
      notice(`The copy ${test.name} is being made`);
      go(address("hosts", side.replica_server, side.vm_uuid, "operations"));
    },
  });
}
