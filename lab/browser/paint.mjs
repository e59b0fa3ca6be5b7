// How long a person waits for the list of all VMs of a host: from the address being entered until the rows are on the screen, in a browser
// that has never been here, and in one that has.

import { writeFileSync } from "node:fs";
import { enter, picture, tell } from "./browser.mjs";

const ROUNDS = 5;
const HOST = "hvhost01";

/** Milliseconds from the start of loading to the frame that has rows; noted by the page itself. */
const watch = () => {
  const look = () =>
    document.querySelector("tbody tr[data-key]")
      ? requestAnimationFrame(() =>
          setTimeout(() => {
            window.rowsAfter = performance.now();
          }),
        )
      : setTimeout(look, 5);
  look();
};

async function visits() {
  const figures = { vms: 0, first: [], again: [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    const page = await enter(HOST, "vera");
    await page.addInitScript(watch);
    // A cleared cache is what a browser that has never been here has.
    const network = await page.context().newCDPSession(page);
    await network.send("Network.clearBrowserCache");
    for (const kind of ["first", "again"]) {
      await page.goto(new URL(`/hosts/${HOST}`, page.url()).href);
      await page.waitForFunction(() => window.rowsAfter);
      figures[kind].push(Math.round(await page.evaluate(() => window.rowsAfter)));
    }
    figures.vms = Number(await page.getByRole("grid").getAttribute("aria-rowcount")) - 1;
    if (round === 0) await picture(page, "thousand");
    await page.context().close();
  }
  const median = (values) => [...values].sort((one, two) => one - two)[Math.floor(values.length / 2)];
  console.log(
    `${figures.vms} VMs on the screen after ${median(figures.first)} ms for the first time, ${median(figures.again)} ms from then on (medians of ${ROUNDS})`,
  );
  writeFileSync(`${process.env.CONSOLE_FIGURES}/first-paint.json`, `${JSON.stringify(figures, null, 2)}\n`);
}

await tell({ visits });
