// An operation as people follow it: every step with its host, time and evidence; bytes on their way; the report at the end.

import { h } from "./dom.js";
import { bar, cure, facts, icon } from "./parts.js";
import { bytes, fullMoment, span } from "./words.js";
import { serverNow } from "./api.js";
import { isEnded } from "./world.js";

const SYMBOLS = {
  pending: "dot",
  running: "resync",
  done: "ok",
  failed: "critical",
  skipped: "dash",
  undone: "undo",
};
/** The words of the command line. */
const STATES = {
  running: "under way",
  undoing: "being undone",
  finishing: "handed over, finishing",
  "in-doubt": "in doubt",
  completed: "completed",
  undone: "undone",
  "given-up": "given up",
};

export const stateWords = (operation) => STATES[operation.state] ?? operation.state;

/** How far it is: steps that are over, of how many, and the one that runs. */
export function live(operation) {
  const asked = operation.steps.filter((step) => step.state !== "skipped");
  const running =
    asked.find((step) => step.state === "running" || step.state === "failed") ??
    asked.find((step) => step.state === "pending");
  return {
    done: asked.filter((step) => step.state === "done").length,
    count: asked.length,
    step: isEnded(operation) ? stateWords(operation) : (running?.does ?? stateWords(operation)),
  };
}

/** The action list, ticked as it goes. */
export function steps(operation) {
  return h(
    "ol",
    { class: "steps" },
    operation.steps.map((step) => {
      const took = step.finished_at_ms && step.started_at_ms ? step.finished_at_ms - step.started_at_ms : null;
      const goes =
        step.state === "running" && step.started_at_ms ? Math.max(0, serverNow() - step.started_at_ms) : null;
      return h(
        "li",
        {
          key: step.name,
          class: `step ${step.state}`,
          "aria-current": step.state === "running" ? "step" : null,
        },
        icon(SYMBOLS[step.state], step.state === "running" ? "spin" : ""),
        h(
          "div",
          { class: "grow" },
          h(
            "p",
            null,
            h("strong", null, capital(step.name)),
            h("span", { class: "host" }, step.host),
            h("span", { class: "sr" }, step.state),
          ),
          h("p", { class: "does" }, step.state === "skipped" ? step.detail || "not asked for" : step.does),
          step.detail && step.state !== "skipped" && h("p", { class: "detail" }, step.detail),
          step.state === "running" && operation.transfer && transfer(operation.transfer),
        ),
        h("span", { class: "took" }, took !== null ? span(took) : goes !== null ? span(goes) : ""),
      );
    }),
  );
}

const transfer = ({ bytes_done: done, bytes_total: total }) =>
  h(
    "div",
    { class: "transfer" },
    bar(done, total, "Bytes sent"),
    h("span", null, total === null || total === undefined ? bytes(done) : `${bytes(done)} of ${bytes(total)}`),
  );

/** Why it rests or was turned round, and the command that goes on. */
export const advice = (operation) =>
  (operation.explanation || operation.next_command) &&
  h(
    "div",
    { class: `advice ${operation.next_command ? "critical" : "warning"}`, role: "alert" },
    icon(operation.next_command ? "critical" : "warning"),
    h("div", null, operation.explanation && h("p", null, operation.explanation), cure(operation.next_command)),
  );

/** The evidence. What was not measured is said to be unknown. */
export function report(operation) {
  const { report: evidence } = operation;
  const two = evidence.old_primary_digest && evidence.new_primary_digest;
  const equal = two ? evidence.old_primary_digest === evidence.new_primary_digest : null;
  return h(
    "section",
    { class: "report", "aria-label": "Report" },
    facts([
      ["Result", stateWords(operation)],
      ["From", operation.old_primary],
      ["To", operation.new_primary],
      ["Requested by", operation.requested_by],
      ["Began", fullMoment(operation.begun_at_ms)],
      ["Ended", operation.ended_at_ms ? fullMoment(operation.ended_at_ms) : "not yet"],
      ["Downtime", operation.kind === "planned failover" ? span(evidence.downtime_ms) : null],
      ["Final sync", bytes(evidence.final_sync_bytes)],
      ["Reverse carried", operation.reverse ? bytes(evidence.reverse_bytes) : null],
      [
        "Digests",
        equal === null
          ? "unknown"
          : h(
              "span",
              { class: equal ? "good" : "late" },
              equal ? "equal on both hosts: nothing was lost" : "DIFFERENT",
            ),
      ],
    ]),
    two && h("p", { class: "digest" }, h("code", null, evidence.old_primary_digest)),
  );
}

/** With its first letter large. */
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
