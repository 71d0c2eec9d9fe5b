/**
 * The evaluation transform: shorter side, antialiased bicubic filter, center.
 *
 * The resizing of a canvas depends on the browser, so the filter is implemented
 * here. Like `convmixer_tf.data`, it equals Pillow's: columns before rows, with
 * the intermediate result rounded to integers.
 */

const STRIP = 128; // rows of the image at a time, to save memory

/**
 * Computes the square crop of an image.
 *
 * @param {number} width Width of the image, in pixels.
 * @param {number} height Height of the image, in pixels.
 * @param {number} size Side of the model's images, in pixels.
 * @param {number} cropFraction Part of the shorter side to keep.
 * @returns {{full: number[], offset: number[], box: number[]}} Width and
 *     height of the whole resized image; left and top of the square in it; and
 *     left, top, width and height of the square in the original image.
 */
export function centralSquare(width, height, size, cropFraction) {
  const shorter = Math.floor(size / cropFraction);
  const sides = [width, height];
  const least = Math.min(width, height);
  const full = sides.map((side) => Math.floor((shorter * side) / least));
  const offset = full.map((side) => roundHalfToEven((side - size) / 2));
  const scales = sides.map((side, i) => side / full[i]);
  const corner = offset.map((start, i) => start * scales[i]);
  const box = [...corner, ...scales.map((scale) => size * scale)];
  return { full, offset, box };
}

/**
 * Computes the model's input pixels.
 *
 * @param {Photo} photo Photo from `openPhoto` or `turned`.
 * @param {number} size Side of the model's images, in pixels.
 * @param {number} cropFraction Part of the shorter side to keep.
 * @returns {Uint8ClampedArray} Red, green and blue of size x size pixels.
 */
export function readPixels(photo, size, cropFraction) {
  const { width, height } = photo;
  const { full, offset } = centralSquare(width, height, size, cropFraction);
  const columns = filters(width, full[0], offset[0], size);
  const rows = filters(height, full[1], offset[1], size);
  const narrow = new Uint8ClampedArray(height * size * 3);
  for (let top = 0; top < height; top += STRIP) {
    const count = Math.min(STRIP, height - top);
    const { data } = readStrip(photo, top, count);
    for (let row = 0; row < count; row++) {
      const to = (top + row) * size * 3;
      resample(data, row * width * 4, 4, columns, narrow, to, 3);
    }
  }
  const pixels = new Uint8ClampedArray(size * size * 3);
  for (let column = 0; column < size; column++) {
    const at = column * 3;
    resample(narrow, at, size * 3, rows, pixels, at, size * 3);
  }
  return pixels;
}

function readStrip({ source, width, matrix }, top, count) {
  const canvas = new OffscreenCanvas(width, count);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // behind transparent pixels
  context.fillRect(0, 0, width, count);
  context.imageSmoothingEnabled = false; // Pixels are rotated, not blended.
  context.translate(0, -top);
  context.transform(...matrix);
  context.drawImage(source, 0, 0);
  return context.getImageData(0, 0, width, count);
}

/** Resamples one line of pixels. `steps` are the distances of pixels. */
function resample(from, start, step, filters, to, toStart, toStep) {
  filters.forEach(({ first, weights }, output) => {
    let red = 0;
    let green = 0;
    let blue = 0;
    let at = start + first * step;
    for (const weight of weights) {
      red += weight * from[at];
      green += weight * from[at + 1];
      blue += weight * from[at + 2];
      at += step;
    }
    const target = toStart + output * toStep;
    to[target] = Math.floor(red + 0.5); // the array clips to [0, 255]
    to[target + 1] = Math.floor(green + 0.5);
    to[target + 2] = Math.floor(blue + 0.5);
  });
}

/** Computes the weighted inputs of each output position. */
function filters(length, fullLength, offset, size) {
  const scale = length / fullLength;
  const stretch = Math.max(scale, 1); // wider if the image shrinks
  return Array.from({ length: size }, (_, output) => {
    const center = (offset + output + 0.5) * scale;
    const first = Math.max(Math.floor(center - 2 * stretch), 0);
    const last = Math.min(Math.ceil(center + 2 * stretch), length);
    const weights = new Float64Array(last - first).map((_, i) =>
      cubic(Math.abs(first + i + 0.5 - center) / stretch),
    );
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/** The cubic convolution kernel with a = -0.5. */
function cubic(x) {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

function roundHalfToEven(x) {
  const rounded = Math.round(x);
  return rounded - x === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
