"""Timing an artefact against the plain conversion of its model."""

import pathlib
import statistics

import keras
import numpy as np

from convmixer_tf.export.tflite import MIN_CALIBRATION_IMAGES
from convmixer_tf.export.tflite import PLAIN_QUANTIZATIONS
from convmixer_tf.export.tflite import export_tflite


def take_turns(runtimes, image, rounds):
    """Times runtimes on one image, one after the other, again and again.

    Args:
        runtimes: Dictionary from names to what `open_runtime` returns.
        image: Pixels, (height, width, channels).
        rounds: Integer, how often each is timed, after one untimed run.

    Returns:
        Dictionary from names to lists of seconds of processor time.
    """
    seconds = {name: [] for name in runtimes}
    batch = np.float32(image)[None]
    for number in range(rounds + 1):
        for name, runtime in runtimes.items():
            _, spent = runtime.run(batch)
            if number:
                seconds[name].append(spent)
    return seconds


def summarise(seconds, baseline):
    """Reduces times to medians in milliseconds, and their ratio.

    Args:
        seconds: What `take_turns` returns for `"artefact"` and `"baseline"`.
        baseline: What the baseline is, in words.

    Returns:
        Dictionary, ready for JSON.
    """
    medians = {
        name: statistics.median(values) for name, values in seconds.items()
    }
    return {
        "artefact_ms": 1e3 * medians["artefact"],
        "baseline_ms": 1e3 * medians["baseline"],
        "ratio": medians["artefact"] / max(medians["baseline"], 1e-9),
        "baseline": baseline,
        "rounds": len(seconds["artefact"]),
        "clock": "processor time, one image",
    }


def export_plain(model, scheme, images, directory):
    """Exports a model without any rewriting, to compare with.

    Args:
        model: A `keras.Model`.
        scheme: One of those of `default_limits`.
        images: Pixels, (images, height, width, channels).
        directory: Where to put the file.

    Returns:
        The path of the `.tflite` file, and what it is, in words. For `"int4"`
        that is "dynamic", since TensorFlow's converter has no 4 bits. `None`
        for `"int8"` if too few images differ to calibrate with.
    """
    if scheme not in (*PLAIN_QUANTIZATIONS, "float32"):
        scheme = "dynamic"
    calibration = None
    if scheme == "int8":
        calibration = _distinct(images, MIN_CALIBRATION_IMAGES)
        if len(calibration) < MIN_CALIBRATION_IMAGES:
            return None
    path = pathlib.Path(directory) / "plain.tflite"
    fixed = keras.Input(images.shape[1:], name="image")
    fixed = keras.Model(fixed, model(fixed))
    export_tflite(
        fixed,
        path,
        quantization=None if scheme == "float32" else scheme,
        calibration_images=calibration,
        plain=True,
    )
    return path, f"plain {scheme} conversion, LiteRT"


def _distinct(images, count):
    """Takes the first few: ranges hardly matter to an operator's time."""
    found = {}
    for image in images:
        found.setdefault(np.float32(image).tobytes(), image)
        if len(found) == count:
            break
    return np.stack(list(found.values()))
