/** Opening an image file, with a message a person can use where it fails. */

// A photo of 64 million pixels takes 256 MB when it is decoded.
export const MAX_PIXELS = 2 ** 26;

/**
 * Decodes an image file.
 *
 * It is turned as its EXIF orientation says. Its pixels are taken as they
 * are stored, whatever its colour profile, as in training.
 *
 * @param {Blob} file What was chosen, dropped or pasted.
 * @returns {Promise<ImageBitmap>} To be closed by the caller.
 * @throws {Error} With a message for the user.
 */
export async function openPhoto(file) {
  const name = file.name ? `“${file.name}”` : "What you pasted";
  await checkSize(file, name);
  try {
    return await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${name} is damaged, or too large for this browser.`);
  }
}

/** Reads width and height from the file's header, before all is decoded. */
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
          `${Math.round(MAX_PIXELS / 1e6)} million this page can take. ` +
          "Make it smaller, or take a screenshot of it.",
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
