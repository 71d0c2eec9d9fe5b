"""Compares the built page, in headless Chromium, with this package."""

import json
import os
import pathlib
import subprocess
import tempfile

import numpy as np
import tensorflow as tf

from convmixer_tf.data import decode_image
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export.web import DESCRIPTION_FILE
from convmixer_tf.export.web import MODEL_FILE
from tests.helpers import ROOT


def run_page(folder, paths):
    """Returns the page's pixels and results for images, as dictionaries."""
    with tempfile.TemporaryDirectory() as directory:
        results = os.path.join(directory, "results.json")
        finished = subprocess.run(
            [
                *("node", "test/classify.js", os.path.abspath(folder)),
                *(results, *map(os.path.abspath, paths)),
            ],
            cwd=ROOT / "export" / "web",
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0, finished.stderr
        return json.loads(pathlib.Path(results).read_text(encoding="utf-8"))


def compare(folder, paths):
    """Compares the page with this package and LiteRT.

    Differences of pixels are in gray levels. Differences of predictions are
    between probabilities, with LiteRT on the page's own pixels and on the
    pixels that this package reads. The difference of maps is on the page's
    pixels, as a fraction of their range.
    """
    folder = pathlib.Path(folder)
    known = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    size = known["image_size"]
    found = run_page(folder, paths)
    theirs = np.array([image["pixels"] for image in found], "uint8")
    theirs = theirs.reshape(-1, size, size, 3)
    ours = np.stack(
        [
            resize_and_center_crop(
                decode_image(
                    tf.io.read_file(os.fspath(path)), known["orientation"]
                ),
                size,
                known["crop_fraction"],
            )
            for path in paths
        ]
    )
    pixels = np.abs(theirs.astype(int) - ours)
    predictions = np.float32([image["predictions"] for image in found])
    model = LiteRTModel(folder / MODEL_FILE)
    maps = LiteRTModel(folder / MODEL_FILE, output="class_activation_maps")
    their_maps = np.float32([image["maps"]["values"] for image in found])
    map_difference = np.abs(
        their_maps - maps.predict(theirs).reshape(their_maps.shape)
    )
    same, own = model.predict(theirs), model.predict(ours)
    agree = predictions.argmax(-1) == own.argmax(-1)
    return {
        "images": len(found),
        "pixels_that_differ": float(np.mean(pixels > 0)),
        "pixel_difference_max": int(pixels.max()),
        "same_pixels_difference": float(np.abs(predictions - same).max()),
        "map_difference": float(map_difference.max() / np.ptp(their_maps)),
        "agreement": float(agree.mean()),
    }
