/** Prints the EXIF orientation of files: `node orientations.js FILE...`. */

import { readFile } from "node:fs/promises";

import { splitExif } from "../src/exif.js";

for (const path of process.argv.slice(2)) {
  console.log(splitExif(await readFile(path)).orientation);
}
