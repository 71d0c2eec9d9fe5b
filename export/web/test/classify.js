/**
 * Classifies images in the page: `node classify.js MODEL RESULTS IMAGE...`.
 *
 * Writes the result of `classify` for each image to RESULTS, in JSON.
 */

import { writeFile } from "node:fs/promises";

import { classify, openBrowser } from "./browser.js";

const [model, results, ...images] = process.argv.slice(2);
const browser = await openBrowser();
const page = await browser.openPage(model);
const found = [];
for (const image of images) found.push(await classify(page, image));
await browser.close();
await writeFile(results, JSON.stringify(found));
