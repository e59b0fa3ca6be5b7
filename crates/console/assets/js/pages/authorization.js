// Who may do what, who is in, which hosts may replicate here, and who did what.

import { h } from "../dom.js";
import { openChange } from "../dialogs/dialog.js";
import { button, icon, pageCard, shown } from "../parts.js";
import { mayDo, session } from "../session.js";
import { refresh, use } from "../store.js";
import { fullMoment } from "../words.js";

const ROLES = [
  ["Viewer", "Looks, and changes nothing."],
  ["Operator", "Changes the replication of VMs: enable, pause, failovers, recovery points, tests."],
  ["Administrator", "Changes the host as well: its limits and its peers; ends relationships, and uses force."],
];

/** The room in settings. */
export function authorizationRoom() {
  return [
    pageCard(
      "Roles",
      h(
        "p",
        { class: "quiet" },
        "A role comes from the groups of a system account, as ",
        h("code", null, "[roles]"),
        " in the host's configuration names them.",
      ),
      h(
        "ul",
        { class: "rows" },
        ROLES.map(([name, words]) =>
          h(
            "li",
            { key: name },
            icon("user"),
            h("span", { class: "grow" }, name, h("small", null, words), groups(name.toLowerCase())),
            name.toLowerCase() === session.who.role && h("span", { class: "tag" }, "you"),
          ),
        ),
      ),
    ),
    pageCard(
      "Who may replicate to this host",
      h(
        "p",
        { class: "quiet" },
        "Hosts that are paired with this one, and no other. Each may touch only what it is the primary of.",
      ),
      shown(use("peers"), (peers) =>
        peers.length === 0
          ? h("p", null, "None.")
          : h(
              "ul",
              { class: "rows" },
              peers.map((peer) =>
                h(
                  "li",
                  { key: peer.id },
                  icon("host"),
                  h("span", { class: "grow" }, peer.name, h("small", null, peer.fingerprint)),
                ),
              ),
            ),
      ),
    ),
    mayDo("administrator") &&
      pageCard(
        "Signed in",
        shown(use("console/sessions"), signedIn, () => refresh()),
      ),
    mayDo("administrator") &&
      pageCard(
        "Audit",
        shown(use("audit"), audit, () => refresh()),
      ),
  ];
}

/** Whose members have this role on the host that serves this page. */
function groups(role) {
  const found = use("console/roles").value?.find((one) => one.role === role)?.groups;
  if (!found) return null;
  return h(
    "small",
    null,
    found.length === 0 ? "No group has it." : "Members of ",
    found.map((name, index) => [index > 0 && ", ", h("code", { key: name }, name)]),
  );
}

const signedIn = (sessions) =>
  h(
    "ul",
    { class: "rows" },
    sessions.map((one) =>
      h(
        "li",
        { key: `${one.user} ${one.begun_at_ms} ${one.from}` },
        icon("user"),
        h(
          "span",
          { class: "grow" },
          one.user,
          h("small", null, `${one.role}, from ${one.from}, since ${fullMoment(one.begun_at_ms)}`),
        ),
        one.by_link && h("span", { class: "tag" }, "by root's link"),
        button("Sign Out…", () => signOut(one.user), { symbol: "sign-out" }),
      ),
    ),
  );

const signOut = (user) =>
  openChange({
    title: `Sign ${user} out`,
    symbol: "sign-out",
    go: "Sign Out",
    path: "console/sessions/end",
    request: () => ({ user }),
  });

const audit = (records) =>
  records.length === 0
    ? h("p", { class: "quiet" }, "No command was given yet.")
    : h(
        "table",
        { class: "plain" },
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            ["Moment", "Who", "From", "Role", "Command", "Of what", "Result"].map((name) =>
              h("th", { scope: "col" }, name),
            ),
          ),
        ),
        h(
          "tbody",
          null,
          [...records]
            .sort((one, two) => two.sequence - one.sequence)
            .map((record) =>
              h(
                "tr",
                { key: record.sequence },
                h("td", null, fullMoment(record.at_ms)),
                h("td", null, record.who),
                h("td", null, record.from ?? "this host"),
                h("td", null, record.role ?? "nobody's"),
                h("td", null, record.verb),
                h("td", null, record.target ?? ""),
                h(
                  "td",
                  null,
                  h("span", { class: record.result === "accepted" ? "good" : "late" }, record.result),
                  record.detail && h("small", null, ` ${record.detail}`),
                ),
              ),
            ),
        ),
      );
