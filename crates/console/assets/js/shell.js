// The frame of every page: the bar above, hosts at the left, what can be done at the right, and the word on the daemon.

import { h } from "./dom.js";
import { perform } from "./actions.js";
import { link } from "./live.js";
import { notice } from "./notices.js";
import { icon, iconButton } from "./parts.js";
import { address } from "./route.js";
import { session, signOut } from "./session.js";
import { nextTheme, theme } from "./theme.js";
import { coarse, span } from "./words.js";
import { serverNow } from "./api.js";
import { hosts, openOperations, vmsOf } from "./world.js";
import { repaint } from "./store.js";

const WORST = ["critical", "unknown", "warning"];
const ENDS_SOON_MS = 10 * 60_000;
let navOpen = false;

/** The whole page around `content`; `pane`: lists of actions with their titles. */
export function shell(route, content, pane) {
  return h(
    "div",
    { class: "shell" },
    h("a", { class: "skip", href: "#content" }, "To the content"),
    topBar(),
    banner(),
    ending(),
    h(
      "div",
      { class: `columns ${pane.length ? "with-pane" : ""}` },
      navigation(route),
      h("main", { id: "content", tabindex: "0" }, content),
      pane.length > 0 && actionsPane(pane),
    ),
  );
}

function topBar() {
  const themes = { auto: "auto", light: "sun", dark: "moon" };
  return h(
    "header",
    { class: "top" },
    iconButton(
      "Hosts",
      "menu",
      () => {
        navOpen = !navOpen;
        repaint();
      },
      { class: "icon-button nav-switch", "aria-expanded": String(navOpen) },
    ),
    h(
      "a",
      { href: "/", class: "brand" },
      h("img", { src: new URL("../mark.svg", import.meta.url).href, alt: "", width: 24, height: 24 }),
      "virt-replica",
    ),
    h("span", { class: "here" }, session.who.host),
    h("span", { class: "spring" }),
    h(
      "span",
      { class: `link ${link.state}`, role: "status" },
      icon("dot"),
      link.state === "live" ? "Live" : "Reconnecting",
    ),
    iconButton(`Theme: ${theme()}`, themes[theme()], () => {
      nextTheme();
      repaint();
    }),
    h(
      "span",
      { class: "who" },
      icon("user"),
      h("span", null, h("strong", null, session.who.user), h("small", null, session.who.role)),
    ),
    iconButton("Sign out", "sign-out", () => signOut().catch((problem) => notice(problem.detail, "failed"))),
  );
}

function banner() {
  if (link.state === "live") return null;
  return h(
    "div",
    { class: "banner restarting", role: "alert" },
    icon("resync", "spin"),
    h(
      "p",
      null,
      h("strong", null, `The daemon of ${session.who.host} does not answer. `),
      "It may be restarting: handovers go on by themselves. What you see is from before; this page connects again by itself.",
    ),
    link.since > 0 && h("span", { class: "since" }, span(Date.now() - link.since)),
  );
}

/** A session ends after twelve hours, whatever its person is doing. */
function ending() {
  const left = session.who.ends_ms - serverNow();
  if (!(left < ENDS_SOON_MS)) return null;
  return h(
    "div",
    { class: "banner ending", role: "status", key: "ending" },
    icon("info"),
    h("p", null, `This session ends in ${coarse(Math.max(0, left))}: sign out and in again when it suits.`),
  );
}

function navigation(route) {
  const entry = (path, active, symbol, label, mark) =>
    h(
      "a",
      {
        href: path,
        key: path,
        class: "nav-item",
        "aria-current": active ? "page" : null,
        onClick: () => {
          navOpen = false;
        },
      },
      icon(symbol),
      h("span", { class: "label" }, label),
      mark,
    );
  const open = openOperations().length;
  return h(
    "nav",
    { class: navOpen ? "open" : "", "aria-label": "Hosts" },
    entry(
      "/",
      route.page === "overview",
      "overview",
      "Overview",
      open > 0 && h("span", { class: "count busy", title: "Operations under way" }, open),
    ),
    h("h2", null, "Hosts"),
    hosts().map((host) =>
      entry(
        address("hosts", host.name),
        route.page === "vms" && route.host === host.name,
        "host",
        host.name,
        mark(host),
      ),
    ),
    h("h2", null, "Settings"),
    entry(
      address("settings", "host"),
      route.page === "settings" && route.room === "host",
      "settings",
      "This host",
    ),
    entry(address("settings", "peers"), route.page === "settings" && route.room === "peers", "link", "Peers"),
    entry(
      address("settings", "authorization"),
      route.page === "settings" && route.room === "authorization",
      "key",
      "Authorization",
    ),
    entry(
      address("settings", "events"),
      route.page === "settings" && route.room === "events",
      "info",
      "Events",
    ),
  );
}

/** What a host's line says at a glance. */
function mark(host) {
  if (!host.known) return null;
  if (!host.seen)
    return h(
      "span",
      { class: "health unknown", title: "Does not answer" },
      icon("unknown"),
      h("span", { class: "sr" }, "does not answer"),
    );
  const vms = vmsOf(host) ?? [];
  const worst = WORST.find((value) => vms.some((vm) => vm.health === value));
  return (
    worst &&
    h(
      "span",
      { class: `health ${worst}`, title: `Worst health: ${worst}` },
      icon(worst),
      h("span", { class: "sr" }, worst),
    )
  );
}

function actionsPane(pane) {
  return h(
    "aside",
    { class: "actions", "aria-label": "Actions" },
    h("h2", { class: "pane-title" }, "Actions"),
    pane.map(([title, actions]) =>
      h(
        "section",
        { key: title },
        h("h3", null, title),
        h(
          "ul",
          null,
          actions.map((action) =>
            h(
              "li",
              { key: action.id, class: action.divided ? "divided" : null },
              h(
                "button",
                {
                  type: "button",
                  class: "action",
                  "aria-disabled": action.reason ? "true" : null,
                  title: action.reason,
                  onClick: () => (action.reason ? notice(`${action.label} ${action.reason}`) : perform(action)),
                },
                icon(action.symbol),
                h("span", null, action.label, action.reason && h("small", null, action.reason)),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}
