/**
 * Takes a picture of the page: `npm run screenshot -- MODEL PHOTO PICTURE`.
 *
 * MODEL is a folder that export/to_web.py wrote. The page is built already.
 */

import { classify, openBrowser } from "./browser.js";

const [model, photo, picture] = process.argv.slice(2);
if (!picture) throw new Error("Expected three arguments: MODEL PHOTO PICTURE.");
const browser = await openBrowser();
const page = await browser.openPage(model, {
  viewport: { width: 1000, height: 640 },
  colorScheme: "light",
});
for (let i = 0; i < 5; i++) await classify(page, photo); // The first is slow.
await page.waitForTimeout(400); // Until the bars have grown.
await page.screenshot({ path: picture, fullPage: true });
await browser.close();
