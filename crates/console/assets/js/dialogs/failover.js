// Failover after a disaster: from which point, and what is lost by it.

import { h } from "../dom.js";
import { icon, loading, problem } from "../parts.js";
import { mayDo } from "../session.js";
import { use } from "../store.js";
import { ago, fullMoment, typedSeconds } from "../words.js";
import { detail } from "../world.js";
import { openChange } from "./dialog.js";
import { into, radios, select, text, tick } from "./fields.js";
import { become } from "./follow.js";

const ENDINGS = [
  ["none", "A person decides: complete, cancel or reverse"],
  ["complete_after_seconds", "It becomes final by itself after"],
  ["roll_back_after_seconds", "It is taken back by itself after"],
  ["boots_within_seconds", "It is taken back unless the guest answers within"],
];

export function failover(side, point = null) {
  const choice = { point, force: false, ending: "none", time: "1h" };
  const seconds = () => typedSeconds(choice.time);
  openChange({
    title: `Failover of ${side.vm}`,
    symbol: "failover",
    go: "Fail Over",
    danger: true,
    wide: true,
    path: `relationships/${encodeURIComponent(side.id)}/failover`,
    side,
    intro: h(
      "span",
      null,
      "For a disaster: ",
      h("strong", null, side.primary_server),
      " is lost. The VM starts here, on ",
      h("strong", null, side.replica_server),
      ", from a recovery point. While the other host answers, ",
      h("strong", null, "Planned Failover"),
      " loses nothing.",
    ),
    request: () => {
      if (choice.ending !== "none" && seconds() === null) return null;
      return {
        point: choice.point,
        force: choice.force,
        ...(choice.ending === "none" ? {} : { [choice.ending]: seconds() }),
      };
    },
    fields: (again) => [
      points(side, choice, again),
      lost(side, choice),
      radios(
        "How it ends",
        choice.ending,
        ENDINGS.map(([value, words]) => [
          value,
          words,
          value === choice.ending &&
            value !== "none" &&
            text("Time", choice.time, into(choice, again)("time"), {
              wrong: seconds() === null && "a time such as 1h",
              class: "short",
            }),
        ]),
        into(choice, again)("ending"),
      ),
      mayDo("administrator") &&
        tick(
          "Also when the other host answers that the VM runs there",
          choice.force,
          into(choice, again)("force"),
          "You vouch that it will not go on there. Two running copies cannot be merged.",
        ),
    ],
    then: (operation, dialog) => become(dialog, operation.id),
  });
}

/** The choice of a point; also the test failover's. */
export function points(side, choice, again) {
  const answer = use(`relationships/${encodeURIComponent(side.id)}/points`);
  if (!answer.value) return answer.problem ? problem(answer.problem) : loading(1);
  const all = [...answer.value.points].reverse();
  const words = (point, index) =>
    `${fullMoment(point.at_ms)} · ${point.consistency}${point.tag ? ` · ${point.tag}` : ""}${index === 0 ? " · the newest" : ""}`;
  return select(
    "Recovery point",
    choice.point ?? all[0]?.id,
    all.map((point, index) => [point.id, words(point, index)]),
    (id) => {
      choice.point = id === all[0].id ? null : id;
      again();
    },
  );
}

/** What will be lost, as far as it is known here. */
function lost(side, choice) {
  const all = use(`relationships/${encodeURIComponent(side.id)}/points`).value?.points ?? [];
  const point = all.find((one) => one.id === choice.point) ?? all.at(-1);
  if (!point) return null;
  const newer = all.length - 1 - all.indexOf(point);
  const known = detail(side).value;
  return h(
    "div",
    { class: "reason warning", key: "lost" },
    icon("warning"),
    h(
      "div",
      null,
      h(
        "p",
        null,
        h("strong", null, "What will be lost: "),
        `everything that the VM wrote after ${fullMoment(point.at_ms)} (${ago(point.at_ms)}).`,
      ),
      newer > 0 &&
        h(
          "p",
          null,
          `${newer} newer recovery ${newer === 1 ? "point stays" : "points stay"} until the failover is complete.`,
        ),
      known?.last_synchronized_at_ms &&
        h("p", { class: "quiet" }, `Last synchronized ${ago(known.last_synchronized_at_ms)}.`),
    ),
  );
}
