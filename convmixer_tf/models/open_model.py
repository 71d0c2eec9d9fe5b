"""Opens a Keras model by name or path, for all commands."""

import dataclasses
import json
import os

import keras

from convmixer_tf.files import PathLike
from convmixer_tf.models.additions import read_class_names
from convmixer_tf.models.additions import read_reading
from convmixer_tf.models.convmixer import ConvMixer
from convmixer_tf.models.normalization import statistics_of
from convmixer_tf.models.rebuilding import find_model
from convmixer_tf.models.rebuilding import load_model
from convmixer_tf.models.variants import VARIANTS
from convmixer_tf.preprocessing.decoding import class_names
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights import read_weights
from convmixer_tf.weights.checking import infer_architecture
from convmixer_tf.weights.hub import CONFIG_FILE
from convmixer_tf.weights.hub import HUB
from convmixer_tf.weights.hub import fetch_from_hub

# Image size, in pixels, for a model that takes images of any size.
DEFAULT_SIZE = 224


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """A model, and how image files are turned into its inputs.

    Attributes:
        model: The `keras.Model`.
        class_names: Names of the classes in the order of the outputs, or `None`
            if they are unknown.
        crop_fraction: Fraction of an image's shorter side that is kept for
            evaluation, or `None` if it is unknown.
        orientation: `"exif"` or `"stored"`, as in `data.decode_image`, or
            `None` if it is unknown.
        max_pixel: Value of a white pixel.
    """

    model: keras.Model
    class_names: tuple[str, ...] | None = None
    crop_fraction: float | None = None
    orientation: str | None = None
    max_pixel: int = 255


def open_model(
    name: PathLike,
    image_size: int | None = None,
    *,
    any_size: bool = False,
    weights: str | os.PathLike[str] | None = None,
    activation: str | None = None,
) -> OpenedModel:
    """Opens a model.

    Args:
        name: A variant: `"1536_20"`, `"768_32"`, `"1024_20"`, `"512_16"` or
            `"256_8"`; the path of a `.keras` file, a run folder or a weights
            file that `weights.read_weights` reads; or
            `"hf://USER/REPOSITORY"` on the Hugging Face hub. A repository must
            have a `model.keras`, or a `model.safetensors` with timm's
            `config.json`. `@REVISION` (a commit, tag or branch) and `/FILE` may
            follow; a commit pins the content.
        image_size: Image size, in pixels, for a variant or a weights file,
            which fit any size. Defaults to the size of the published weights,
            or 224.
        any_size: Whether such a model takes images of any size instead.
        weights: For a variant: weights as in `ConvMixer768_32`, or `"random"`.
            Defaults to the published weights.
        activation: For a weights file: `"gelu"` or `"relu"`. Defaults to the
            activation of the published variant of the same architecture. The
            mean and standard deviation of the pixels are also that variant's,
            or else ImageNet's.

    Returns:
        An `OpenedModel`.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If published weights can't be downloaded.
        ValueError: If the file holds no model, or the activation is unknown.

    Example:

    ```python
    opened = open_model("256_8")
    opened.model.predict(images), opened.class_names, opened.crop_fraction
    ```
    """
    name = os.fspath(name)
    if name in VARIANTS:
        return _open_variant(name, image_size, any_size, weights)
    is_hub = name.startswith(HUB)
    path = fetch_from_hub(name) if is_hub else find_model(name)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            "The model must be the path of a .keras file, a run folder or a "
            f"weights file, or one of {', '.join(VARIANTS)}. Received: {name!r}"
        )
    if weights is not None:
        raise ValueError(
            "Argument `weights` is for a variant, one of "
            f"{', '.join(VARIANTS)}. Received: weights={weights!r} for {name!r}"
        )
    if path.endswith(".keras"):
        reading = read_reading(path)
        return OpenedModel(
            load_model(path),
            read_class_names(path),
            reading.crop_fraction,
            reading.orientation,
        )
    config = _read_config(name) if is_hub else {}
    settings = config.get("pretrained_cfg", {})
    size = image_size or settings.get("input_size", [DEFAULT_SIZE])[-1]
    model = _from_weights(
        path,
        None if any_size else size,
        activation or config.get("activation"),
        settings,
    )
    names = config.get("label_names")
    return OpenedModel(
        model, names and tuple(names), settings.get("crop_pct"), None
    )


def default_image_size(name):
    """Returns the default image size of a model that takes any size.

    Args:
        name: As for `open_model`.

    Returns:
        Integer, in pixels: the size of a variant's published weights, or 224.
    """
    facts = PUBLISHED_WEIGHTS.get(f"convmixer_{name}")
    return facts.image_size if facts else DEFAULT_SIZE


def _open_variant(name, image_size, any_size, weights):
    facts = PUBLISHED_WEIGHTS[f"convmixer_{name}"]
    size = None if any_size else image_size or facts.image_size
    weights = None if weights == "random" else weights or facts.dataset
    model = VARIANTS[name](weights=weights, input_shape=(size, size, 3))
    names = class_names(facts.dataset)
    return OpenedModel(model, names, facts.crop_fraction, "exif")


def _read_config(name):
    """Reads a repository's timm `config.json`, if it has one."""
    repository = "/".join(name.removeprefix(HUB).split("/")[:2])
    try:
        path = fetch_from_hub(f"{HUB}{repository}/{CONFIG_FILE}")
    except FileNotFoundError:
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _from_weights(path, size, activation, settings):
    found = infer_architecture(read_weights(path))
    shape = (found.dim, found.depth, found.kernel_size, found.patch_size)
    published = _find_published(shape)
    if activation is None and published is not None:
        activation = published.activation
    if activation is None:
        raise ValueError(
            f"The file `{path}` has no activation of its ConvMixer, "
            "and no published variant has this architecture. Pass "
            "`activation` (`--activation`), such as gelu or relu."
        )
    include_top = found.classes is not None
    mean, std = statistics_of(published, found.channels)
    mean, std = settings.get("mean", mean), settings.get("std", std)
    return ConvMixer(
        *shape,
        activation,
        include_top=include_top,
        weights=path,
        input_shape=(size, size, found.channels),
        pooling=None if include_top else "avg",
        classes=found.classes or 1,
        mean=mean,
        std=std,
    )


def _find_published(shape):
    for facts in PUBLISHED_WEIGHTS.values():
        known = (facts.dim, facts.depth, facts.kernel_size, facts.patch_size)
        if known == shape:
            return facts
    return None
