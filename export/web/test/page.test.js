/** Tests the page as a user sees it, in headless Chromium. */

import assert from "node:assert/strict";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { classify, openBrowser } from "./browser.js";

// Folders from export/to_web.py, the second for a model with one output; a
// photograph; and a folder for screenshots.
const { MODEL, BINARY_MODEL, PHOTO, SCREENSHOTS } = process.env;
const CAMERA = [
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
];

let browser;
let folder;

before(async () => {
  browser = await openBrowser(...CAMERA);
  folder = await mkdtemp(join(tmpdir(), "page-"));
});
after(() => browser?.close());

async function problemOf(page) {
  await page.waitForFunction(
    () => document.getElementById("problem").textContent,
  );
  return page.textContent("#problem");
}

async function file(name, content) {
  const path = join(folder, name);
  await writeFile(path, content);
  return path;
}

/** Draws a picture in the browser and returns a data URL. */
function draw(page, width, height, type) {
  return page.evaluate(
    ([width, height, type]) => {
      const canvas = document.createElement("canvas");
      Object.assign(canvas, { width, height });
      const context = canvas.getContext("2d");
      context.fillStyle = "red";
      context.fillRect(0, 0, width / 2, height);
      context.fillStyle = "blue";
      context.fillRect(width / 2, 0, width / 2, height);
      return canvas.toDataURL(type, 1);
    },
    [width, height, type],
  );
}

const bytes = (url) => Buffer.from(url.split(",")[1], "base64");

test("an image gives classes, probabilities, a time and a map", async () => {
  const page = await browser.openPage(MODEL);
  const { class_names: names } = JSON.parse(
    await readFile(join(MODEL, "model.json"), "utf8"),
  );
  assert.equal(await page.textContent("#status"), "Ready for an image.");
  const { predictions, maps, milliseconds } = await classify(page, PHOTO);
  const sum = predictions.reduce((a, b) => a + b);
  assert.ok(Math.abs(sum - 1) < 1e-3);
  const best = names[predictions.indexOf(Math.max(...predictions))];
  const rows = await page.locator("#results li").allTextContents();
  assert.equal(rows.length, Math.min(5, names.length));
  assert.match(rows[0], new RegExp(`^${best}.*\\d\\.\\d %$`));
  assert.match(await page.textContent("#status"), new RegExp(`${best}, \\d`));
  assert.ok(milliseconds > 0);
  assert.match(await page.textContent("#timing"), /^\d+\.\d ms/);

  // The maps' means are the logits.
  const area = maps.rows * maps.columns;
  const means = names.map((_, number) =>
    maps.values
      .filter((_, i) => i % names.length === number)
      .reduce((a, b) => a + b / area, 0),
  );
  const powers = means.map((x) => Math.exp(x - Math.max(...means)));
  const total = powers.reduce((a, b) => a + b);
  powers.forEach((power, i) =>
    assert.ok(Math.abs(power / total - predictions[i]) < 1e-3),
  );
  assert.deepEqual(page.problems, []);
});

test("the page makes no requests to other servers", async () => {
  const page = await browser.openPage(MODEL);
  await classify(page, PHOTO);
  assert.ok(page.requests.some((url) => url.endsWith(".wasm")));
  const away = page.requests.filter(
    (url) => !/^(blob|data):/.test(url) && !url.startsWith(browser.url),
  );
  assert.deepEqual(away, []);
});

test("a sample is offered until there is an image", async () => {
  const page = await browser.openPage(MODEL);
  const sample = page.getByRole("button", { name: "try this cat" });
  await sample.click();
  await page.locator("#answer").waitFor();
  assert.match(await page.textContent("#status"), /^This looks like: /);
  assert.equal(await sample.isVisible(), false);
  assert.deepEqual(page.problems, []);
});

test("on a phone the result is visible without scrolling", async () => {
  const viewport = { width: 390, height: 844 };
  const page = await browser.openPage(MODEL, { viewport });
  await classify(page, PHOTO);
  for (const id of ["photo", "file + label", "status", "results"]) {
    const { y, height } = await page.locator(`#${id}`).boundingBox();
    assert.ok(y >= 0 && y + height <= viewport.height, `${id}: ${y + height}`);
  }
});

test("another class shows another map; the switch hides it", async () => {
  const page = await browser.openPage(MODEL);
  await classify(page, PHOTO);
  const picture = () =>
    page.evaluate(() => document.getElementById("map").toDataURL());
  const first = await picture();
  const second = page.locator("#results button").nth(1);
  await second.click();
  assert.equal(await second.getAttribute("aria-pressed"), "true");
  assert.notEqual(await picture(), first);
  const name = await second.locator(".name").textContent();
  assert.match(
    await page.textContent("#where"),
    new RegExp(`evidence for ${name} is (at|in) the `),
  );
  const ends = page.locator("#scale span");
  for (const text of await ends.allTextContents()) {
    assert.match(text, /^-?\d+\.\d logits$/);
  }
  const explanation = ["map", "where", "scale"];
  const seen = () =>
    Promise.all(explanation.map((id) => page.locator(`#${id}`).isVisible()));
  assert.deepEqual(await seen(), [true, true, true]);
  const show = page.getByRole("switch", { name: "Show where" });
  await show.uncheck();
  assert.deepEqual(await seen(), [false, false, false]);
  await show.check();
  assert.deepEqual(await seen(), [true, true, true]);
});

test("a single output gives two classes", async () => {
  const page = await browser.openPage(BINARY_MODEL);
  const { predictions, maps } = await classify(page, PHOTO);
  assert.equal(predictions.length, 2);
  assert.ok(predictions[0] > 0 && predictions[0] < 1);
  assert.ok(Math.abs(predictions[0] + predictions[1] - 1) < 1e-6);
  const rows = await page.locator("#results li").allTextContents();
  assert.deepEqual(
    rows.sort().reverse(),
    ["not ant", "ant"].map(
      (name, i) => `${name}${(100 * predictions[i]).toFixed(1)} %`,
    ),
  );
  assert.equal(maps.values.length, 2 * maps.rows * maps.columns);
  const mean = maps.values
    .filter((_, i) => i % 2)
    .reduce((a, b) => a + b / (maps.rows * maps.columns), 0);
  assert.ok(Math.abs(1 / (1 + Math.exp(-mean)) - predictions[1]) < 1e-4);
  assert.equal(maps.values[0], -maps.values[1]);
});

test("the keyboard is enough, and everything has a name", async () => {
  const page = await browser.openPage(MODEL, { reducedMotion: "reduce" });
  await classify(page, PHOTO);
  const seen = [];
  for (let i = 0; i < 8; i++) {
    await page.keyboard.press("Tab");
    seen.push(
      await page.evaluate(() => {
        const { id, tagName } = document.activeElement;
        return id || tagName;
      }),
    );
  }
  assert.deepEqual(seen.slice(0, 3), ["file", "camera", "BUTTON"]);
  assert.ok(seen.includes("show"));
  await page.focus("#file");
  const outline = (selector) =>
    page.$eval(selector, (node) => getComputedStyle(node).outlineStyle);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Shift+Tab");
  assert.equal(await outline("label[for=file]"), "solid");
  await page.locator("#results button").nth(1).focus();
  await page.keyboard.press("Enter");
  const tree = await page.locator("body").ariaSnapshot();
  for (const part of [
    'heading "What does ConvMixer see?" [level=1]',
    'button "Choose an image"',
    'button "Use the camera"',
    "status:",
    'list "Most likely classes',
    "[pressed]",
    'switch "Show where" [checked]',
    'img "The image, classified as ',
  ]) {
    assert.ok(tree.includes(part), `${part}\n${tree}`);
  }
  const duration = await page.$eval(
    ".bar",
    (bar) => getComputedStyle(bar, "::before").transitionDuration,
  );
  assert.equal(duration, "0s");
});

test("texts have a contrast of at least 4.5", async () => {
  for (const colorScheme of ["light", "dark"]) {
    const page = await browser.openPage(MODEL, { colorScheme });
    await classify(page, PHOTO);
    const lowest = await page.evaluate(leastContrast);
    assert.ok(lowest.contrast >= 4.5, JSON.stringify(lowest));
  }
});

/** Runs in the page: finds the text with the lowest contrast. */
function leastContrast() {
  const light = (color) => {
    const parts = color.match(/[\d.]+/g).slice(0, 3).map(Number);
    const [r, g, b] = parts.map((x) =>
      x / 255 <= 0.04045 ? x / 3294.6 : ((x / 255 + 0.055) / 1.055) ** 2.4,
    );
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const { backgroundColor } = getComputedStyle(node);
    const clear = /^(transparent|rgba\(.*, 0\))$/.test(backgroundColor);
    return clear ? ground(node.parentElement) : backgroundColor;
  };
  let lowest = { contrast: 99 };
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].some(
      (child) => child.nodeType === 3 && child.data.trim(),
    );
    if (!text || !node.checkVisibility({ visibilityProperty: true })) continue;
    const pair = [light(getComputedStyle(node).color), light(ground(node))];
    const contrast =
      (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (contrast < lowest.contrast) {
      lowest = { contrast, text: node.textContent };
    }
  }
  return lowest;
}

test("a dropped and a pasted file", async () => {
  const page = await browser.openPage(MODEL);
  const content = (await readFile(PHOTO)).toString("base64");
  for (const kind of ["drop", "paste"]) {
    const found = await page.evaluate(
      async ([content, kind]) => {
        const data = new DataTransfer();
        const raw = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
        data.items.add(new File([raw], "photo"));
        const event =
          kind === "drop"
            ? new DragEvent(kind, { dataTransfer: data, cancelable: true })
            : new ClipboardEvent(kind, { clipboardData: data });
        const found = new Promise((resolve) =>
          document.addEventListener(
            "classified",
            ({ detail }) => resolve(Array.from(detail.pixels)),
            { once: true },
          ),
        );
        dispatchEvent(event);
        return found;
      },
      [content, kind],
    );
    assert.deepEqual(found, (await classify(page, PHOTO)).pixels);
  }
  await page.evaluate(() =>
    dispatchEvent(
      new DragEvent("drop", { dataTransfer: new DataTransfer() }),
    ),
  );
  assert.match(await problemOf(page), /dropped item is not a file/);
});

test("the camera runs, and stops", async () => {
  const page = await browser.openPage(MODEL, { permissions: ["camera"] });
  await page.evaluate(() => {
    globalThis.count = 0;
    document.addEventListener("classified", () => globalThis.count++);
  });
  const button = page.locator("#camera");
  await button.click();
  await page.waitForFunction(() => globalThis.count >= 3);
  assert.equal(await button.textContent(), "Stop the camera");
  assert.match(await page.textContent("#status"), /^Camera: /);
  await button.click();
  assert.equal(await button.getAttribute("aria-pressed"), "false");
  await page.waitForTimeout(300);
  const before = await page.evaluate(() => globalThis.count);
  await page.waitForTimeout(500);
  assert.equal(await page.evaluate(() => globalThis.count), before);
  assert.deepEqual(page.problems, []);
});

for (const [name, message] of Object.entries({
  NotAllowedError: /was blocked. Allow it/,
  NotFoundError: /no camera on this device/,
  NotReadableError: /in use by another program/,
})) {
  test(`the camera fails: ${name}`, async () => {
    const script =
      "navigator.mediaDevices.getUserMedia = () => " +
      `Promise.reject(new DOMException("", "${name}"))`;
    const page = await browser.openPage(MODEL, { script });
    await page.click("#camera");
    assert.match(await problemOf(page), message);
    assert.equal(await page.isEnabled("#camera"), true);
    await classify(page, PHOTO);
    assert.equal(await page.textContent("#problem"), "");
  });
}

test("a browser blocks the camera", async () => {
  const strict = await openBrowser("--deny-permission-prompts");
  const page = await strict.openPage(MODEL);
  await page.click("#camera");
  const problem = await problemOf(page);
  await strict.close();
  assert.match(problem, /was blocked|no camera/);
});

test("a page without https has no camera", async () => {
  const script =
    'Object.defineProperty(Navigator.prototype, "mediaDevices", {value: undefined})';
  const page = await browser.openPage(MODEL, { script });
  await page.click("#camera");
  assert.match(await problemOf(page), /only to pages from https/);
});

test("transparent pixels become white", async () => {
  const page = await browser.openPage(MODEL);
  const url = await page.evaluate(() =>
    document.createElement("canvas").toDataURL(),
  );
  const path = await file("clear.png", bytes(url));
  const { pixels } = await classify(page, path);
  assert.ok(pixels.every((value) => value === 255));
});

test("files that are not complete images", async () => {
  const page = await browser.openPage(MODEL);
  const photo = await readFile(PHOTO);
  await classify(page, PHOTO);
  for (const [name, content, message] of [
    ["text.txt", "no image", /“text.txt” is not an image this browser/],
    ["empty.png", "", /“empty.png” is not an image/],
    ["cut.jpg", photo.subarray(0, 20), /“cut.jpg” is not an image/],
  ]) {
    await page.setInputFiles("#file", await file(name, content));
    await page.waitForFunction(
      (name) => document.getElementById("problem").textContent.includes(name),
      name,
    );
    assert.match(await problemOf(page), message);
    // The previous result is removed.
    assert.ok(await page.isHidden("#answer"));
  }
  await classify(page, PHOTO);
  assert.equal(await page.textContent("#problem"), "");
  assert.deepEqual(page.problems, []);
});

test("large images work, huge ones are rejected before decoding", async () => {
  const page = await browser.openPage(MODEL);
  const large = bytes(await draw(page, 6000, 5000, "image/png"));
  const { pixels } = await classify(page, await file("large.png", large));
  assert.deepEqual(pixels.slice(0, 3), [255, 0, 0]);
  large.writeUInt32BE(60000, 16); // the width in the header, and its checksum
  const { crc32 } = await import("node:zlib");
  large.writeUInt32BE(crc32(large.subarray(12, 29)), 29);
  await page.setInputFiles("#file", await file("huge.png", large));
  assert.match(await problemOf(page), /60000 × 5000 pixels, more than the 67/);
});

test("a model that is missing or damaged", async () => {
  const missing = await browser.openPage(null);
  assert.match(await problemOf(missing), /no model on this server.*to_web/);
  assert.equal(await missing.isEnabled("#file"), false);
  const damaged = await mkdtemp(join(tmpdir(), "model-"));
  const json = await readFile(join(MODEL, "model.json"));
  const model = await readFile(join(MODEL, "model.tflite"));
  await writeFile(join(damaged, "model.json"), "{");
  await writeFile(join(damaged, "model.tflite"), "<!doctype html>");
  let page = await browser.openPage(damaged);
  assert.match(await problemOf(page), /model.json is damaged/);
  await writeFile(join(damaged, "model.json"), json);
  page = await browser.openPage(damaged);
  assert.match(await problemOf(page), /model.tflite is not a TFLite file/);
  await writeFile(join(damaged, "model.tflite"), model.subarray(0, 2000));
  page = await browser.openPage(damaged);
  assert.match(await problemOf(page), /LiteRT can't load the model/);
});

test("browsers without WebAssembly, and without threads", async () => {
  const none = await browser.openPage(MODEL, {
    script: "delete globalThis.WebAssembly",
  });
  assert.match(await problemOf(none), /no WebAssembly/);
  const one = await browser.openPage(MODEL, {
    script: 'Object.defineProperty(self, "crossOriginIsolated", {value: false})',
  });
  await classify(one, PHOTO);
  assert.ok(!one.requests.some((url) => url.includes("threaded")));
  const several = await browser.openPage(MODEL);
  assert.ok(several.requests.some((url) => url.includes("threaded")));
});

test("a processor without SIMD", async () => {
  const old = await openBrowser("--js-flags=--no-enable-ssse3");
  const page = await old.openPage(MODEL);
  const problem = await page.textContent("#problem");
  await old.close();
  assert.match(problem, /does not start in this browser: its WebAssembly/);
});

test("pictures of the page", { skip: !SCREENSHOTS }, async () => {
  const sizes = {
    light: { width: 1100, height: 820 },
    dark: { width: 1100, height: 820 },
    phone: { width: 390, height: 844 },
    empty: { width: 1100, height: 700 },
  };
  for (const [name, viewport] of Object.entries(sizes)) {
    const colorScheme = name === "dark" ? "dark" : "light";
    const page = await browser.openPage(MODEL, { viewport, colorScheme });
    if (name !== "empty") await classify(page, PHOTO);
    await page.waitForTimeout(400);
    const wide = await page.evaluate(
      () => document.documentElement.scrollWidth,
    );
    assert.ok(wide <= viewport.width);
    await page.screenshot({
      path: join(SCREENSHOTS, `${name}.png`),
      fullPage: true,
    });
  }
});
