// The REST API, as the command line uses it too. Reads are asked with the tag of the last answer, so an unchanged list costs
// one line; changes carry the session's token, and those of a relationship what state they were decided upon.

/** What went wrong: title and detail for people, the cure to type, and the checks that refused. */
export class Problem extends Error {
  constructor({ code = "failed", title, detail = "", cure = null, checks = [] }, status = 0) {
    super(title);
    Object.assign(this, { code, title, detail, cure, checks, status });
  }
}

const BASE = "/api/v1/";
/** Longest wait for an answer: checks ask the peer and the hypervisor, each with its own shorter limit. */
const WAIT_MS_MAX = 120_000;
/** The last answer to each path: its tag, its body, where the list goes on. */
const known = new Map();
let csrf = "";
let clockAhead = 0;
/** Told what every answer says of the link and of the session. */
let listener = { answered() {}, silent() {}, signedOut() {} };

export const listen = (to) => {
  listener = to;
};
export const useToken = (token) => {
  csrf = token;
};
/** The clock of the host that serves this page. */
export const serverNow = () => Date.now() + clockAhead;
/** Forgets every answer: another user may not see them. */
export const forget = () => known.clear();

/** Reads `path`; an unchanged answer is the same object as before. */
export const get = async (path) => (await page(path)).body;

/** Most pages of a list; a peer could go on for ever. */
const PAGES_MAX = 20;
/** Entries at the beginning of a long list: about what a screen shows, and told long before the rest. */
const BEGINNING = 25;

/** Reads the beginning of a list; `whole`: there is no more. */
export async function getBeginning(path) {
  const { body, next } = await page(`${path}?limit=${BEGINNING}`);
  return { body, whole: !next };
}

/** Reads all pages of a list. */
export async function getAll(path, pages = PAGES_MAX) {
  const first = await page(path);
  if (!first.next) return first.body;
  if (pages === 1)
    throw new Problem({ title: "A list without end", detail: `${path} goes on after ${PAGES_MAX} pages.` });
  const rest = await getAll(first.next, pages - 1);
  if (first.whole?.rest !== rest) first.whole = { rest, body: [...first.body, ...rest] };
  return first.whole.body;
}

/** One page, as it is known from its last reading when it has not changed since. */
async function page(path) {
  const last = known.get(path);
  const response = await send("GET", BASE + path, undefined, last?.tag ? { "If-None-Match": last.tag } : {});
  if (response.status === 304) return last;
  const next = /<\/api\/v1\/([^>]+)>;\s*rel="next"/.exec(response.headers.get("Link"))?.[1];
  const read = { tag: response.headers.get("ETag"), body: await decoded(response), next, whole: null };
  known.set(path, read);
  return read;
}

/** What a change would do: its plan. A change that is made already has none. */
export async function plan(path, body) {
  const answer = await decoded(await send("POST", `${BASE + path}?dry_run=true`, body));
  return answer.planned ?? { summary: ["This is done already."], checks: [] };
}

/** Makes a change; with the revision that the user saw, only while the relationship is still that. */
export async function change(path, body, revision) {
  const answer = await decoded(
    await send("POST", BASE + path, body, revision ? { "If-Match": `"${revision}"` } : {}),
  );
  return answer.done ?? answer;
}

/** Anything else of this host: the session. */
export async function call(method, path, body) {
  const response = await send(method, path, body);
  return response.status === 204 ? null : decoded(response);
}

async function send(method, path, body, headers = {}) {
  if (method !== "GET") headers["X-CSRF-Token"] = csrf;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(WAIT_MS_MAX),
      cache: "no-store",
    });
  } catch (failure) {
    if (failure.name === "TimeoutError") {
      throw new Problem({
        code: "failed",
        title: "No answer in time",
        detail: `${path} was not answered within ${WAIT_MS_MAX / 1000} s.`,
        cure: "journalctl -u virtreplicad",
      });
    }
    listener.silent();
    throw new Problem({
      code: "unreachable",
      title: "The daemon does not answer",
      detail: "It may be restarting. This page connects again by itself.",
      cure: "systemctl status virtreplicad",
    });
  }
  const date = Date.parse(response.headers.get("Date"));
  if (!Number.isNaN(date) && Math.abs(date - serverNow()) > 1500) clockAhead = date - Date.now();
  listener.answered();
  return response;
}

async function decoded(response) {
  const text = await response.text();
  let body;
  try {
    body = text ? JSON.parse(text) : {};
  } catch {
    body = { title: `HTTP ${response.status}`, detail: text.slice(0, 500) };
  }
  if (response.ok) return body;
  if (response.status === 401 && !response.url.endsWith("/session")) listener.signedOut();
  throw new Problem({ title: `HTTP ${response.status}`, ...body }, response.status);
}
