/** Opens image files, with a helpful message if that fails. */

import { splitExif } from "./exif.js";

// A photo of 64 million pixels takes 256 MB when it is decoded.
export const MAX_PIXELS = 2 ** 26;

/**
 * Decodes an image file.
 *
 * Pixels are used as stored, regardless of the color profile, as in training.
 *
 * @param {Blob} file The chosen, dropped or pasted file.
 * @param {string} orientation "exif" rotates as the file's EXIF says; "stored"
 *     keeps the pixels as stored.
 * @returns {Promise<Photo>} The caller must close its `source`.
 * @throws {Error} With a message for the user.
 */
export async function openPhoto(file, orientation) {
  const name = file.name ? `“${file.name}”` : "The pasted image";
  await checkSize(file, name);
  try {
    const exif = splitExif(new Uint8Array(await file.arrayBuffer()));
    const source = await createImageBitmap(
      new Blob(exif.parts, { type: file.type }),
      { colorSpaceConversion: "none" },
    );
    const turn = orientation === "stored" ? 1 : exif.orientation;
    return turned(source, source.width, source.height, turn);
  } catch {
    throw new Error(`${name} is damaged, or too large for this browser.`);
  }
}

/**
 * Describes how to draw an image upright.
 *
 * @param {CanvasImageSource} source
 * @param {number} width Width of the source, in pixels.
 * @param {number} height Height of the source, in pixels.
 * @param {number} orientation EXIF orientation, from 1 to 8.
 * @returns {Photo} `source`; `width` and `height`, upright; and `matrix`, the
 *     canvas transform from the source to the upright image.
 */
export function turned(source, width, height, orientation = 1) {
  const matrix = [
    [1, 0, 0, 1, 0, 0],
    [-1, 0, 0, 1, width, 0],
    [-1, 0, 0, -1, width, height],
    [1, 0, 0, -1, 0, height],
    [0, 1, 1, 0, 0, 0],
    [0, 1, -1, 0, height, 0],
    [0, -1, -1, 0, height, width],
    [0, -1, 1, 0, 0, width],
  ][orientation - 1];
  const sides = orientation > 4 ? [height, width] : [width, height];
  return { source, width: sides[0], height: sides[1], matrix };
}

/** Checks width and height in the file's header, before decoding. */
async function checkSize(file, name) {
  const url = URL.createObjectURL(file);
  try {
    const image = new Image();
    const opened = new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = reject;
    });
    image.src = url;
    await opened;
    const { naturalWidth: width, naturalHeight: height } = image;
    if (width * height > MAX_PIXELS) {
      throw new RangeError(
        `${name} has ${width} × ${height} pixels, more than the ` +
          `${Math.round(MAX_PIXELS / 1e6)} million that this page supports. ` +
          "Resize it, or take a screenshot of it.",
      );
    }
  } catch (error) {
    if (error instanceof RangeError) throw error;
    throw new Error(
      `${name} is not an image this browser can open. ` +
        "Try a JPEG, PNG or WebP file.",
    );
  } finally {
    URL.revokeObjectURL(url);
  }
}
