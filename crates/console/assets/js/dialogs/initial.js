// The first copy: when it is sent, or what stands in for it, and what it costs.

import { h } from "../dom.js";
import { bytes, span, typedBytes } from "../words.js";
import { hosts } from "../world.js";
import { into, radios, text, trimmed } from "./fields.js";

/** The page. `it`: the choices of the wizard; `disks`: those of the machine. */
export function initial(it, disks, again) {
  const kept = disks.filter((disk) => !it.excluded.has(disk.target));
  const set = into(it, again);
  const seeds = kept.map((disk) =>
    text(`Copy of ${disk.target}`, it.seeds[disk.target] ?? "", into(it.seeds, again)(disk.target, trimmed), {
      hint: "A qcow2 file in the folder seeds of the replica server's storage. Empty: copied whole.",
    }),
  );
  return [
    radios(
      "Initial replication method",
      it.initial,
      [
        ["now", "Send the initial copy now"],
        [
          "at",
          "Send it later",
          it.initial === "at" &&
            text("Begins at", it.at, set("at"), { type: "datetime-local", wrong: missingInitial(it) }),
        ],
        [
          "seed",
          "Use an existing copy on the replica server: only differences travel",
          it.initial === "seed" && seeds,
        ],
        [
          "export",
          "Write it to a folder, to be carried by hand",
          it.initial === "export" &&
            text("Folder on this host", it.folder, set("folder"), {
              hint: "Compressed and digested, not encrypted.",
              wrong: missingInitial(it),
            }),
        ],
      ],
      set("initial"),
    ),
    cost(it, kept),
  ];
}

/** Why one cannot go on. */
export function missingInitial(it) {
  if (it.initial === "at" && !(Date.parse(it.at) > Date.now())) return "Choose a time to come";
  if (it.initial === "export" && !it.folder.startsWith("/")) return "Name a folder of this host, from the root";
  return null;
}

/** What the first copy carries at most, and how long at least. */
function cost(it, kept) {
  const known = kept.every((disk) => typeof disk.allocated_bytes === "number");
  const total = known ? kept.reduce((sum, disk) => sum + disk.allocated_bytes, 0) : null;
  const limit = typedBytes(it.limit) ?? hosts()[0].view?.rate_limit_bytes_per_second;
  return h(
    "dl",
    { class: "cost", key: "cost" },
    h("div", null, h("dt", null, "At most to travel"), h("dd", null, bytes(total))),
    h(
      "div",
      null,
      h("dt", null, "At least takes"),
      h(
        "dd",
        null,
        total !== null && limit
          ? `${span((total / limit) * 1000)} at ${bytes(limit)}/s`
          : "as fast as link and disks are: no limit is set",
      ),
    ),
  );
}
