// The daemon's own word on what has changed, and whether the daemon is there at all. When it restarts, the page stays as
// it is, says so, and goes on by itself.

import { listen } from "./api.js";
import { refresh, repaint, touched } from "./store.js";

const AGAIN_MS = 1_500;
/** What changed between the first answers and the first word is asked for when the first page is there. */
const SETTLED_MS = 2_000;

/** "live", "lost": shown in the banner. `since`: when it was lost. */
export const link = { state: "live", since: 0 };
let source = null;
let onSignedOut = () => {};

/** Watches the daemon; `signedOut` is called when the session is over. */
export function begin(signedOut) {
  onSignedOut = signedOut;
  listen({ answered: found, silent: lost, signedOut });
  connect(() => setTimeout(refresh, SETTLED_MS));
  // A browser has six connections to a host: pages that nobody looks at hold none.
  document.onvisibilitychange = () => (document.hidden ? end() : connect());
}

/** Stops to listen. */
function end() {
  source?.close();
  source = null;
}

/** Nobody is signed in any more. */
export function leave() {
  document.onvisibilitychange = null;
  end();
}

function connect(opened = () => refresh()) {
  end();
  source = new EventSource("/api/v1/changes");
  const mine = source;
  source.addEventListener("open", () => {
    found();
    opened();
  });
  source.addEventListener("change", (event) => touched(JSON.parse(event.data).what));
  source.addEventListener("error", () => {
    if (mine !== source) return;
    end();
    again();
  });
}

/** Tries again soon, unless somebody has connected, signed out or looked away until then. */
function again() {
  setTimeout(() => {
    if (!source && document.onvisibilitychange && !document.hidden) probe();
  }, AGAIN_MS);
}

/** An event stream does not say why it failed; a request does. */
async function probe() {
  try {
    const response = await fetch("/session", { cache: "no-store" });
    if (response.status === 401) return onSignedOut();
    found();
    return connect();
  } catch {
    lost();
    again();
  }
}

function found() {
  if (link.state === "live") return;
  link.state = "live";
  refresh();
  repaint();
}

function lost() {
  if (link.state === "lost") return;
  Object.assign(link, { state: "lost", since: Date.now() });
  if (source) {
    end();
    again();
  }
  repaint();
}
