// Where it begins: takes up the session, then shows the page that the address names, whenever anything changes.

import { paint } from "./dom.js";
import { fetchWindows, follow } from "./actions.js";
import { overviewPage, overviewPane } from "./pages/overview.js";
import { settingsPage } from "./pages/settings.js";
import { signInPage } from "./pages/sign-in.js";
import { vmsPage, vmsPane } from "./pages/vms.js";
import { current, followLinks } from "./route.js";
import { resume, session } from "./session.js";
import { shell } from "./shell.js";
import { keepFresh, repaint, watch } from "./store.js";
import { applyTheme } from "./theme.js";

const PAGES = {
  overview: [overviewPage, overviewPane],
  vms: [vmsPage, vmsPane],
  settings: [settingsPage, () => []],
};
/** Ages on the page grow. */
const TICK_MS = 1_000;

function show() {
  const place = document.getElementById("app");
  if (session.who === undefined) return;
  if (session.who === null) {
    document.title = "Sign in · virt-replica";
    return paint(place, signInPage());
  }
  const route = current();
  const [page, pane] = PAGES[route.page];
  document.title = [
    route.tab && route.vm ? route.tab : null,
    route.host ?? route.room ?? "Overview",
    "virt-replica",
  ]
    .filter(Boolean)
    .join(" · ");
  paint(place, shell(route, page(route), pane(route)));
}

applyTheme();
followLinks();
watch(show);
addEventListener("popstate", repaint);
setInterval(() => document.hidden || repaint(), TICK_MS);
keepFresh();
await resume();
repaint();
const operation = new URLSearchParams(location.search).get("operation");
if (session.who && operation) follow(operation);
requestIdleCallback(fetchWindows);
