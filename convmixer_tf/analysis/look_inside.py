"""Writes all pictures and cost tables of a model to a folder."""

import pathlib
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from convmixer_tf.analysis.activation_maps import class_activation_map
from convmixer_tf.analysis.activation_maps import save_activation_maps
from convmixer_tf.analysis.costs import layer_costs
from convmixer_tf.analysis.costs import save_costs
from convmixer_tf.analysis.dense import dense_classifier
from convmixer_tf.analysis.dense import save_label_map
from convmixer_tf.analysis.features import feature_extractor
from convmixer_tf.analysis.features import save_feature_maps
from convmixer_tf.analysis.filters import save_depthwise_filters
from convmixer_tf.analysis.filters import save_patch_filters
from convmixer_tf.analysis.receptive_field import receptive_fields
from convmixer_tf.analysis.receptive_field import save_receptive_fields
from convmixer_tf.files import PathLike
from convmixer_tf.files import check_destination

_FILES = (
    "feature_maps.png",
    "activation_maps.png",
    "dense_classes.png",
    "patch_filters.png",
    "depthwise_filters.png",
    "receptive_fields.png",
    "costs.md",
    "costs.csv",
    "costs.json",
)


def look_inside(
    model: keras.Model,
    images: np.ndarray,
    folder: PathLike,
    class_names: Sequence[str] | None = None,
    *,
    overwrite: bool = False,
) -> list[pathlib.Path]:
    """Draws what a ConvMixer sees in images and writes tables of its costs.

    It writes `feature_maps.png` and `receptive_fields.png` for the first image;
    `activation_maps.png` (see `class_activation_map`) and `dense_classes.png`
    (see `dense_classifier`) for all images; `patch_filters.png` and
    `depthwise_filters.png`, the kernels; and `costs.md`, `costs.csv` and
    `costs.json`, the result of `layer_costs`.

    Args:
        model: A ConvMixer with its classifier.
        images: Array of pixels in [0, 255], (images, height, width, 3) or
            (images, height, width, 1), as `data.read_images` returns them.
        folder: Path of the folder to write to. It is created if necessary.
        class_names: List of names, or `None` for numbers.
        overwrite: Boolean, whether existing files may be replaced.

    Returns:
        List of the paths of the files.

    Raises:
        FileExistsError: If a file exists and `overwrite` is `False`.
        ImportError: If matplotlib is missing.
        RuntimeError: If Keras' backend is not TensorFlow.
        ValueError: If `model` is not a ConvMixer with a classifier.

    Example:

    ```python
    opened = open_model("256_8")
    images, _ = read_images(open_dataset("photos", "test"), 32, 8)
    look_inside(opened.model, images, "inside", opened.class_names)
    ```
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in _FILES}
    for path in paths.values():
        check_destination(path, (path.suffix,), overwrite)
    rows = layer_costs(model, images.shape[1:])
    found = class_activation_map(model, images)
    large, classes = _dense_classes(model, images)
    save_feature_maps(
        paths["feature_maps.png"],
        images[0],
        _feature_maps(model, images[0]),
        overwrite=overwrite,
    )
    save_activation_maps(
        paths["activation_maps.png"],
        images,
        found,
        class_names,
        overwrite=overwrite,
    )
    save_label_map(
        paths["dense_classes.png"],
        large,
        classes,
        class_names,
        overwrite=overwrite,
    )
    save_patch_filters(paths["patch_filters.png"], model, overwrite=overwrite)
    save_depthwise_filters(
        paths["depthwise_filters.png"], model, overwrite=overwrite
    )
    save_receptive_fields(
        paths["receptive_fields.png"], model, images[0], overwrite=overwrite
    )
    for suffix in ("md", "csv", "json"):
        save_costs(paths[f"costs.{suffix}"], rows, overwrite=overwrite)
    return list(paths.values())


def _feature_maps(model, image):
    """Computes feature maps of the stem and of five blocks."""
    depth = len(receptive_fields(model)) - 1
    blocks = np.unique(np.linspace(0, depth - 1, 5).round().astype(int))
    names = ["patch_embed", *blocks.tolist()]
    maps = feature_extractor(model, names)(image[None], training=False)
    return {name: ops.convert_to_numpy(maps[name])[0] for name in maps}


def _dense_classes(model, images):
    """Classifies each patch of all images, arranged side by side.

    Returns:
        The large image, and the top class of each patch. Scores are averaged
        over a window with half an image's side.
    """
    half = len(images) // 2
    halves = (images[:half], images[-half:]) if half else (images,)
    large = np.vstack([np.hstack(part) for part in halves])
    scores = dense_classifier(model)(large[None], training=False)
    window = max(scores.shape[1] // 4, 1)
    scores = ops.average_pool(scores, window, 1, "same")
    return large, ops.convert_to_numpy(ops.argmax(scores[0], -1))
