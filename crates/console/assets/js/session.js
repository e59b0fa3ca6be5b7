// Who sits in front of the page. Roles are enforced by the daemon; the page only greys what it would refuse.

import { call, forget, useToken } from "./api.js";
import * as live from "./live.js";
import { clear, repaint } from "./store.js";

const RANKS = ["viewer", "operator", "administrator"];

/**
 * `who`: `{user, role, host}`; null: nobody is signed in; undefined: not known yet.
 * `why`: what the sign-in page says above its fields.
 */
export const session = { who: undefined, why: null };

/** Takes up the session of this browser, or the one-time link in the address. */
export async function resume() {
  const token = new URLSearchParams(location.hash.slice(1)).get("link");
  if (token) history.replaceState(null, "", location.pathname);
  try {
    entered(token ? await call("POST", "/session", { token }) : await call("GET", "/session"));
  } catch (problem) {
    left(token || problem.status !== 401 ? problem : null);
  }
}

/** Signs in; the problem is thrown to the form. */
export async function signIn(user, password) {
  entered(await call("POST", "/session", { user, password }));
}

export async function signOut() {
  await call("DELETE", "/session");
  left({ title: "Signed out", detail: "Nothing of this session is kept in this browser." });
}

/** Whether the user's role is at least this one. */
export const mayDo = (role) => RANKS.indexOf(session.who?.role) >= RANKS.indexOf(role);

function entered(who) {
  useToken(who.csrf);
  Object.assign(session, { who, why: null });
  live.begin(
    () =>
      session.who &&
      left({ title: "Your session has ended", detail: "Sign in again; the page is where you left it." }),
  );
  repaint();
}

function left(why) {
  // A window would lie over the sign-in page, and go on showing what was for somebody else.
  for (const window of document.querySelectorAll("dialog[open]")) window.close();
  document.getElementById("menu").hidePopover();
  live.leave();
  forget();
  Object.assign(session, { who: null, why });
  clear();
}
