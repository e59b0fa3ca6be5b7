// A list that is sorted by its heads, filtered by words and by kind, and walked by the keyboard. Only the rows in sight, and some
// beside them, are in the document: a thousand cost no more than a screenful. The filter finds what the browser's search cannot.

import { h } from "./dom.js";
import { chips, icon } from "./parts.js";
import { repaint } from "./store.js";
import { plural } from "./words.js";

/** Height of a row in the style sheet, pixels. */
const ROW = 36;
/** Rows that are there beside those in sight. */
const BESIDE = 12;
/** In sight before the list has been measured. */
const IN_SIGHT_AT_FIRST = 30;

/** What the user chose for each list, and which part of it is in sight. */
const lists = new Map();

/**
 * @param {{id: string, label: string, columns: {id: string, label: string, sort: Function, show: Function, number?: boolean, title?: Function}[],
 *   rows: object[], whole: boolean, words: (row: object) => string, selected?: string, sorted: string, filters: [string, Function][],
 *   choose: (row: object) => void, menu: (row: object, where: object) => void}} options
 *   `whole`: these are all rows; else the others are on their way. A filter whose third word is true: nobody knows how many there are.
 */
export function table(options) {
  const { id, label, columns, rows, whole, words, filters } = options;
  if (!lists.has(id))
    lists.set(id, {
      by: options.sorted,
      down: false,
      typed: "",
      filter: 0,
      first: 0,
      inSight: IN_SIGHT_AT_FIRST,
      place: null,
      selected: null,
      whole,
      anchor: null,
    });
  const own = lists.get(id);
  const wanted = own.typed.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = rows.filter(
    (row) =>
      filters[own.filter][1](row) && (wanted.length === 0 || wanted.every((word) => words(row).includes(word))),
  );
  const column = columns.find((one) => one.id === own.by);
  const sorted = sort(kept, column.sort, own.down);
  if (own.selected !== options.selected && own.place)
    comeIntoSight(
      sorted.findIndex((row) => row.key === options.selected),
      own,
    );
  own.selected = options.selected;
  if (whole && !own.whole && own.anchor) stayInSight(sorted, own);
  own.whole = whole;
  own.anchor = whole ? null : anchorIn(sorted, own);
  const first = Math.max(0, Math.min(own.first, sorted.length - own.inSight) - BESIDE);
  const last = Math.min(sorted.length, own.first + own.inSight + BESIDE);
  const drawn = sorted.slice(first, last);
  // One row is reached by Tab: the selected one, or the first of those that are in the document.
  const reached = drawn.some((row) => row.key === options.selected) ? options.selected : drawn[0]?.key;
  return h(
    "div",
    { class: "list" },
    h(
      "div",
      { class: "list-bar" },
      h(
        "label",
        { class: "search" },
        icon("search"),
        h("span", { class: "sr" }, "Filter the list"),
        h("input", {
          type: "search",
          placeholder: "Filter by name, state, health, peer",
          value: own.typed,
          onInput: (event) => {
            own.typed = event.target.value;
            repaint();
          },
        }),
      ),
      chips(
        "Show",
        filters.map(([name, keeps, unsure]) => [name, !whole ? "…" : unsure ? "?" : rows.filter(keeps).length]),
        own.filter,
        (index) => {
          own.filter = index;
          repaint();
        },
      ),
      h(
        "span",
        { class: "sr", role: "status" },
        whole ? `${plural(sorted.length, "row")} shown` : "The rest is on its way",
      ),
    ),
    h(
      "div",
      {
        class: "scroll",
        tabindex: "-1",
        onScroll: (event) => look(event.currentTarget, own),
        ref: (place) => requestAnimationFrame(() => look((own.place = place), own)),
      },
      h(
        "table",
        {
          role: "grid",
          "aria-label": label,
          "aria-rowcount": whole ? sorted.length + 1 : -1,
          "aria-busy": String(!whole),
        },
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            columns.map((one) => head(one, own)),
            h("th", { class: "menu-cell" }, h("span", { class: "sr" }, "Actions")),
          ),
        ),
        h(
          "tbody",
          { onKeyDown: (event) => walk(event, sorted.length + 1) },
          space("above", first),
          drawn.map((row, index) => describe(row, first + index, options, row.key === reached)),
          space("below", sorted.length - last),
        ),
      ),
      ending(sorted.length, whole),
    ),
  );
}

/** What stands below the rows. */
function ending(shown, whole) {
  if (whole) return shown === 0 && h("p", { class: "nothing" }, "Nothing matches the filter.");
  const words = "The rest is on its way…";
  return h(
    "p",
    { class: "nothing" },
    shown === 0 ? `Nothing that is here yet matches the filter. ${words}` : words,
  );
}

function head(column, own) {
  const active = own.by === column.id;
  const turn = () => {
    own.down = active ? !own.down : false;
    own.by = column.id;
    repaint();
  };
  return h(
    "th",
    {
      scope: "col",
      class: `c-${column.id} ${column.number ? "number" : ""}`,
      "aria-sort": active ? (own.down ? "descending" : "ascending") : null,
    },
    h(
      "button",
      { type: "button", onClick: turn },
      column.label,
      active && icon("right", own.down ? "down" : "up"),
    ),
  );
}

/** The place of rows that are not in the document. */
const space = (key, rows) =>
  rows > 0 && h("tr", { key, class: "space", "aria-hidden": "true", style: { height: `${rows * ROW}px` } });

/** Which rows are in sight now. */
function look(place, own) {
  const first = Math.floor(place.scrollTop / ROW);
  const inSight = Math.ceil(place.clientHeight / ROW);
  if (Math.abs(first - own.first) < BESIDE / 2 && inSight === own.inSight) return;
  Object.assign(own, { first, inSight });
  repaint();
}

/** The row that somebody looks at: the one with the focus, or the first in sight of a list that was scrolled. */
function anchorIn(sorted, own) {
  const focused = document.activeElement?.closest?.("tr[data-key]")?.dataset.key;
  const index = focused ? sorted.findIndex((row) => row.key === focused) : own.first;
  return index > 0 ? { key: sorted[index]?.key, index } : null;
}

/** Rows that come in above that row do not move it on the screen. */
function stayInSight(sorted, own) {
  const moved = sorted.findIndex((row) => row.key === own.anchor.key) - own.anchor.index;
  if (moved <= 0) return;
  own.first += moved;
  requestAnimationFrame(() => (own.place.scrollTop += moved * ROW));
}

/** Once the page is painted: a row that was chosen elsewhere is not looked for. */
function comeIntoSight(index, own) {
  requestAnimationFrame(() => {
    const { scrollTop, clientHeight } = own.place;
    const top = index * ROW;
    if (index >= 0 && (top < scrollTop || top + 2 * ROW > scrollTop + clientHeight))
      own.place.scrollTop = top - 2 * ROW;
  });
}

function describe(row, index, options, reached) {
  const chosen = row.key === options.selected;
  const open = (event) => {
    event.preventDefault();
    options.choose(row);
    options.menu(row, event);
  };
  return h(
    "tr",
    {
      key: row.key,
      "data-key": row.key,
      "aria-selected": String(chosen),
      "aria-rowindex": index + 2,
      tabindex: reached ? "0" : "-1",
      onClick: () => options.choose(row),
      onContextMenu: open,
      onKeyDown: (event) => {
        if (event.key === "Enter" && event.target.tagName === "TR") options.choose(row);
        if (event.key === "ContextMenu" || (event.key === "F10" && event.shiftKey)) open(event);
      },
    },
    options.columns.map((column, at) =>
      h(
        at === 0 ? "th" : "td",
        {
          scope: at === 0 ? "row" : null,
          class: `c-${column.id} ${column.number ? "number" : ""}`,
          title: column.title?.(row),
        },
        column.show(row),
      ),
    ),
    h(
      "td",
      { class: "menu-cell" },
      h(
        "button",
        {
          type: "button",
          class: "icon-button",
          "aria-label": `Actions for ${row.name}`,
          "aria-haspopup": "menu",
          tabindex: "-1",
          onClick: (event) => {
            event.stopPropagation();
            open(event);
          },
        },
        icon("more"),
      ),
    ),
  );
}

/** Arrow keys, Home and End move between rows; a row that comes into the document by that gets the focus then. */
function walk(event, end) {
  const body = event.currentTarget;
  const at = Number(event.target.closest("tr").getAttribute("aria-rowindex"));
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 2, End: end }[event.key];
  if (to === undefined || to < 2 || to > end) return;
  event.preventDefault();
  const focus = () => body.querySelector(`[aria-rowindex="${to}"]`)?.focus();
  if (event.key.startsWith("Arrow")) return focus();
  body.closest(".scroll").scrollTop = (to - 2) * ROW;
  requestAnimationFrame(() => requestAnimationFrame(focus));
}

/** Gives the focus to a row, if it is in the document. */
export const focusRow = (key) => document.querySelector(`tr[data-key="${CSS.escape(key)}"]`)?.focus();

function sort(rows, by, down) {
  const order = new Intl.Collator(undefined, { numeric: true }).compare;
  const marked = rows.map((row) => [by(row), row]);
  marked.sort(([a, one], [b, two]) => {
    const first = typeof a === "number" ? a - b : order(a, b);
    return (down ? -first : first) || order(one.name, two.name);
  });
  return marked.map(([, row]) => row);
}
