"""Compares MediaPipe's ImageClassifier with LiteRT on real photographs.

    python export/benchmark_mediapipe.py --images FOLDER --split validation \
        --output mediapipe.json

FOLDER is one of split/class/*.jpg, or a name in tensorflow-datasets. Of four
photographs each, resized and cropped by this package to 224 x 224, three are
classified, the fourth is for int8's ranges. MediaPipe opens the files as
`export_tflite` leaves them.

The model is ConvMixer-128/4 with kernels of 7 x 7 on patches of 14 x 14, for
100 classes. Its weights are random but for the classifier's scale and bias,
which spread the photographs over the classes: what is compared is how two
programs run one file, not what it knows.

Time: two minutes. Result: results/mediapipe.json, and "Deployment" in BUILD.md.
"""

import os
import pathlib
import sys
import tempfile

import keras
import litert_timing
import numpy as np
from absl import app
from absl import flags

from convmixer_tf import ConvMixer
from convmixer_tf import data
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import export_tflite
from convmixer_tf.export.verification.runtimes import open_runtime
from convmixer_tf.export.verification.runtimes import predict
from convmixer_tf.files import check_destination

SIZE, CLASSES = 224, 100
# Of the logits, so that probabilities are neither equal nor 0 and 1.
SPREAD = 3.0
FORMATS = {  # what `export_tflite` is asked for
    "float32": {},
    "dynamic": {"quantization": "dynamic"},
    "int8, float32 out": {"quantization": "int8"},
    "int8, uint8 out": {"quantization": "int8", "output_dtype": "uint8"},
}

_IMAGES = flags.DEFINE_string("images", None, "Photographs.", required=True)
_SPLIT = flags.DEFINE_string("split", "validation", "Which part of them.")
_LIMIT = flags.DEFINE_integer("limit", 400, "The most of them to take.", 40)
_OUTPUT = flags.DEFINE_string("output", "mediapipe.json", "File to write.")
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace an existing file."
)


def build(images):
    """Builds a model that gives images classes of all kinds."""
    keras.utils.set_random_seed(0)
    model = ConvMixer(128, 4, 7, 14, classes=CLASSES)
    head = model.get_layer("predictions")
    body = keras.Model(model.input, head.input)
    features = body.predict(images, batch_size=32, verbose=0)
    logits = features @ head.kernel.numpy()
    scale = SPREAD / logits.std(axis=0)
    head.kernel.assign(head.kernel * scale)
    head.bias.assign(-logits.mean(axis=0) * scale)
    return model


def compare(path, images):
    """Runs a file in both programs.

    Returns:
        Dictionary, ready for JSON.
    """
    ours = LiteRTModel(path).predict(images)
    with open_runtime(path, runtime="mediapipe") as runtime:
        theirs = predict(runtime, images)
        name = runtime.name
    return {
        "runtime": name,
        "images": len(images),
        "bytes": os.path.getsize(path),
        "classes_seen": len(np.unique(ours.argmax(-1))),
        "agreement": float(np.mean(ours.argmax(-1) == theirs.argmax(-1))),
        "max_difference": float(np.abs(ours - theirs).max()),
    }


def measure(images):
    """Exports and compares every format.

    Returns:
        List of dictionaries, ready for JSON.
    """
    calibration = images[3::4]
    images = np.delete(images, np.s_[3::4], axis=0)
    model = build(images)
    names = [f"class {number}" for number in range(CLASSES)]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"
        for name, arguments in FORMATS.items():
            if arguments.get("quantization") == "int8":
                arguments = {**arguments, "calibration_images": calibration}
            export_tflite(
                model, path, class_names=names, overwrite=True, **arguments
            )
            results.append({"format": name, **compare(path, images)})
            print(table(results[-1:]).splitlines()[-1], flush=True)
    return results


def table(results):
    """Formats results as a Markdown table."""
    lines = [
        "| format | kB | images | classes seen | agreement | difference |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        lines.append(
            f"| {r['format']} | {r['bytes'] / 1e3:.0f} | {r['images']} "
            f"| {r['classes_seen']} | {r['agreement']:.4f} "
            f"| {r['max_difference']:.2g} |"
        )
    return "\n".join(lines)


def main(arguments):
    """Compares, and writes the JSON file."""
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected arguments: {arguments[1:]}")
    try:
        check_destination(_OUTPUT.value, (".json",), _OVERWRITE.value)
        dataset = data.open_dataset(_IMAGES.value, _SPLIT.value)
        images, _ = data.read_images(dataset, SIZE, _LIMIT.value)
        results = measure(images)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    litert_timing.write(_OUTPUT.value, results)
    print(table(results))


if __name__ == "__main__":
    app.run(main)
