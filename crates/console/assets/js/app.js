// Where it begins: takes up the session, then shows the page that the address names, whenever anything changes.

import { paint } from "./dom.js";
import { fetchWindows, follow } from "./actions.js";
import { lazy } from "./lazy.js";
import { announce } from "./notices.js";
import { loading } from "./parts.js";
import { address, current, followLinks } from "./route.js";
import { resume, session } from "./session.js";
import { shell } from "./shell.js";
import { keepFresh, repaint, use, watch } from "./store.js";
import { applyTheme } from "./theme.js";

const PAGES = {
  overview: () => import("./pages/overview.js"),
  vms: () => import("./pages/vms.js"),
  settings: () => import("./pages/settings.js"),
};
/** What every page asks for. */
const EVERYWHERE = ["host", "peers", "relationships", "vms"];
const SIGN_IN = () => import("./pages/sign-in.js");
/** Ages on the page grow. */
const TICK_MS = 1_000;
/** When the first page is there, and nothing else is done. */
const WINDOWS_AFTER_MS = 3_000;

/** The page that stands there; another tab or VM of a list is no other page. */
let stands = null;
/** Another page was gone to: whoever works by keyboard or hears the page goes on at its heading. */
let arriving = false;

function show() {
  const place = document.getElementById("app");
  if (session.who === undefined) return;
  if (session.who === null) {
    stands = "sign-in";
    document.title = "Sign in · virt-replica";
    return paint(place, lazy(SIGN_IN)?.page() ?? loading());
  }
  const route = current();
  const page = lazy(PAGES[route.page]);
  const names = [route.vm && route.tab, route.host ?? route.room ?? "Overview", "virt-replica"];
  const title = names.filter(Boolean).join(" · ");
  const here = address(route.page, route.host, route.room);
  if (stands !== null && stands !== here) arriving = true;
  else if (stands !== null && document.title !== title) announce(title);
  stands = here;
  document.title = title;
  paint(place, shell(route, page?.page(route) ?? loading(), page?.pane(route) ?? []));
  if (arriving) arrive();
}

/** As soon as the heading is there, and unless a window lies over it. */
function arrive() {
  const heading = document.querySelector("#content h1");
  if (!heading) return;
  arriving = false;
  if (document.querySelector("dialog[open]")) return;
  heading.tabIndex = -1;
  heading.focus();
}

applyTheme();
followLinks();
watch(show);
addEventListener("popstate", repaint);
setInterval(() => document.hidden || repaint(), TICK_MS);
keepFresh();
// All on its way at once: the page, what every page shows, and who is there. When nobody is, none of it is shown.
lazy(PAGES[current().page]);
if (!location.hash) EVERYWHERE.forEach(use); // a one-time link has no session yet
await resume();
repaint();
// A one-time link that is opened in a page that is there already.
addEventListener("hashchange", () => location.hash && resume());
const operation = new URLSearchParams(location.search).get("operation");
if (session.who && operation) follow(operation);
setTimeout(() => requestIdleCallback(fetchWindows), WINDOWS_AFTER_MS);
