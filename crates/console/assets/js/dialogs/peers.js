// Pairing: a token is made on one host, and used on the other.

import { h } from "../dom.js";
import { button, command, facts } from "../parts.js";
import { notice } from "../notices.js";
import { refresh } from "../store.js";
import { fullMoment, typedSeconds } from "../words.js";
import { openChange } from "./dialog.js";
import { into, text, trimmed } from "./fields.js";

/** Makes a one-time token, and shows it once. */
export function invite() {
  const choice = { valid: "1h" };
  openChange({
    title: "Pair with a host",
    symbol: "link",
    go: "Make a Token",
    path: "peers/invite",
    intro:
      "Makes a one-time token. Whoever holds it may pair with this host once: hand it over as you would a password.",
    request: () => (typedSeconds(choice.valid) === null ? null : { valid_seconds: typedSeconds(choice.valid) }),
    fields: (again) =>
      text("It can be used for", choice.valid, into(choice, again)("valid"), {
        wrong: typedSeconds(choice.valid) === null && "a time such as 1h",
        class: "short",
      }),
    then: (made, dialog) =>
      dialog.become({
        title: "Pair with a host",
        symbol: "link",
        body: () => [
          h(
            "p",
            null,
            "On the other host, join with this token: in its console, or by the command. It is shown this once.",
          ),
          h("h3", null, "Token"),
          command(made.token),
          h("h3", null, "Command"),
          command(`virt-replica peer join ${made.token}`),
          facts([
            ["Made by", made.host],
            ["Ends", fullMoment(made.expires_at_ms)],
          ]),
        ],
        buttons: () => [
          h("span", { class: "spring" }),
          button("Close", () => dialog.close(), { kind: "primary" }),
        ],
      }),
  });
}

/** Uses a token of another host. */
export function join() {
  const choice = { token: "", address: "" };
  openChange({
    title: "Join with a token",
    symbol: "key",
    go: "Pair",
    path: "peers/join",
    intro: "Uses the token that the other host has made. Both hosts pin each other's certificate.",
    request: () => (choice.token ? { token: choice.token, address: choice.address || null } : null),
    fields: (again) => [
      text("Token", choice.token, into(choice, again)("token", trimmed), {
        hint: "What “Pair with a Host…” or virt-replica peer invite has shown there.",
      }),
      text("Address", choice.address, into(choice, again)("address", trimmed), {
        hint: "HOST or HOST:PORT, when the one in the token does not lead there from here.",
      }),
    ],
    then: (peer, dialog) => {
      dialog.close();
      notice(`Paired with ${peer.name}`);
      refresh();
    },
  });
}
