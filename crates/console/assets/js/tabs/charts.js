// Small charts in SVG: a curve against its limit, columns, and a strip of what was missed. Each says its numbers to a screen reader.

import { h } from "../dom.js";
import { moment } from "../words.js";

/** Units of the drawing across the page; fewer on a narrow screen, or nobody could read it. */
const width = () => (innerWidth < 760 ? 360 : 560);
const HEIGHT = 150;
const SIDE = { top: 10, right: 12, bottom: 22, left: 72 };
/** More columns than this are drawn as their maximum in each place. */
const COLUMNS_MAX = 160;

/**
 * A line over time. @param {{title: string, from: number, until: number, unit: (value: number) => string, points: [number, number][],
 *   limit?: number, limitWords?: string}} chart
 */
export function curve(chart) {
  const scale = scales(chart, chart.points);
  const path = chart.points
    .map(([at, value], index) => `${index ? "L" : "M"}${scale.x(at)} ${scale.y(value)}`)
    .join("");
  const area =
    chart.points.length > 1
      ? `${path}L${scale.x(chart.points.at(-1)[0])} ${scale.y(0)}L${scale.x(chart.points[0][0])} ${scale.y(0)}Z`
      : "";
  return frame(
    chart,
    scale,
    chart.points,
    h("path", { class: "area", d: area }),
    h("path", { class: "curve", d: path }),
  );
}

/** A column for each moment. `bars`: moments and values. */
export function columns(chart) {
  const bars = thinned(chart.bars, chart.from, chart.until);
  const scale = scales(chart, bars);
  const thick = Math.max(1.5, Math.min(10, (width() - SIDE.left - SIDE.right) / Math.max(1, bars.length) - 1));
  return frame(
    chart,
    scale,
    chart.bars,
    bars.map(([at, value]) =>
      h(
        "rect",
        {
          class: chart.limit && value > chart.limit ? "bar over" : "bar",
          x: scale.x(at) - thick / 2,
          y: scale.y(value),
          width: thick,
          height: Math.max(1, scale.y(0) - scale.y(value)),
          rx: 1,
        },
        h("title", null, `${moment(at)}: ${chart.unit(value)}`),
      ),
    ),
  );
}

/** A mark for each cycle: fine, failed, missed. */
export function missedStrip({ title, from, until, cycles }) {
  const x = (at) => SIDE.left + ((at - from) / (until - from)) * (width() - SIDE.left - SIDE.right);
  const odd = cycles.filter((cycle) => cycle.outcome !== "acknowledged");
  return h(
    "figure",
    { class: "chart strip" },
    h("figcaption", null, title),
    h(
      "svg",
      { viewBox: `0 0 ${width()} 44`, role: "img", "aria-label": `${title} of ${cycles.length}` },
      h("line", { class: "axis", x1: SIDE.left, x2: width() - SIDE.right, y1: 16, y2: 16 }),
      odd.map((cycle) =>
        h(
          "circle",
          { class: cycle.outcome, cx: x(cycle.begun_at_ms), cy: 16, r: 5 },
          h("title", null, `${moment(cycle.begun_at_ms)}: ${cycle.outcome}`),
        ),
      ),
      timeAxis(from, until, x, 38),
    ),
  );
}

function frame(chart, scale, values, ...drawn) {
  const top = values.length ? Math.max(...values.map(([, value]) => value)) : 0;
  const words = values.length
    ? `highest ${chart.unit(top)}, latest ${chart.unit(values.at(-1)[1])}`
    : "no values";
  return h(
    "figure",
    { class: "chart" },
    h("figcaption", null, chart.title, h("span", { class: "quiet" }, words)),
    h(
      "svg",
      {
        viewBox: `0 0 ${width()} ${HEIGHT}`,
        role: "img",
        "aria-label": `${chart.title}: ${words}${chart.limit ? `; ${chart.limitWords} ${chart.unit(chart.limit)}` : ""}`,
      },
      scale.ticks.map((value) =>
        h(
          "g",
          { key: value },
          h("line", {
            class: "grid",
            x1: SIDE.left,
            x2: width() - SIDE.right,
            y1: scale.y(value),
            y2: scale.y(value),
          }),
          h(
            "text",
            { class: "mark", x: SIDE.left - 8, y: scale.y(value) + 4, "text-anchor": "end" },
            chart.unit(value),
          ),
        ),
      ),
      drawn,
      chart.limit && chart.limit <= scale.top && limitLine(chart, scale),
      timeAxis(chart.from, chart.until, scale.x, HEIGHT - 4),
    ),
  );
}

const limitLine = (chart, scale) =>
  h(
    "g",
    { class: "limit" },
    h("line", { x1: SIDE.left, x2: width() - SIDE.right, y1: scale.y(chart.limit), y2: scale.y(chart.limit) }),
    h("text", { x: width() - SIDE.right, y: scale.y(chart.limit) - 4, "text-anchor": "end" }, chart.limitWords),
  );

function timeAxis(from, until, x, y) {
  const days = until - from > 86_400_000;
  const words = new Intl.DateTimeFormat(
    undefined,
    days ? { weekday: "short", day: "numeric" } : { hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
  );
  return (width() < 500 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]).map((part) => {
    const at = from + part * (until - from);
    return h(
      "text",
      {
        key: part,
        class: "mark",
        x: x(at),
        y,
        "text-anchor": part === 0 ? "start" : part === 1 ? "end" : "middle",
      },
      words.format(at),
    );
  });
}

/** Where values stand. The limit is in sight when the values come near it. */
function scales(chart, values) {
  const highest = Math.max(1, ...values.map(([, value]) => value));
  const top = chart.limit && chart.limit < highest * 4 ? Math.max(highest, chart.limit * 1.15) : highest;
  const x = (at) =>
    round(
      SIDE.left +
        ((Math.max(at, chart.from) - chart.from) / (chart.until - chart.from)) *
          (width() - SIDE.left - SIDE.right),
    );
  const y = (value) => round(HEIGHT - SIDE.bottom - (value / top) * (HEIGHT - SIDE.top - SIDE.bottom));
  return { x, y, top, ticks: [0, top / 2, top] };
}

/** At most so many bars, each the highest of its place. */
function thinned(bars, from, until) {
  if (bars.length <= COLUMNS_MAX) return bars;
  const places = new Map();
  for (const bar of bars) {
    const place = Math.floor(((bar[0] - from) / (until - from)) * COLUMNS_MAX);
    if (!places.has(place) || places.get(place)[1] < bar[1]) places.set(place, bar);
  }
  return [...places.values()];
}

const round = (value) => Math.round(value * 10) / 10;
