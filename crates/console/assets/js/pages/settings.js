// Settings: the room of this host, and that of the hosts it is paired with.

import { h } from "../dom.js";
import { perform, hostActions } from "../actions.js";
import { notice } from "../notices.js";
import { button, checks, empty, facts, icon, loading, pageCard, problem, shown } from "../parts.js";
import { mayDo } from "../session.js";
import { refresh, repaint, use } from "../store.js";
import { ago, bytes, fullMoment, typedBytes, typedLimit } from "../words.js";
import { hosts } from "../world.js";
import { authorizationRoom } from "./authorization.js";
import { allEvents } from "../tabs/events.js";
import { openChange } from "../dialogs/dialog.js";
import { into, text, trimmed } from "../dialogs/fields.js";

const ROOMS = {
  host: ["This host", hostRoom],
  peers: ["Peers", peersRoom],
  authorization: ["Authorization", authorizationRoom],
  events: ["Events", () => h("div", { class: "card" }, allEvents())],
};

export function page(route) {
  const [title, room] = ROOMS[route.room] ?? ROOMS.host;
  return h(
    "div",
    { class: "settings", key: title },
    h("h1", null, title, h("span", { class: "of" }, hosts()[0].name)),
    room(),
  );
}

/** Its actions stand on the page itself. */
export const pane = () => [];

const host = () => hosts()[0];

function hostRoom() {
  return shown(
    use("host"),
    (view) => [
      h(
        "div",
        { class: "cards" },
        pageCard(
          "This host",
          facts([
            ["Name", view.name],
            ["Version", view.version],
            ["Hypervisor", view.hypervisor ?? "unknown"],
            ["Replication listens at", view.listen],
            ["Primary of", view.primaries],
            ["Replica of", view.replicas],
            ["Certificate ends", fullMoment(view.certificate_expires_at_ms)],
            ["Fingerprint", h("code", null, view.fingerprint)],
            ["Id", h("code", null, view.id)],
          ]),
          mayDo("administrator") && button("New Certificate…", rotate, { symbol: "key" }),
        ),
        pageCard(
          "Storage and traffic",
          facts([
            ["Replicas are kept in", h("code", null, view.storage)],
            ["Free there", bytes(view.storage_free_bytes)],
            [
              "Limit of all traffic",
              view.rate_limit_bytes_per_second ? `${bytes(view.rate_limit_bytes_per_second)}/s` : "none",
            ],
          ]),
          mayDo("administrator") && button("Change the Limit…", () => limit(view), { symbol: "settings" }),
        ),
      ),
      pageCard(
        "Everything that replication needs here",
        shown(use("host/check"), checks, () => refresh()),
      ),
    ],
    () => refresh(),
  );
}

const rotate = () =>
  openChange({ title: "New certificate of this host", symbol: "key", go: "Replace", path: "peers/rotate" });

function limit(view) {
  const choice = { typed: typedLimit(view.rate_limit_bytes_per_second) };
  const wrong = () => choice.typed !== "" && typedBytes(choice.typed) === null;
  openChange({
    title: "Limit of all replication traffic",
    symbol: "settings",
    go: "Apply",
    path: "host",
    request: () =>
      wrong()
        ? null
        : { rate_limit: choice.typed === "" ? "unlimited" : { "bytes-per-second": typedBytes(choice.typed) } },
    fields: (again) =>
      text("Limit", choice.typed, into(choice, again)("typed", trimmed), {
        hint: "Such as 100MiB/s. Empty: none.",
        wrong: wrong() && "a size such as 100MiB/s",
        class: "short",
      }),
    then: (_, dialog) => {
      dialog.close();
      notice("The limit is changed");
      refresh();
    },
  });
}

/** Peers that are being tested now, by name. */
const tested = new Set();

function peersRoom() {
  const [invite, join] = hostActions(host());
  const buttons = h(
    "div",
    { class: "buttons", key: "buttons" },
    [invite, join].map((action) =>
      button(action.label, () => perform(action), {
        symbol: action.symbol,
        disabled: action.reason !== null,
        title: action.reason,
        key: action.id,
      }),
    ),
  );
  return shown(
    use("peers"),
    (peers) => [
      buttons,
      peers.length === 0
        ? empty(
            "link",
            "This host is paired with no other",
            "Pairing is two steps: make a token on one host, join with it on the other.",
          )
        : h("div", { class: "cards" }, peers.map(peerCard)),
    ],
    () => refresh(),
  );
}

function peerCard(peer) {
  const seen = hosts().find((one) => one.peer?.id === peer.id)?.seen;
  return h(
    "section",
    { class: "card", key: peer.id },
    h(
      "h2",
      null,
      icon("host"),
      peer.name,
      h("span", { class: `seen ${seen ? "yes" : "no"}` }, seen ? "answers" : "unknown"),
    ),
    facts([
      ["Address", peer.address],
      ["Last answered", peer.last_seen_at_ms ? ago(peer.last_seen_at_ms) : "never since this daemon started"],
      ["Relationships", peer.relationships],
      ["Certificate ends", fullMoment(peer.certificate_expires_at_ms)],
      ["Fingerprint", h("code", null, peer.fingerprint)],
    ]),
    tested.has(peer.name) && testOf(peer),
    h(
      "div",
      { class: "buttons" },
      button(
        "Test connection",
        () => {
          tested.add(peer.name);
          refresh((path) => path === testPath(peer));
          repaint();
        },
        { symbol: "resync" },
      ),
      mayDo("administrator") &&
        button(
          "Remove…",
          () =>
            openChange({
              title: `No longer trust ${peer.name}`,
              symbol: "remove",
              go: "Remove",
              danger: true,
              path: `peers/${encodeURIComponent(peer.id)}/remove`,
            }),
          { symbol: "remove", kind: "danger" },
        ),
    ),
  );
}

const testPath = (peer) => `peers/${encodeURIComponent(peer.id)}/test`;
const testOf = (peer) => {
  const answer = use(testPath(peer));
  return answer.value ? checks(answer.value) : answer.problem ? problem(answer.problem) : loading(3);
};
