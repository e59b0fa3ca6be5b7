// How long a person waits for the list of all VMs of a host: from the address being entered until rows are on the screen, and until all
// are known; in a browser that has never been here, and in one that has. On a host whose VMs nobody protects, and on a replica server.

import { writeFileSync } from "node:fs";
import { enter, picture, tell } from "./browser.mjs";

const ROUNDS = 5;
const HOSTS = ["hvhost01", "hvhost02"];

/** Milliseconds from the start of loading to the frame that has rows, and to that which has all; noted by the page itself. */
const watch = () => {
  window.after = {};
  const note = (name) =>
    requestAnimationFrame(() =>
      setTimeout(() => {
        window.after[name] = performance.now();
      }),
    );
  const wait = (name, there) => (there() ? note(name) : setTimeout(() => wait(name, there), 5));
  wait("rows", () => document.querySelector("tbody tr[data-key]"));
  wait("all", () => Number(document.querySelector("[role=grid]")?.getAttribute("aria-rowcount")) > 0);
};

/** How long each list was on its way, by the browser's own clock. */
const requests = () =>
  performance
    .getEntriesByType("resource")
    .filter((one) => one.name.includes("/api/v1/"))
    .map((one) => [one.name.split("/api/v1/")[1], Math.round(one.startTime), Math.round(one.responseEnd)]);

const median = (values) => [...values].sort((one, two) => one - two)[Math.floor(values.length / 2)];

async function visits(host) {
  const seen = { vms: 0, first: { rows: [], all: [] }, again: { rows: [], all: [] }, requests: [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    const page = await enter(host, "vera");
    await page.addInitScript(watch);
    // A cleared cache is what a browser that has never been here has.
    const network = await page.context().newCDPSession(page);
    await network.send("Network.clearBrowserCache");
    for (const kind of ["first", "again"]) {
      await page.goto(new URL(`/hosts/${host}`, page.url()).href);
      await page.waitForFunction(() => window.after.rows && window.after.all);
      const after = await page.evaluate(() => window.after);
      for (const name of ["rows", "all"]) seen[kind][name].push(Math.round(after[name]));
    }
    seen.requests = await page.evaluate(requests);
    seen.vms = Number(await page.getByRole("grid").getAttribute("aria-rowcount")) - 1;
    if (round === 0) await picture(page, `thousand-${host}`);
    await page.context().close();
  }
  const words = ({ rows, all }) => `rows after ${median(rows)} ms, all of them after ${median(all)} ms`;
  console.log(
    `${host}, ${seen.vms} VMs: ${words(seen.first)} for the first time; ${words(seen.again)} from then on (medians of ${ROUNDS})`,
  );
  return seen;
}

async function paint() {
  const figures = {};
  for (const host of HOSTS) figures[host] = await visits(host);
  writeFileSync(`${process.env.CONSOLE_FIGURES}/first-paint.json`, `${JSON.stringify(figures, null, 2)}\n`);
}

await tell({ paint });
