"""Saves a ConvMixer and rebuilds it from its file."""

import os
import zipfile
from collections.abc import Sequence

import keras

from convmixer_tf.files import PathLike
from convmixer_tf.files import parse_lines
from convmixer_tf.files import replaced
from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers import PatchEmbed
from convmixer_tf.models.additions import EVALUATION_FILE
from convmixer_tf.models.additions import LABELS_FILE
from convmixer_tf.models.additions import ImageReading
from convmixer_tf.models.normalization import statistics_in
from convmixer_tf.preprocessing.imagenet import CROP_FRACTION
from convmixer_tf.validation import check_orientation


def save_model(
    model: keras.Model,
    path: PathLike,
    class_names: Sequence[str],
    crop_fraction: float = CROP_FRACTION,
    orientation: str = "exif",
) -> None:
    """Saves a model with its class names and how its images are read.

    Args:
        model: A `keras.Model`.
        path: Path of the `.keras` file, which is replaced.
        class_names: Names of the classes, in the order of the outputs.
        crop_fraction: Fraction of an image's side that is kept for evaluation.
            Defaults to the fraction of the published weights.
        orientation: `"exif"` or `"stored"`, as for `data.decode_image`.

    Raises:
        ValueError: If a name is blank, has more than one line or is not
            Unicode, or if `orientation` is neither of the two.
    """
    check_orientation(orientation)
    reading = ImageReading(crop_fraction, orientation)
    labels = "\n".join(class_names) + "\n"
    try:
        read = parse_lines(labels.encode("utf-8"), LABELS_FILE)
    except ValueError:  # A blank one, or one that is not Unicode.
        read = None
    # Other programs treat more characters as line ends.
    if read != tuple(class_names) or len(labels.splitlines()) != len(read):
        raise ValueError(
            "Argument `class_names` must hold names of one line each. "
            f"Received: class_names={class_names!r:.80}"
        )
    with replaced(path) as unfinished:
        model.save(unfinished)
        with zipfile.ZipFile(unfinished, "a") as archive:
            archive.writestr(LABELS_FILE, labels)
            archive.writestr(EVALUATION_FILE, reading.text())


def read_arguments(path: PathLike) -> dict | None:
    """Reads the arguments of `ConvMixer` from a saved model.

    Args:
        path: Path of a `.keras` file.

    Returns:
        Dictionary of the arguments of `ConvMixer` that define the body, the
        images and their normalization. Pass `weights=path` to load the weights.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it can't be read, or holds another model.

    Example:

    ```python
    arguments = read_arguments("model.keras")
    model = ConvMixer(
        **arguments, weights="model.keras", classes=3, reset_classifier=True
    )
    ```
    """
    return arguments_of(load_model(path), os.fspath(path))


def arguments_of(model, name="model"):
    """Reads the arguments of `ConvMixer` from a model.

    Args:
        model: A `keras.Model`.
        name: String, the model's name in error messages.

    Returns:
        As for `read_arguments`.

    Raises:
        ValueError: If it is another model.
    """
    layers = {layer.name: layer for layer in model.layers}
    embed = layers.get("patch_embed")
    normalization = layers.get("normalization")
    blocks = [x for x in model.layers if isinstance(x, ConvMixerBlock)]
    if not isinstance(embed, PatchEmbed) or not blocks:
        raise ValueError(
            f"The model `{name}` must be a ConvMixer, with the layers "
            f"`patch_embed`, `block_0` and so on. Received: {', '.join(layers)}"
        )
    arguments = {
        "dim": embed.dim,
        "depth": len(blocks),
        "kernel_size": blocks[0].kernel_size,
        "patch_size": embed.patch_size,
        "activation": embed.activation,
        "input_shape": model.input_shape[1:],
        "include_preprocessing": normalization is not None,
    }
    if normalization is not None:
        mean, std = statistics_in(normalization.get_config())
        arguments |= {"mean": mean, "std": std}
    return arguments


def load_model(path: PathLike) -> keras.Model:
    """Loads a saved model for inference.

    Args:
        path: Path of a `.keras` file.

    Returns:
        A `keras.Model`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it can't be read.
    """
    path = os.fspath(path)
    if not path.endswith(".keras"):
        raise ValueError(
            f"A saved model's file must end in .keras. Received: `{path}`"
        )
    if not os.path.isfile(path):
        raise FileNotFoundError(f"The file `{path}` does not exist.")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # A damaged file raises many types.
        raise ValueError(
            f"Cannot read a model from `{path}`. {error}"
        ) from error


def find_model(path: PathLike) -> str:
    """Finds the model in a run folder.

    Args:
        path: Path of a file or folder.

    Returns:
        The path of its `model.keras` if it is a run folder, else `path`.
    """
    inside = os.path.join(path, "model.keras")
    return inside if os.path.isfile(inside) else os.fspath(path)
