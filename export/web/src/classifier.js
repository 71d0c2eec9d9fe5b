/** The model from `export_web`, in LiteRT compiled to WebAssembly. */

import {
  loadAndCompile,
  loadLiteRt,
  supportsFeature,
  Tensor,
} from "@litertjs/core";

/**
 * Loads the runtime and a model.
 *
 * @param {string} folder URL of a folder with `model.json` and
 *     `model.tflite`.
 * @param {string} runtime URL of the folder with LiteRT's wasm files.
 * @returns {Promise<Classifier>}
 * @throws {Error} With a message for the user.
 */
export async function loadClassifier(folder, runtime) {
  const description = await fetchFile(`${folder}/model.json`, (r) => r.json());
  const content = new Uint8Array(
    await fetchFile(`${folder}/model.tflite`, (r) => r.arrayBuffer()),
  );
  if (new TextDecoder().decode(content.subarray(4, 8)) !== "TFL3") {
    throw new Error(`${folder}/model.tflite is not a TFLite file.`);
  }
  await startRuntime(runtime);
  try {
    const model = await loadAndCompile(content, { accelerator: "wasm" });
    return new Classifier(model, description);
  } catch (error) {
    throw new Error(`LiteRT can't load the model: ${error.message ?? error}`);
  }
}

async function fetchFile(url, read) {
  let response;
  try {
    response = await fetch(url);
  } catch {
    throw new Error(`${url} was not loaded: the server can't be reached.`);
  }
  if (!response.ok) {
    throw new Error(
      `There is no model on this server: ${url} is missing ` +
        `(${response.status}). Export one with export/to_web.py.`,
    );
  }
  try {
    return await read(response);
  } catch {
    throw new Error(`${url} is damaged.`);
  }
}

async function startRuntime(folder) {
  if (typeof WebAssembly !== "object") {
    throw new Error(
      "This browser has no WebAssembly, or it is disabled. " +
        "Use a recent browser.",
    );
  }
  const threads =
    self.crossOriginIsolated &&
    (await supportsFeature("relaxedSimd")) &&
    (await supportsFeature("threads"));
  // LiteRT logs messages as console errors. It throws real errors.
  self.Module = { printErr: console.debug };
  try {
    await loadLiteRt(folder, { threads });
  } catch {
    throw new Error(
      "LiteRT does not start in this browser: its WebAssembly may lack SIMD, " +
        `or the files in ${folder} are missing. Update the browser.`,
    );
  }
}

class Classifier {
  /**
   * @param {CompiledModel} model
   * @param {object} description Content of `model.json`.
   */
  constructor(model, description) {
    this.model = model;
    this.name = description.name;
    this.description = description.description;
    this.size = description.image_size;
    this.cropFraction = description.crop_fraction;
    this.orientation = description.orientation ?? "exif";
    this.classNames = description.class_names;
    const [image] = model.getInputDetails();
    this.shape = [1, this.size, this.size, 3];
    this.arrayType = image.dtype === "uint8" ? Uint8Array : Float32Array;
  }

  /**
   * Classifies an image.
   *
   * @param {ArrayLike<number>} pixels Of size x size x 3, in [0, 255].
   * @returns {Promise<object>} `predictions`, an array of probabilities;
   *     `maps`, `{rows, columns, values}`, the logits at each position, the
   *     classes last, or null if the model has no maps; `milliseconds`.
   */
  async classify(pixels) {
    const start = performance.now();
    const image = new Tensor(this.arrayType.from(pixels), this.shape);
    const outputs = await this.model.run({ image });
    const { predictions, class_activation_maps: maps } = outputs;
    // A single output is a binary classifier. The negative class comes first.
    const single = predictions.type.layout.dimensions[1] === 1;
    const read = async (tensor, opposite) => {
      const values = await tensor.data();
      return single ? withOpposite(values, opposite) : values;
    };
    const result = {
      predictions: await read(predictions, (x) => 1 - x),
      maps: maps && {
        rows: maps.type.layout.dimensions[1],
        columns: maps.type.layout.dimensions[2],
        values: await read(maps, (x) => -x),
      },
    };
    for (const tensor of [image, ...Object.values(outputs)]) tensor.delete();
    return { ...result, milliseconds: performance.now() - start };
  }
}

function withOpposite(values, opposite) {
  return Float32Array.from({ length: 2 * values.length }, (_, i) =>
    i % 2 ? values[i >> 1] : opposite(values[i >> 1]),
  );
}
