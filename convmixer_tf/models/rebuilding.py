"""Saving a ConvMixer, and building one like it."""

import json
import os
import zipfile

import keras

from convmixer_tf.files import replaced
from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers import PatchEmbed


def save_model(model, path, class_names, crop_fraction):
    """Saves a model with the names of its classes, and how it is evaluated.

    Args:
        model: A `keras.Model`.
        path: Path of the `.keras` file, which is replaced.
        class_names: Names of the classes, in the order of the outputs.
        crop_fraction: Fraction of the side of an image that is evaluated.
    """
    with replaced(path) as unfinished:
        model.save(unfinished)
        with zipfile.ZipFile(unfinished, "a") as archive:
            archive.writestr("labels.txt", "\n".join(class_names) + "\n")
            evaluation = json.dumps({"crop_fraction": crop_fraction})
            archive.writestr("evaluation.json", evaluation)


def read_arguments(path):
    """Reads off a saved ConvMixer the arguments that build one like it.

    Args:
        path: Path of a `.keras` file.

    Returns:
        Dictionary of arguments of `ConvMixer`: what defines the body, the
        images and their normalisation. The weights come with `weights=path`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it can't be read, or holds something else.

    Example:

    ```python
    arguments = read_arguments("model.keras")
    model = ConvMixer(
        **arguments, weights="model.keras", classes=3, reset_classifier=True
    )
    ```
    """
    model = load_model(path)
    layers = {layer.name: layer for layer in model.layers}
    embed = layers.get("patch_embed")
    normalization = layers.get("normalization")
    blocks = [x for x in model.layers if isinstance(x, ConvMixerBlock)]
    if not isinstance(embed, PatchEmbed) or not blocks:
        raise ValueError(
            f"The model in `{path}` must be a ConvMixer, with the layers "
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
        config = normalization.get_config()
        arguments["mean"] = [mean / 255 for mean in config["mean"]]
        arguments["std"] = [var**0.5 / 255 for var in config["variance"]]
    return arguments


def load_model(path):
    """Loads a saved model, not to be trained on.

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
        raise FileNotFoundError(f"There is no file `{path}`.")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # From a damaged file: of many kinds.
        raise ValueError(
            f"Cannot read a model from `{path}`. {error}"
        ) from error


def read_class_names(path):
    """Reads the names of the classes from a model's file.

    Args:
        path: Path of a `.keras` file.

    Returns:
        Tuple of strings in the order of the outputs, or `None` if the file
        has none.
    """
    text = _read_text(path, "labels.txt")
    return None if text is None else tuple(text.splitlines())


def read_crop_fraction(path):
    """Reads from a model's file how its images are cropped to evaluate it.

    Args:
        path: Path of a `.keras` file.

    Returns:
        Float, the fraction of an image's shorter side, or `None` if the file
        doesn't say it.
    """
    text = _read_text(path, "evaluation.json")
    return None if text is None else json.loads(text)["crop_fraction"]


def _read_text(path, name):
    """Reads what `save_model` added to the model, or `None`."""
    with zipfile.ZipFile(path) as archive:
        if name not in archive.namelist():
            return None
        return archive.read(name).decode("utf-8")
