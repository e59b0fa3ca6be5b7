// What is known of both hosts. A view names the answers it shows with `use`; the store fetches them, and again whenever the
// daemon says that they have changed. Nothing here knows what an answer means.

import { get, getAll, getBeginning, serverNow } from "./api.js";

/**
 * `at`: when the value was read. With a problem, the value is that of before: it is shown as old.
 * `beginning`: of a list of which nothing was known, until all of it is there.
 * @typedef {{path: string, value: *, beginning: object[]|null, at: number, problem: import("./api.js").Problem|null, loading: boolean, stale: boolean}} Answer
 */

/** Which answers a change of this kind touches. */
const TOUCHES = {
  relationships: /^relationships/,
  operations: /^(operations|relationships)/,
  events: /^events/,
  "test-failovers": /^(test-failovers|relationships|vms)/,
  points: /^relationships/,
  peers: /^(peers$|vms)/,
  host: /^host/,
  vms: /^vms/,
};
/** Lists that are shown whole. Others show their newest page. */
const WHOLE = /(^|\/)(vms|relationships)$/;
/** The other hosts tell no changes here; they are asked. */
const PEERS_EVERY_MS = 5_000;
/** A browser has six connections to a host, and a peer that is silent would hold one of them for each list. */
const PEERS_AT_ONCE = 2;
/** In case that a change was told to nobody. */
const ALL_EVERY_MS = 60_000;
/** So long after its address was entered a page waits for the first rows of its lists before it is painted. */
const ROWS_MS_MAX = 400;
/** Longest wait of the rest of a list for the first rows of all. */
const REST_MS_MAX = 500;

/** @type {Map<string, Answer & {used: number}>} */
const answers = new Map();
const watchers = new Set();
let painting = 0;
let frame = 0;
let late = 0;

/** The answer to a path, now or as soon as it is there. */
export function use(path) {
  let answer = answers.get(path);
  if (!answer) {
    answer = {
      path,
      value: undefined,
      beginning: null,
      at: 0,
      problem: null,
      loading: false,
      stale: false,
      used: painting,
    };
    answers.set(path, answer);
    load(answer);
  }
  answer.used = painting;
  return answer;
}

/** Beginnings of this host's lists that are on their way. */
const beginnings = new Set();

/** Runs `paint` soon after each change, at most once a frame. */
export function watch(paint) {
  watchers.add(paint);
  return () => watchers.delete(paint);
}

/** Something that is shown has changed. */
export function repaint() {
  const early = ROWS_MS_MAX - performance.now();
  // To paint a page without its rows takes as long as they do; whichever comes last paints all of it.
  if (beginnings.size && early > 0) {
    late ||= setTimeout(() => {
      late = 0;
      repaint();
    }, Math.ceil(early));
    return;
  }
  clearTimeout(late);
  late = 0;
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    painting += 1;
    for (const paint of watchers) paint();
  });
}

/** The daemon says that something of this kind has changed. What its peers show is no news of its own. */
export const touched = (what) => refresh((path) => TOUCHES[what]?.test(path));

/** Asks again for all that is shown and that `which` names. */
export function refresh(which = () => true) {
  for (const answer of answers.values()) {
    if (answer.used < painting - 1)
      answers.delete(answer.path); // no view shows it any more
    else if (which(answer.path)) load(answer);
  }
}

/** Forgets everything: another user has signed in, or none. */
export function clear() {
  answers.clear();
  repaint();
}

/** Begins to ask by the clock for what nobody announces. */
export function keepFresh() {
  setInterval(() => document.hidden || refresh((path) => path.startsWith("peers/")), PEERS_EVERY_MS);
  setInterval(() => document.hidden || refresh(), ALL_EVERY_MS);
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
}

const waiting = [];
let turns = PEERS_AT_ONCE;

/** Waits until fewer ask for what peers show. */
const turn = () => (turns > 0 ? void turns-- : new Promise((go) => waiting.push(go)));

function turnOver() {
  const next = waiting.shift();
  if (next) next();
  else turns++;
}

/** All of a list; while nothing of it is known, its beginning is shown first. */
async function list(answer) {
  if (answer.value === undefined && !answer.beginning) {
    const asked = getBeginning(answer.path);
    const own = !answer.path.startsWith("peers/");
    if (own) beginnings.add(asked);
    const { body, whole } = await asked.finally(() => beginnings.delete(asked));
    if (whole) return body;
    answer.beginning = body;
    repaint();
    // Long lists keep the host and this page busy: whoever waits sees the first rows before that, if they come soon.
    await Promise.race([Promise.allSettled(beginnings).then(painted), pause(REST_MS_MAX)]);
  }
  return getAll(answer.path);
}

/** When the next frame stands on the screen: never on a page that is hidden. */
const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function load(answer) {
  if (answer.loading) {
    answer.stale = true; // it changed while it was on its way: ask once more
    return;
  }
  answer.loading = true;
  const before = { value: answer.value, problem: answer.problem };
  const ofPeer = answer.path.startsWith("peers/");
  try {
    if (ofPeer) await turn();
    answer.value = await (WHOLE.test(answer.path) ? list(answer) : get(answer.path));
    Object.assign(answer, { problem: null, beginning: null, at: serverNow() });
  } catch (problem) {
    answer.problem = problem;
  }
  answer.loading = false;
  if (ofPeer) turnOver();
  if (answer.value !== before.value || answer.problem?.detail !== before.problem?.detail) repaint();
  if (answer.stale) {
    answer.stale = false;
    load(answer);
  }
}
