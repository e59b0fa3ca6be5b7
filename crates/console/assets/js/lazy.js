// Parts of the console that the first page does without: they are fetched when they are first shown.

import { repaint } from "./store.js";

const AGAIN_MS = 2_000;
/** By what fetches it; null while it is on its way. */
const modules = new Map();

/** The module that `load` fetches, or null until it is there; then everything is painted again. */
export function lazy(load) {
  if (!modules.has(load)) {
    modules.set(load, null);
    fetchIt(load);
  }
  return modules.get(load);
}

async function fetchIt(load) {
  try {
    modules.set(load, await load());
    repaint();
  } catch {
    setTimeout(() => again(load), AGAIN_MS);
  }
}

/** The daemon is restarting; or it is another version now, which has none of this page's files. */
async function again(load) {
  const own = await fetch(import.meta.url, { cache: "no-store" }).catch(() => null);
  if (own?.status === 404) location.reload();
  else fetchIt(load);
}
