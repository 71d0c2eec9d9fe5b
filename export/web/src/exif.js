/**
 * Reads the EXIF orientation of image files, like `convmixer_tf.data`.
 *
 * Browsers rotate only some formats (Chromium: JPEG and PNG, not WebP), and
 * this can't be disabled. So the page hides the EXIF from the browser and
 * rotates the image itself.
 */

const ORIENTATION = 0x0112;
const SHORT = 3;
const PREFIX = "Exif\0\0"; // Always in JPEG files, sometimes in others.

// By the first bytes of a file: the position of its first part, the function
// that reads a part, and the number of parts that may hold the EXIF.
const FORMATS = {
  "\xff\xd8": { first: 2, readPart: jpegSegment, most: 64 },
  "\x89PNG": { first: 8, readPart: pngChunk, most: 10_000 },
  RIFF: { first: 12, readPart: webpChunk, most: 10_000 },
};

/**
 * Hides the EXIF of a JPEG, PNG or WebP file.
 *
 * @param {Uint8Array} bytes The file.
 * @returns {{orientation: number, parts: BlobPart[]}} The orientation from 1 to
 *     8, where 1 is upright, missing or malformed; and the file without its
 *     EXIF.
 */
export function splitExif(bytes) {
  const name = Object.keys(FORMATS).find((name) => startsWith(bytes, 0, name));
  const parts = [];
  let orientation;
  let kept = 0; // Everything before it is in `parts`.
  let at = FORMATS[name]?.first ?? bytes.length;
  for (let i = 0; at < bytes.length; i++) {
    const { end, exif, hide, replacement } = FORMATS[name].readPart(bytes, at);
    if (exif) {
      const whole = exif[0] < exif[1] && exif[1] <= bytes.length;
      if (whole && i < FORMATS[name].most) {
        orientation ??= readTag(bytes.subarray(...exif));
      }
      parts.push(bytes.subarray(kept, at), replacement);
      kept = hide;
    }
    at = end;
  }
  parts.push(bytes.subarray(kept));
  return { orientation: orientation ?? 1, parts };
}

function jpegSegment(bytes, at) {
  const kind = numberAt(bytes, at, 2);
  if (kind === 0xffff) return { end: at + 1 }; // Fill bytes may come before.
  const size = numberAt(bytes, at + 2, 2);
  const sized = kind >= 0xffc0 && !(kind >= 0xffd0 && kind <= 0xffda);
  if (!sized || size < 2) return { end: bytes.length }; // The pixels start.
  const end = at + 2 + size;
  if (kind !== 0xffe1 || !startsWith(bytes, at + 4, PREFIX)) return { end };
  return { end, exif: [at + 4, end], hide: end, replacement: "" };
}

function pngChunk(bytes, at) {
  const end = at + 12 + numberAt(bytes, at, 4);
  if (!startsWith(bytes, at + 4, "eXIf")) return { end };
  return { end, exif: [at + 8, end - 4], hide: end, replacement: "" };
}

function webpChunk(bytes, at) {
  const size = numberAt(bytes, at + 4, 4, true);
  const content = at + 8;
  const end = content + size + (size % 2);
  if (!startsWith(bytes, at, "EXIF")) return { end };
  // Only renamed: removing the chunk would make the file's size field wrong.
  const exif = [content, content + size];
  return { end, exif, hide: at + 4, replacement: "JUNK" };
}

/** Reads the orientation from a TIFF structure. */
function readTag(content) {
  const start = startsWith(content, 0, PREFIX) ? PREFIX.length : 0;
  const tiff = content.subarray(start);
  const little = startsWith(tiff, 0, "II*\0");
  if (!little && !startsWith(tiff, 0, "MM\0*")) return 1;
  const at = numberAt(tiff, 4, 4, little);
  // Each entry has 12 bytes: tag, type, number of values, value.
  const whole = Math.floor((tiff.length - at - 2) / 12);
  const count = Math.min(numberAt(tiff, at, 2, little), whole);
  for (let entry = at + 2; entry < at + 2 + 12 * count; entry += 12) {
    if (numberAt(tiff, entry, 2, little) !== ORIENTATION) continue;
    const type = numberAt(tiff, entry + 2, 2, little);
    const number = numberAt(tiff, entry + 4, 4, little);
    const value = numberAt(tiff, entry + 8, 2, little);
    const valid = type === SHORT && number === 1 && value >= 1 && value <= 8;
    return valid ? value : 1;
  }
  return 1;
}

/** Reads a number of `size` bytes. Missing bytes are 0. */
function numberAt(bytes, at, size, little = false) {
  let number = 0;
  for (let i = 0; i < size; i++) {
    number = 256 * number + (bytes[at + (little ? size - 1 - i : i)] ?? 0);
  }
  return number;
}

function startsWith(bytes, at, text) {
  return text === String.fromCharCode(...bytes.subarray(at, at + text.length));
}
