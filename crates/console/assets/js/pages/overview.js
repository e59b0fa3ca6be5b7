// The first page: what needs attention with its cure, handovers under way, VMs that nobody protects, those that live away from
// home, and the hosts.

import { h } from "../dom.js";
import { actionOf, diskAction, diskOf, follow, hostActions, perform, vmActions } from "../actions.js";
import { matters } from "./attention.js";
import { capital, live } from "../operation.js";
import { bar, button, cure, icon, loading, pageCard, shown } from "../parts.js";
import { address } from "../route.js";
import { refresh, use } from "../store.js";
import { age, ago, bytes, coarse, plural } from "../words.js";
import {
  areAll,
  awaySince,
  blindness,
  findVm,
  hosts,
  isDebt,
  isNaked,
  listsOf,
  openOperations,
  vmsOf,
} from "../world.js";

const NAKED_SHOWN_MAX = 12;

export function page() {
  const all = hosts();
  return h(
    "div",
    { class: "overview", key: "overview" },
    h("h1", null, "Overview"),
    shown(
      use("relationships"),
      (sides) => [
        figures(all, sides),
        under(),
        attention(sides),
        h("div", { class: "two" }, naked(all), h("div", null, away(sides), hostCards(all))),
      ],
      () => refresh(),
    ),
  );
}

export const pane = () => [[hosts()[0].name, hostActions(hosts()[0])]];

function figures(all, sides) {
  const protectedWell = blindness(all[0]) ? null : sides.filter((side) => side.health === "normal").length;
  const unseen = all.filter((host) => host.known && !host.seen).length;
  const seen = all.filter((host) => host.seen);
  const alone = seen.every(areAll) ? seen.flatMap(vmsOf).filter(isNaked).length : null;
  const figure = (count, words, kind) =>
    h("li", { class: `figure ${count ? kind : ""}` }, h("strong", null, count ?? "?"), h("span", null, words));
  return h(
    "ul",
    { class: "figures" },
    figure(protectedWell, "protected, Normal", "normal"),
    figure(sides.filter((side) => side.health === "critical").length, "Critical", "critical"),
    figure(sides.filter((side) => side.health === "warning").length, "Warning", "warning"),
    figure(alone, "not protected", "warning"),
    figure(unseen, unseen === 1 ? "host unseen" : "hosts unseen", "unknown"),
  );
}

function under() {
  const open = openOperations();
  if (open.length === 0) return null;
  return h(
    "section",
    { key: "under", "aria-label": "Under way" },
    h("h2", null, "Under way"),
    h(
      "ul",
      { class: "running" },
      open.map((operation) => {
        const { done, count, step } = live(operation);
        return h(
          "li",
          { key: operation.id, class: "card running-card" },
          icon("planned"),
          h(
            "div",
            { class: "grow" },
            h("strong", null, `${capital(operation.kind)} of ${operation.vm}`),
            h("p", null, `${operation.old_primary} → ${operation.new_primary} · ${step}`),
            bar(done, count, "Steps done"),
          ),
          button("Show", () => follow(operation.id)),
        );
      }),
    ),
  );
}

function attention(sides) {
  const found = matters();
  return h(
    "section",
    { key: "attention", "aria-labelledby": "attention" },
    h("h2", { id: "attention" }, "Needs attention"),
    found.length === 0
      ? h(
          "p",
          { class: "all-well" },
          icon("ok"),
          sides.length === 0
            ? "Nothing is replicated yet."
            : `Nothing. Health of ${plural(sides.length, "virtual machine")} is Normal.`,
        )
      : h("ul", { class: "matters" }, found.map(matterItem)),
  );
}

function matterItem(matter) {
  const host = hosts()[0];
  const vm = matter.side && findVm(host, matter.side.vm_uuid);
  const verb = vm && wayOut(vm, host, matter);
  return h(
    "li",
    { key: matter.key, class: `matter ${matter.severity}` },
    icon(matter.severity, matter.severity),
    h(
      "div",
      { class: "grow" },
      h(
        "p",
        null,
        vm
          ? h("a", { href: address("hosts", host.name, vm.key) }, matter.about)
          : h("strong", null, matter.about),
        " ",
        matter.text,
        ".",
      ),
      cure(matter.cure),
    ),
    verb && button(verb.label, () => perform(verb), { symbol: verb.symbol }),
    matter.operation && button("Show Operation…", () => follow(matter.operation)),
  );
}

/** What can be done about it here, by a button. */
function wayOut(vm, host, { side, cure: command }) {
  const disk = diskOf(command);
  if (disk) return diskAction(side, disk).reason === null && diskAction(side, disk);
  return suggested(side)
    .map((id) => actionOf(vm, host, id))
    .find(Boolean);
}

/** Which verbs lead out of it. */
const suggested = (side) =>
  isDebt(side) ? ["reverse"] : side.paused ? ["resume"] : side.operation ? ["follow"] : [];

function naked(all) {
  const seen = all.filter((host) => host.seen);
  const unknown = seen.filter((host) => !areAll(host));
  const found = seen.flatMap((host) => (vmsOf(host) ?? []).filter(isNaked).map((vm) => [host, vm]));
  const items = found.slice(0, NAKED_SHOWN_MAX).map(([host, vm]) => {
    const enable = vmActions(vm, host)[0];
    return h(
      "li",
      { key: `${host.name} ${vm.key}` },
      icon("vm"),
      h(
        "a",
        { href: address("hosts", host.name, vm.key), class: "grow" },
        vm.name,
        h("small", null, host.name),
      ),
      button("Enable…", () => perform(enable), { disabled: enable.reason !== null, title: enable.reason }),
    );
  });
  return pageCard(
    "Nobody protects",
    found.length > 0 && h("ul", { class: "rows" }, items),
    found.length + unknown.length === 0 &&
      h("p", { class: "quiet" }, "Every virtual machine of the hosts that answer has a replica."),
    unknown.map((host) => unknownVms(host)),
    found.length > NAKED_SHOWN_MAX && h("p", { class: "quiet" }, `and ${found.length - NAKED_SHOWN_MAX} more`),
  );
}

/** The VMs of a host are not known, or not yet. */
function unknownVms(host) {
  const ill = listsOf(host).find((answer) => answer.problem);
  return ill
    ? h("p", { class: "late", key: host.name }, `What ${host.name} runs is unknown: ${ill.problem.title}.`)
    : loading(1);
}

/** VMs that run where they did not begin. */
function away(sides) {
  const found = sides.map((side) => [side, awaySince(side)]).filter(([, since]) => since !== null);
  if (found.length === 0) return null;
  const host = hosts()[0];
  return h(
    "section",
    { class: "card", key: "away" },
    h("h2", null, "On the DR side"),
    h(
      "ul",
      { class: "rows" },
      found.map(([side, since]) =>
        h(
          "li",
          { key: side.id },
          icon("vm"),
          h(
            "a",
            { class: "grow", href: address("hosts", host.name, side.vm_uuid) },
            side.vm,
            h("small", null, `on ${side.primary_server} for ${coarse(age(since))}`),
          ),
          failBack(side, host),
        ),
      ),
    ),
  );
}

/** Failback is a planned failover again. */
function failBack(side, host) {
  const vm = findVm(host, side.vm_uuid);
  const verb = vm && actionOf(vm, host, "planned");
  return verb && button("Fail back…", () => perform(verb));
}

function hostCards(all) {
  return h(
    "section",
    { class: "card", key: "hosts" },
    h("h2", null, "Hosts"),
    h(
      "ul",
      { class: "rows" },
      all.map((host) =>
        h(
          "li",
          { key: host.name },
          icon("host"),
          h(
            "a",
            { class: "grow", href: address("hosts", host.name) },
            host.name,
            h("small", null, aboutHost(host)),
          ),
          host.known
            ? h(
                "span",
                { class: `seen ${host.seen ? "yes" : "no"}` },
                host.seen ? (host.own ? "this host" : "answers") : "unknown",
              )
            : h("span", { class: "seen" }, "…"),
        ),
      ),
    ),
    all.length === 1 &&
      use("peers").value &&
      h(
        "div",
        { class: "hint" },
        "This host is paired with no other yet. ",
        h("a", { href: address("settings", "peers") }, "Pair it"),
        " to replicate.",
      ),
  );
}

function aboutHost(host) {
  if (!host.seen)
    return host.lastSeen ? `last answered ${ago(host.lastSeen)}` : "has not answered since this daemon started";
  if (!host.view) return "…";
  const { primaries, replicas, storage_free_bytes: free, hypervisor } = host.view;
  return [`${primaries} primary, ${replicas} replica`, `${bytes(free)} free`, hypervisor]
    .filter(Boolean)
    .join(" · ");
}
