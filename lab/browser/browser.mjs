// Real browsers in the lab, beside both hosts: signing in, pictures, accessibility, and the way to ask the lab for what a browser
// cannot do. Speaks to the case that has started it in lines: `LAB words` asks, one line answers.

import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import { basename } from "node:path";

const {
  CONSOLE_TOOLS: tools,
  CONSOLE_PICTURES: pictures,
  CONSOLE_ADDRESSES,
  CONSOLE_PASSWORD: password,
} = process.env;
const { chromium } = await import(`${tools}/playwright-core/index.mjs`);
/** Which script this is: two may be played at once. */
const script = basename(process.argv[1], ".mjs");
const axe = readFileSync(`${tools}/axe-core/axe.min.js`, "utf8");
const addresses = JSON.parse(CONSOLE_ADDRESSES);
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Longest wait for whatever a page is to show: a handover on a busy machine. */
export const LIMIT = 300_000;
const SIZE = { width: 1440, height: 900 };
/** Only what is asked for: no request leaves the lab, and no sandbox as root. */
const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ARGUMENTS });
/** What pages complained of; a blocked script or an exception fails the case. */
const complaints = [];

/** A browser of its own at a host's console; `theme`, `size` as the person has them. */
export async function visit(host, { theme = "light", size = SIZE, path = "/" } = {}) {
  // The accessibility check is a script that no page of ours would let in.
  const context = await browser.newContext({
    viewport: size,
    colorScheme: theme,
    ignoreHTTPSErrors: true,
    reducedMotion: "reduce",
    bypassCSP: false,
  });
  context.setDefaultTimeout(LIMIT);
  const page = await context.newPage();
  page.on("pageerror", (error) => complaints.push(String(error.stack)));
  page.on(
    "console",
    (message) =>
      /Content Security Policy|Trusted(HTML|Script)|Uncaught/.test(message.text()) &&
      complaints.push(message.text()),
  );
  page.on(
    "request",
    (request) =>
      request.url().startsWith("data:") ||
      new URL(request.url()).host === new URL(addresses[host]).host ||
      complaints.push(`asked another host: ${request.url()}`),
  );
  await page.goto(addresses[host] + path);
  return page;
}

/** Signs in by the form. */
export async function signIn(page, user, secret = password) {
  await page.getByLabel("User name").fill(user);
  await page.getByLabel("Password").fill(secret);
  await page.getByRole("button", { name: "Sign in" }).click();
}

/** Somebody at a host's console. */
export async function enter(host, user, options) {
  const page = await visit(host, options);
  await signIn(page, user);
  await page.getByRole("button", { name: "Sign out" }).waitFor(); // the sign-in page has a heading, too
  return page;
}

/** Asks the lab; gives its answer. */
export async function lab(...words) {
  process.stdout.write(`LAB ${words.join(" ")}\n`);
  const { value } = await answers.next();
  if (!value?.startsWith("ok")) throw new Error(`${words.join(" ")}: ${value}`);
  return value.slice(3);
}

/** Keeps what the page looks like. */
export const picture = (page, name) => page.screenshot({ path: `${pictures}/${name}.png` });

/** No rule of WCAG 2.1 AA is broken by what the page shows now, or by a part of it, where the rest was looked at before. */
export async function accessible(page, what, part = "html") {
  // By the debugger's door, for the page's own policy lets no such script in.
  const inspector = await page.context().newCDPSession(page);
  const run = `${axe}; axe.run("${part}", { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }).then((found) => JSON.stringify(found.violations.map(({ id, nodes }) => [id, nodes.map((node) => node.target.join(" "))])))`;
  const { result, exceptionDetails } = await inspector.send("Runtime.evaluate", {
    expression: run,
    awaitPromise: true,
  });
  if (exceptionDetails || result.value !== "[]")
    throw new Error(`${what} is not accessible: ${exceptionDetails?.text ?? result.value}`);
}

/** Runs chapters in order; the case fails with the first that fails, and with a picture of every page then. */
export async function tell(chapters) {
  for (const [name, chapter] of Object.entries(chapters)) {
    const begun = Date.now();
    try {
      await chapter();
      if (complaints.length) throw new Error(complaints.join("\n"));
    } catch (error) {
      const pages = browser.contexts().flatMap((context) => context.pages());
      await Promise.all(pages.map((page, index) => picture(page, `failed-${script}-${index}`).catch(() => {})));
      console.log(`${name} failed: ${error.stack}`);
      for (const page of pages)
        console.log(
          await page
            .locator("dialog")
            .allInnerTexts()
            .catch(() => []),
        );
      process.exit(1);
    }
    console.log(`${name}: ${((Date.now() - begun) / 1000).toFixed(1)} s`);
  }
  await browser.close();
  process.exit(0);
}
