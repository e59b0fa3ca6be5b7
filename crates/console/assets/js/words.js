// Numbers and times in the words of the CLI. Unknown is a word, never a zero.

import { serverNow } from "./api.js";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** @param {number|null|undefined} value */
export function bytes(value) {
  if (value === null || value === undefined) return "unknown";
  const power = value < 1024 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log2(value) / 10));
  return power === 0 ? `${value} B` : `${(value / 1024 ** power).toFixed(1)} ${UNITS[power]}`;
}

/** A limit of traffic as it is typed: `50MiB/s`; empty for none. */
export const typedLimit = (value) => (value ? `${bytes(value).replace(/(\.0)? /, "")}/s` : "");

/** A span with its two largest units: `0.6 s`, `42 s`, `4 min 18 s`, `3 d 4 h`. */
export function span(ms) {
  if (ms === null || ms === undefined) return "unknown";
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const steps = [
    ["d", 86400],
    ["h", 3600],
    ["min", 60],
    ["s", 1],
  ];
  const first = steps.findIndex(([, size]) => seconds >= size);
  const parts = steps.slice(first, first + 2).map(([unit, size], index) => {
    const above = index === 0 ? Infinity : steps[first][1];
    return [Math.floor((seconds % above) / size), unit];
  });
  return parts
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(" ");
}

/** Seconds, as they are typed: `30s`, `5m`, `4h`, `7d`. */
export function every(seconds) {
  for (const [unit, size] of [
    ["d", 86400],
    ["h", 3600],
    ["m", 60],
  ]) {
    if (seconds % size === 0) return `${seconds / size}${unit}`;
  }
  return `${seconds}s`;
}

/** Local time as the command line writes it: `2026-11-23 01:46:44`. */
export function fullMoment(ms) {
  if (ms === null || ms === undefined) return "unknown";
  const at = new Date(ms);
  const two = (number) => String(number).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** A moment in few characters: the time of day when it is of today, else without seconds; the year when it is another. */
export function moment(ms) {
  if (ms === null || ms === undefined) return "never";
  const full = fullMoment(ms);
  const now = fullMoment(serverNow());
  if (full.slice(0, 10) === now.slice(0, 10)) return full.slice(11);
  return full.slice(full.slice(0, 4) === now.slice(0, 4) ? 5 : 0, 16);
}

/** How long ago, by the clock of the host that serves this page. */
export const age = (ms) => (ms === null || ms === undefined ? null : Math.max(0, serverNow() - ms));

/** @param {number|null|undefined} ms */
export const ago = (ms) => (ms === null || ms === undefined ? "never" : `${coarse(age(ms))} ago`);

/** Like `span`, in one unit: for lists, which shall not flicker. */
export function coarse(ms) {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400 * 2) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** A duration as it is typed (`30s`, `5m`, `1h30m`) in seconds; null when it is none. */
export function typedSeconds(text) {
  const typed = text.replaceAll(" ", "").replace("min", "m");
  const match = typed && /^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$/.exec(typed);
  if (!match) return null;
  const sizes = [86400, 3600, 60, 1];
  return sizes.reduce((sum, size, index) => sum + Number(match[index + 1] ?? 0) * size, 0);
}

/** A size as it is typed (`50MiB`, `2 GiB/s`, `50MB`) in bytes; null when it is none. */
export function typedBytes(text) {
  const match = /^(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?b)?|b)?(?:\/s)?$/i.exec(text.trim());
  if (!match) return null;
  const base = match[3]?.length === 1 ? 1000 : 1024;
  return Math.round(Number(match[1]) * base ** (match[2] ? "kmgt".indexOf(match[2].toLowerCase()) + 1 : 0));
}
