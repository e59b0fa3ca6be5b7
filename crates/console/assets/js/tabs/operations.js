// Operations: every handover of this VM with its evidence, the newest first; and its test failovers.

import { h } from "../dom.js";
import { follow } from "../actions.js";
import { advice, capital, live, report, stateWords, steps } from "../operation.js";
import { bar, button, empty, icon, shown } from "../parts.js";
import { mayDo } from "../session.js";
import { refresh, use } from "../store.js";
import { fullMoment, plural, span } from "../words.js";
import { isEnded } from "../world.js";

export function operations(vm, host) {
  if (!vm.side) return empty("planned", "No operations", "They begin with replication.");
  return shown(
    use(vm.mine ? `operations?vm=${encodeURIComponent(vm.side.id)}` : `${host.prefix}operations`),
    (all) => {
      const own = all.filter((one) => one.relationship === vm.side.id);
      const tests = (vm.mine ? (use("test-failovers").value ?? []) : []).filter((test) => test.vm === vm.name);
      if (own.length + tests.length === 0)
        return empty(
          "planned",
          "No operations yet",
          "Handovers and test failovers of this virtual machine are kept here, with their evidence.",
        );
      return [
        h(
          "ul",
          { class: "operations" },
          own.map((operation, index) => item(operation, index === 0)),
        ),
        tests.length > 0 && [
          h("h3", { key: "tests" }, plural(tests.length, "test failover")),
          h("ul", { class: "operations", key: "test-list" }, tests.map(testItem)),
        ],
      ];
    },
    () => refresh(),
  );
}

function item(operation, open) {
  const { done, count, step } = live(operation);
  const ended = isEnded(operation);
  return h(
    "li",
    { key: operation.id },
    h(
      "details",
      { class: `operation ${operation.state}`, open },
      h(
        "summary",
        null,
        icon(ended ? (operation.state === "completed" ? "ok" : "undo") : "resync", ended ? "" : "spin"),
        h(
          "span",
          { class: "grow" },
          h("strong", null, capital(operation.kind)),
          ` ${operation.old_primary} → ${operation.new_primary}`,
          h("small", null, `${fullMoment(operation.begun_at_ms)} by ${operation.requested_by}`),
        ),
        h("span", { class: "state" }, ended ? stateWords(operation) : step),
        operation.report.downtime_ms
          ? h("span", { class: "took" }, `${span(operation.report.downtime_ms)} off`)
          : null,
      ),
      !ended && bar(done, count, "Steps done"),
      advice(operation),
      report(operation),
      steps(operation),
      !ended && button("Follow…", () => follow(operation.id)),
    ),
  );
}

const VERDICTS = { true: ["ok", "passed"], false: ["critical", "failed"], null: ["unknown", "proved nothing"] };

function testItem(test) {
  const [symbol, words] =
    test.state === "ended" || test.state === "standing"
      ? VERDICTS[String(test.passed)]
      : ["resync", test.state];
  return h(
    "li",
    { key: test.id },
    h(
      "details",
      { class: "operation" },
      h(
        "summary",
        null,
        icon(symbol),
        h(
          "span",
          { class: "grow" },
          h("strong", null, test.name),
          ` from ${fullMoment(test.point_at_ms)}`,
          h(
            "small",
            null,
            `${fullMoment(test.begun_at_ms)} by ${test.requested_by}, in ${test.isolated ? "a network of its own" : test.network}`,
          ),
        ),
        h("span", { class: "state" }, words),
        test.boot_ms ? h("span", { class: "took" }, `booted in ${span(test.boot_ms)}`) : null,
      ),
      test.failure && h("p", { class: "late" }, test.failure),
      h(
        "ul",
        { class: "checks" },
        test.findings.map((finding) =>
          h(
            "li",
            { key: finding.what, class: finding.ok === null ? "open" : finding.ok ? "pass" : "fail" },
            icon(finding.ok === null ? "unknown" : finding.ok ? "ok" : "critical"),
            h("div", null, finding.what, finding.detail && h("p", { class: "detail" }, finding.detail)),
          ),
        ),
      ),
      test.report && h("p", { class: "quiet" }, "Report: ", h("code", null, test.report)),
      test.state !== "ended" &&
        mayDo("operator") &&
        button("Stop…", async () => (await import("../dialogs/verbs.js")).stopOne(test), { symbol: "stop" }),
    ),
  );
}
