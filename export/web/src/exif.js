/**
 * The EXIF orientation of image files, read as `convmixer_tf.data` reads it.
 *
 * Browsers turn some formats and not others (Chromium: JPEG and PNG, not WebP),
 * and cannot be told to leave an image as it is stored. So the EXIF is hidden
 * from the browser, and the page turns the image.
 */

const ORIENTATION = 0x0112;
const SHORT = 3;
const PREFIX = "Exif\0\0"; // In JPEG files always, in others sometimes.

/**
 * Hides the EXIF of a JPEG, PNG or WebP file.
 *
 * @param {Uint8Array} bytes The file.
 * @returns {{orientation: number, parts: BlobPart[]}} From 1 to 8, where 1 is
 *     upright and also stands for none or a malformed one; and the file
 *     without its EXIF.
 */
export function splitExif(bytes) {
  const parts = [];
  let orientation;
  let end = 0;
  for (const block of exifBlocks(bytes)) {
    orientation ??= readTag(bytes.subarray(block.content, block.contentEnd));
    parts.push(bytes.subarray(end, block.start), block.replacement ?? "");
    end = block.end;
  }
  parts.push(bytes.subarray(end));
  return { orientation: orientation ?? 1, parts };
}

/** Finds where the EXIF lies: all of it, and its content without the rest. */
function* exifBlocks(bytes) {
  const view = viewOf(bytes);
  if (textAt(bytes, 0, 2) === "\xff\xd8") {
    for (let at = 2; isSegment(view, at); ) {
      const end = at + 2 + view.getUint16(at + 2);
      if (bytes[at + 1] === 0xe1 && textAt(bytes, at + 4, 6) === PREFIX) {
        yield { start: at, end, content: at + 4, contentEnd: end };
      }
      at = end;
    }
  } else if (textAt(bytes, 0, 8) === "\x89PNG\r\n\x1a\n") {
    for (let at = 8; at + 12 <= bytes.length; ) {
      const end = at + 12 + view.getUint32(at);
      if (textAt(bytes, at + 4, 4) === "eXIf") {
        yield { start: at, end, content: at + 8, contentEnd: end - 4 };
      }
      at = end;
    }
  } else if (/^RIFF[^]{4}WEBP$/.test(textAt(bytes, 0, 12))) {
    for (let at = 12; at + 8 <= bytes.length; ) {
      const size = view.getUint32(at + 4, true);
      const content = at + 8;
      if (textAt(bytes, at, 4) === "EXIF") {
        // Renamed: without the chunk, the file's size would be wrong.
        const name = { start: at, end: at + 4, replacement: "JUNK" };
        yield { ...name, content, contentEnd: content + size };
      }
      at = content + size + (size % 2);
    }
  }
}

/** Whether a segment of a JPEG file with a size starts here. */
function isSegment(view, at) {
  if (at + 4 > view.byteLength || view.getUint8(at) !== 0xff) return false;
  const kind = view.getUint8(at + 1);
  const sized = kind >= 0xc0 && !(kind >= 0xd0 && kind <= 0xda);
  return sized && view.getUint16(at + 2) >= 2;
}

/** Reads the orientation from a TIFF structure. */
function readTag(content) {
  const prefixed = textAt(content, 0, PREFIX.length) === PREFIX;
  const tiff = content.subarray(prefixed ? PREFIX.length : 0);
  const order = textAt(tiff, 0, 4);
  if (order !== "II*\0" && order !== "MM\0*") return 1;
  const little = order === "II*\0";
  const view = viewOf(tiff);
  try {
    const start = view.getUint32(4, little);
    const count = view.getUint16(start, little);
    for (let i = 0, at = start + 2; i < count; i++, at += 12) {
      const value = view.getUint16(at + 8, little);
      if (view.getUint16(at, little) === ORIENTATION) {
        const known =
          view.getUint16(at + 2, little) === SHORT &&
          view.getUint32(at + 4, little) === 1;
        return known && value >= 1 && value <= 8 ? value : 1;
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // It ends early.
  }
  return 1;
}

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function textAt(bytes, start, length) {
  return String.fromCharCode(...bytes.subarray(start, start + length));
}
