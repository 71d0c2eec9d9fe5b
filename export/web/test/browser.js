/** Opens the built page in Chromium, for tests and measurements. */

import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { chromium } from "playwright-core";
import { preview } from "vite";

// Debian's Chromium by default. As root, it has no sandbox.
const BROWSER = {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
};

/**
 * Serves `dist/` and opens Chromium.
 *
 * @param {string[]} flags Additional flags of Chromium.
 * @returns {Promise<object>} `openPage` and `close`.
 */
export async function openBrowser(...flags) {
  const server = await preview({
    logLevel: "error",
    preview: { port: 0, host: "127.0.0.1" },
  });
  const [url] = server.resolvedUrls.local;
  const args = [...BROWSER.args, ...flags];
  const browser = await chromium.launch({ ...BROWSER, args });
  return {
    url,
    openPage: (model, options) => openPage(browser, url, model, options),
    async close() {
      await browser.close();
      await server.close();
    },
  };
}

/** Opens the page with the model in a folder, or null for no model. */
async function openPage(browser, url, model, options = {}) {
  const { script, headers, ...rest } = options;
  const context = await browser.newContext(rest);
  const page = await context.newPage();
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(error.message));
  page.on("console", (line) => {
    if (line.type() === "error") page.problems.push(line.text());
  });
  page.requests = [];
  page.on("request", (request) => page.requests.push(request.url()));
  await page.route("**/model/*", async (route) => {
    const name = new URL(route.request().url()).pathname.split("/").pop();
    if (!model) return route.fulfill({ status: 404, body: "none" });
    await route.fulfill({ body: await readFile(join(model, name)) });
  });
  if (script) await page.addInitScript(script);
  await page.goto(url);
  await page.waitForFunction(
    () =>
      !document.getElementById("file").disabled ||
      document.getElementById("problem").textContent,
    null,
    { timeout: 60_000 },
  );
  return page;
}

/**
 * Classifies a file as if a user chose it.
 *
 * @param {object} page
 * @param {string} path Path of the image.
 * @returns {Promise<object>} `predictions`, `pixels`, `maps`, `milliseconds`.
 */
export async function classify(page, path) {
  await page.evaluate(() => {
    globalThis.next = new Promise((resolve) => {
      const listener = ({ detail }) => resolve({
        predictions: Array.from(detail.predictions),
        pixels: Array.from(detail.pixels),
        milliseconds: detail.milliseconds,
        maps: detail.maps && {
          ...detail.maps,
          values: Array.from(detail.maps.values),
        },
      });
      document.addEventListener("classified", listener, { once: true });
    });
  });
  await page.setInputFiles("#file", path);
  return page.evaluate(() =>
    Promise.race([
      globalThis.next,
      new Promise((_, reject) =>
        setTimeout(
          () => reject(new Error(document.getElementById("problem").textContent)),
          20_000,
        ),
      ),
    ]),
  );
}
