"""Compares the web page, in headless Chromium, with LiteRT on real images.

    python export/compare_web.py --page_model export/web/public/model \
        --photos FOLDER --output comparison.json

Each image is chosen in the built page (`export/web/README.md` says how to
build it), and what the page read and found is compared with this package's
decoding and transform, and with ai-edge-litert. Each model goes through each
folder of images. Needs Node.js and Chromium,
whose path is in the environment's CHROMIUM; /usr/bin/chromium is the default.

Time: half a minute for 200 photographs. Result: `results/web.json`.
"""

import json
import os
import pathlib
import subprocess
import tempfile

import export_flags
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags

from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.data.decoding import decode_image
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export.web import DESCRIPTION_FILE
from convmixer_tf.export.web import MODEL_FILE
from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced

PAGE = pathlib.Path(__file__).resolve().parent / "web"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")

_MODELS = flags.DEFINE_multi_string(
    "page_model", None, "Folder that export/to_web.py wrote; repeat."
)
_PHOTOS = flags.DEFINE_multi_string(
    "photos", None, "Folder of images, and folders of them; repeat."
)
_LIMIT = flags.DEFINE_integer("photo_limit", 200, "The most to take.", 1)
flags.mark_flags_as_required(["page_model", "photos", "output"])


def run_page(folder, paths):
    """Classifies images in the page.

    Args:
        folder: Path of what `export_web` wrote.
        paths: Paths of images.

    Returns:
        List of dictionaries of `"predictions"`, `"pixels"`, `"maps"` and
        `"milliseconds"`, one for each image.

    Raises:
        FileNotFoundError: If the page is not built.
        ValueError: If the page refuses an image, or doesn't run.
    """
    if not (PAGE / "dist" / "index.html").is_file():
        raise FileNotFoundError(
            f"The page is not built. Run in `{PAGE}`: npm ci && npm run build"
        )
    with tempfile.TemporaryDirectory() as directory:
        results = os.path.join(directory, "results.json")
        finished = subprocess.run(
            [
                *("node", "test/classify.js", os.path.abspath(folder)),
                *(results, *map(os.path.abspath, paths)),
            ],
            cwd=PAGE,
            capture_output=True,
            text=True,
        )
        if finished.returncode:
            raise ValueError(f"The page failed: {finished.stderr.strip()}")
        return json.loads(pathlib.Path(results).read_text(encoding="utf-8"))


def compare(folder, paths):
    """Compares the page with this package and LiteRT.

    Args:
        folder: Path of what `export_web` wrote.
        paths: Paths of images.

    Returns:
        Dictionary, ready for JSON. Differences of pixels are in grey levels,
        those of predictions between probabilities: with LiteRT on the page's
        own pixels, and on those that this package reads of the files. That
        of maps is on the page's pixels, a fraction of their whole range.
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
        "image_size": size,
        "crop_fraction": known["crop_fraction"],
        "images": len(found),
        "pixels_that_differ": float(np.mean(pixels > 0)),
        "pixel_difference_mean": float(pixels.mean()),
        "pixel_difference_max": int(pixels.max()),
        "same_pixels_difference": float(np.abs(predictions - same).max()),
        "map_difference": float(map_difference.max() / np.ptp(their_maps)),
        "difference_mean": float(np.abs(predictions - own).mean()),
        "difference_max": float(np.abs(predictions - own).max()),
        "agreement": float(agree.mean()),
        "milliseconds": float(np.median([x["milliseconds"] for x in found])),
    }


def find_images(folder, limit):
    """Lists images in a folder and those below it, spread over all of them."""
    paths = sorted(
        path
        for path in pathlib.Path(folder).rglob("*")
        if path.suffix.lower() in SUFFIXES
    )
    if not paths:
        raise FileNotFoundError(f"There are no images in `{folder}`.")
    step = max(len(paths) / limit, 1)
    return [paths[int(i * step)] for i in range(min(limit, len(paths)))]


def main(argv):
    """Compares on the images that the flags name."""
    export_flags.begin(argv)
    output = export_flags.OUTPUT.value
    with export_flags.errors_end_it():
        check_destination(output, (".json",), export_flags.OVERWRITE.value)
        reports = [
            {
                "model": pathlib.Path(model).name,
                "photos": pathlib.Path(photos).name,
                **compare(model, find_images(photos, _LIMIT.value)),
            }
            for model in _MODELS.value
            for photos in _PHOTOS.value
        ]
        with replaced(output) as path:
            text = json.dumps(reports, indent=1) + "\n"
            pathlib.Path(path).write_text(text, encoding="utf-8")
    export_flags.print_table(
        [
            (name, *(_short(report[name]) for report in reports))
            for name in reports[0]
        ]
    )


def _short(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    app.run(main)
