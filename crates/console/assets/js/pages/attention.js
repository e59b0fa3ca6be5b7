// What needs a person, the worst first, each with its cure. Facts only: pages decide how to show them.

import { serverNow } from "../api.js";
import { use } from "../store.js";
import { moment, span } from "../words.js";
import { blindness, detail, hosts, isDebt, openOperations } from "../world.js";

/** Reasons are asked for one VM at a time; beyond these, the list of VMs says the rest. */
const ASKED_MAX = 25;
const CERTIFICATE_SOON_MS = 30 * 86_400_000;
const ORDER = { critical: 0, unknown: 1, warning: 2 };

/** @typedef {{key: string, severity: string, about: string, text: string, cure: string|null, side: object|null, operation: string|null,
 *   since: number|null}} Matter */

/** @returns {Matter[]} */
export function matters() {
  const found = [
    ...hosts().flatMap(ofHost),
    ...openOperations()
      .filter((one) => one.next_command)
      .map(ofOperation),
    ...ofRelationships(),
  ];
  return found.sort((one, two) => ORDER[one.severity] - ORDER[two.severity]);
}

function matter(key, severity, about, text, rest = {}) {
  return { key, severity, about, text, cure: null, side: null, operation: null, since: null, ...rest };
}

function ofHost(host) {
  const found = [];
  if (host.known && !host.seen && !host.own) {
    const since = host.lastSeen ? `since ${moment(host.lastSeen)}` : "since this daemon started";
    found.push(
      matter(
        `unseen ${host.name}`,
        "unknown",
        host.name,
        `The host has not answered ${since}: what it holds is unknown`,
        { cure: `virt-replica peer test ${host.name}`, since: host.lastSeen },
      ),
    );
  }
  const blind = blindness(host);
  if (blind)
    found.push(
      matter(
        `blind ${host.name}`,
        "unknown",
        host.name,
        `What its virtual machines do is unknown: ${blind.detail || blind.title}`,
        { cure: blind.cure },
      ),
    );
  const expires = host.own ? host.view?.certificate_expires_at_ms : host.peer.certificate_expires_at_ms;
  if (expires && expires - serverNow() < CERTIFICATE_SOON_MS) {
    const left = expires - serverNow();
    const text = left > 0 ? `The host's certificate ends in ${span(left)}` : "The host's certificate has ended";
    found.push(
      matter(`certificate ${host.name}`, left > 0 ? "warning" : "critical", host.name, text, {
        cure: host.own ? "virt-replica peer rotate" : `on ${host.name}: virt-replica peer rotate`,
      }),
    );
  }
  return found;
}

const ofOperation = (operation) =>
  matter(
    `operation ${operation.id}`,
    "critical",
    operation.vm,
    `The ${operation.kind} ${operation.state === "in-doubt" ? "is in doubt" : "waits for a person"}: ${operation.explanation}`,
    { cure: operation.next_command, operation: operation.id, since: operation.begun_at_ms },
  );

function ofRelationships() {
  const ill = (use("relationships").value ?? []).filter((side) => side.health !== "normal");
  ill.sort((one, two) => ORDER[one.health] - ORDER[two.health]);
  const found = ill.slice(0, ASKED_MAX).flatMap((side) => {
    const known = detail(side).value;
    if (!known) return [matter(`vm ${side.id}`, side.health, side.vm, side.state, { side })];
    return known.reasons.map((reason, index) =>
      matter(
        `vm ${side.id} ${index}`,
        reason.severity,
        side.vm,
        isDebt(side) && known.unprotected_since_ms
          ? `${reason.text}, since ${moment(known.unprotected_since_ms)}`
          : reason.text,
        { cure: reason.cure, side, since: known.unprotected_since_ms },
      ),
    );
  });
  const rest = ill.length - ASKED_MAX;
  if (rest > 0)
    found.push(
      matter(
        "rest",
        "warning",
        "",
        `${rest} more virtual machines need attention: filter their list by “Needs attention”`,
      ),
    );
  return found;
}
