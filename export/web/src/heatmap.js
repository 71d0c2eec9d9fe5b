/** Class activation maps: where in the image the model sees a class. */

// From low to high: indigo, rose, amber, pale yellow, with rising opacity.
const RAMP = [
  [49, 46, 129, 0.1],
  [190, 24, 93, 0.35],
  [245, 158, 11, 0.6],
  [254, 240, 138, 0.75],
];
const ROWS = ["at the top", "in the middle", "at the bottom"];
const COLUMNS = ["left", "", "right"];

/**
 * Extracts the map of one class.
 *
 * @param {{rows: number, columns: number, values: Float32Array}} maps
 * @param {number} number Index of the class.
 * @returns {object} `rows`, `columns`, `values`, `least`, `most`.
 */
export function mapOf({ rows, columns, values }, number) {
  const classes = values.length / (rows * columns);
  const own = values.filter((_, i) => i % classes === number);
  const least = own.reduce((a, b) => Math.min(a, b));
  const most = own.reduce((a, b) => Math.max(a, b));
  return { rows, columns, values: own, least, most };
}

/**
 * Draws a map over a whole canvas.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {object} map What `mapOf` returns.
 */
export function drawMap(canvas, { rows, columns, values, least, most }) {
  const small = new OffscreenCanvas(columns, rows);
  const image = new ImageData(columns, rows);
  values.forEach((value, i) => {
    image.data.set(color((value - least) / (most - least || 1)), 4 * i);
  });
  small.getContext("2d").putImageData(image, 0, 0);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

/**
 * Describes where a map is highest.
 *
 * @param {object} map What `mapOf` returns.
 * @returns {string} Such as "at the top left" or "in the middle".
 */
export function placeOf({ rows, columns, values, most }) {
  const peak = values.indexOf(most);
  const row = Math.floor((3 * Math.floor(peak / columns)) / rows);
  const column = Math.floor((3 * (peak % columns)) / columns);
  return `${ROWS[row]} ${COLUMNS[column]}`.trim();
}

function color(fraction) {
  const at = fraction * (RAMP.length - 1);
  const index = Math.min(Math.floor(at), RAMP.length - 2);
  const [low, high] = RAMP.slice(index, index + 2);
  const [red, green, blue, alpha] = low.map(
    (value, i) => value + (at - index) * (high[i] - value),
  );
  return [red, green, blue, 255 * alpha];
}
