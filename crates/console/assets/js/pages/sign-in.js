// The page for people who are not signed in, or not any more.

import { h } from "../dom.js";
import { cure, icon } from "../parts.js";
import { session, signIn } from "../session.js";
import { repaint } from "../store.js";

/** Of the form: what went wrong last, and whether an answer is awaited. */
const form = { problem: null, waiting: false };

export function page() {
  const said = form.problem ?? session.why;
  return h(
    "main",
    { class: "sign-in" },
    h(
      "form",
      { class: "sign-in-card", onSubmit: submit, "aria-label": "Sign in" },
      h("img", { src: new URL("../../mark.svg", import.meta.url).href, alt: "", width: 48, height: 48 }),
      h("h1", null, "virt-replica"),
      h("p", { class: "quiet" }, "Replication console of ", h("strong", null, location.hostname)),
      said &&
        h(
          "div",
          { class: `said ${form.problem ? "failed" : ""}`, role: "alert" },
          icon(form.problem ? "critical" : "info"),
          h(
            "div",
            null,
            h("strong", null, said.title),
            said.detail && h("p", null, said.detail),
            cure(said.cure),
          ),
        ),
      h(
        "label",
        null,
        "User name",
        h("input", {
          name: "user",
          autocomplete: "username",
          required: true,
          autocapitalize: "none",
          spellcheck: "false",
          ref: (field) => setTimeout(() => field.focus()),
        }),
      ),
      h(
        "label",
        null,
        "Password",
        h("input", { name: "password", type: "password", autocomplete: "current-password", required: true }),
      ),
      h(
        "button",
        { class: "button primary", disabled: form.waiting },
        form.waiting ? "Signing in…" : "Sign in",
      ),
      h(
        "p",
        { class: "small quiet" },
        "With your account of this host. The first time, as root on the host: ",
        h("code", null, "virt-replica console link"),
      ),
    ),
  );
}

async function submit(event) {
  event.preventDefault();
  const { user, password } = event.target.elements;
  Object.assign(form, { waiting: true, problem: null });
  repaint();
  try {
    await signIn(user.value, password.value);
  } catch (problem) {
    form.problem = problem;
    password.value = "";
    password.focus();
  }
  form.waiting = false;
  repaint();
}
