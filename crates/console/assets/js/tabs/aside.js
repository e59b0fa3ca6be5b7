// What was set aside: content of the VM's disks that only this host has since a failover. Never deleted by itself; here a person sees
// what it is, where it lies, and deletes it with the VM's name typed.

import { h } from "../dom.js";
import { button, card, command, icon } from "../parts.js";
import { mayDo } from "../session.js";
import { use } from "../store.js";
import { bytes, fullMoment, plural } from "../words.js";

/** Of the guest's files; the command line has them all. */
const FILES_SHOWN_MAX = 20;

/** All of a side of this host, the oldest first; null: not known yet. */
export const setAside = (side) => use(`relationships/${encodeURIComponent(side.id)}/diverged`).value ?? null;

/** How much it is, in few words. */
export const asideWords = (found) =>
  `${bytes(found.flatMap((one) => one.disks).reduce((sum, disk) => sum + disk.bytes, 0))} that only this host has`;

/** A card, or nothing when nothing was set aside. */
export function aside(side) {
  const found = setAside(side);
  if (!found?.length) return null;
  return card(
    "Set aside",
    h(
      "p",
      { class: "quiet" },
      "What only this host had of the disks when a failover went another way: no recovery point has it. Each file holds just the blocks that differed, at their places. Look into it before you delete it; to keep it elsewhere, copy the file.",
    ),
    h(
      "ul",
      { class: "rows asides" },
      found.map((one) => item(side, one)),
    ),
  );
}

const item = (side, one) =>
  h(
    "li",
    { key: one.id },
    icon("disk"),
    h(
      "div",
      { class: "grow" },
      h("strong", null, fullMoment(one.at_ms)),
      one.disks.map((disk) => [
        h("p", { key: disk.target }, `${disk.target}: ${bytes(disk.bytes)} in ${plural(disk.pieces, "piece")}`),
        command(disk.path),
        disk.file_systems?.map((system) => files(disk, system)),
      ]),
    ),
    button("Delete…", async () => (await import("../dialogs/verbs.js")).removeAside(side, one), {
      symbol: "remove",
      kind: "danger",
      disabled: !mayDo("administrator"),
      title: mayDo("administrator") ? null : "Needs the role administrator",
    }),
  );

const files = (disk, system) =>
  h(
    "details",
    { key: `${disk.target} ${system.place}` },
    h(
      "summary",
      null,
      `${disk.target}, ${system.place}: ${system.files.length ? `${plural(system.files.length, "file")} changed` : "no file was changed"}`,
    ),
    h(
      "ul",
      null,
      system.files
        .slice(0, FILES_SHOWN_MAX)
        .map((file) =>
          h(
            "li",
            { key: file.path },
            h("code", null, file.path),
            h(
              "small",
              null,
              ` ${file.is_new ? "new" : "changed"} ${fullMoment(file.changed_at_ms)}, ${bytes(file.bytes)}`,
            ),
          ),
        ),
    ),
    system.files.length > FILES_SHOWN_MAX &&
      h("p", { class: "quiet" }, `and ${system.files.length - FILES_SHOWN_MAX} more`),
    system.incomplete && h("p", { class: "quiet" }, system.incomplete),
  );
