"""Loads classifiers: published variants and several file formats."""

import collections.abc
import dataclasses
import logging
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

from convmixer_tf.data.cropping import CROP_FRACTION
from convmixer_tf.data.decoding import ORIENTATION
from convmixer_tf.data.validation import check_crop_fraction
from convmixer_tf.files import PathLike
from convmixer_tf.inference.activations import activation_of_saved_model
from convmixer_tf.inference.activations import activation_of_tflite
from convmixer_tf.models import open_model
from convmixer_tf.models.additions import read_reading
from convmixer_tf.models.open_model import DEFAULT_SIZE
from convmixer_tf.models.probabilities import activation_of_keras
from convmixer_tf.models.probabilities import name_classes
from convmixer_tf.models.probabilities import num_classes
from convmixer_tf.models.probabilities import probabilities
from convmixer_tf.models.probabilities import resolve_activation
from convmixer_tf.models.rebuilding import find_model
from convmixer_tf.models.structure import check_pixels
from convmixer_tf.models.variants import VARIANTS
from convmixer_tf.timing import available_cores
from convmixer_tf.validation import check_orientation
from convmixer_tf.weights.hub import HUB

# Defaults for files that do not say how their images are read.
_DEFAULTS = {"crop_fraction": CROP_FRACTION, "orientation": ORIENTATION}

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A classifier for images of one size.

    Attributes:
        predict: Function from pixels in [0, 255], a float32 array of shape
            (batch, image_size, image_size, 3), to probabilities, of shape
            (batch, classes).
        classes: Integer, the number of classes.
        class_names: Class names in the order of the probabilities, or `None`.
        image_size: Side of the images, in pixels.
        crop_fraction: Part of an image's shorter side to keep.
        orientation: As for `data.decode_image`.
        outputs: Integer, the number of the model's outputs. Defaults to
            `classes`. A binary classifier may have a single output.
    """

    predict: collections.abc.Callable
    classes: int
    class_names: tuple[str, ...] | None
    image_size: int
    crop_fraction: float = CROP_FRACTION
    orientation: str = ORIENTATION
    outputs: int | None = None

    def renamed(self, class_names):
        """Returns a copy of the classifier with other class names.

        Args:
            class_names: Names of the outputs or of the classes, or `None`.

        Returns:
            A `Classifier`.

        Raises:
            ValueError: If the number of names is not the number of classes.
        """
        names = name_classes(class_names, self.outputs or self.classes)
        return dataclasses.replace(self, class_names=names)


def load_classifier(
    name: PathLike,
    image_size: int | None = None,
    crop_fraction: float | None = None,
    orientation: str | None = None,
) -> Classifier:
    """Loads a classifier.

    If neither the arguments nor the file say how images are cropped or rotated,
    a warning is logged with the values that are used.

    Args:
        name: The name of a variant with its published weights;
            `"hf://USER/REPOSITORY"`, as for `models.open_model`; or the path of
            a `.keras` or `.tflite` file, a file of weights, a SavedModel
            folder, a TF Hub module folder or a run folder with a `model.keras`.
        image_size: Side of the images, in pixels. Defaults to the model's, or
            to 224 if it takes any size.
        crop_fraction: Fraction of an image's shorter side to keep. Defaults to
            the value in the model's file, or else to 0.96.
        orientation: As for `data.decode_image`. Defaults to the value in the
            model's file, or else to `"exif"`.

    Returns:
        A `Classifier`.

    Raises:
        FileNotFoundError: If there is no such model.
        ImportError: If it is a `.tflite` file and LiteRT is not installed.
        OSError: If a variant's weights can't be downloaded.
        ValueError: If it can't be read, takes other images or is not a
            classifier; or if it is a Keras model and Keras' image data format
            is `"channels_first"`.
    """
    return _opened(_load, name, image_size, crop_fraction, orientation)


def load_features(
    name: PathLike,
    image_size: int | None = None,
    crop_fraction: float | None = None,
    orientation: str | None = None,
) -> Classifier:
    """Loads a model without its classifier, to compute features of images.

    Args:
        name: As for `models.open_model`. The model must end in pooling, with
            or without a dense classifier after it.
        image_size: As for `load_classifier`.
        crop_fraction: As for `load_classifier`.
        orientation: As for `load_classifier`.

    Returns:
        A `Classifier` without class names, whose `predict` gives features,
        float32 of shape (batch, classes).

    Raises:
        FileNotFoundError: If there is no such model.
        OSError: If a variant's weights can't be had.
        ValueError: If it can't be read, is not of such images, or has no such
            features.
    """
    return _opened(_load_features, name, image_size, crop_fraction, orientation)


def _opened(load, name, image_size, crop_fraction, orientation):
    """Loads a model, and settles how its images are read."""
    name = os.fspath(name)
    check_crop_fraction(crop_fraction)
    check_orientation(orientation)
    found = load(name, image_size)
    known = {
        "crop_fraction": crop_fraction or found.crop_fraction,
        "orientation": orientation or found.orientation,
    }
    assumed = {
        key: default for key, default in _DEFAULTS.items() if known[key] is None
    }
    if assumed:
        _LOG.warning(
            "`%s` does not say how images are read. Using defaults: %s",
            name,
            ", ".join(f"--{key} {value}" for key, value in assumed.items()),
        )
    return dataclasses.replace(found, **{**known, **assumed})


def _load(name, image_size):
    """Loads a classifier. Unknown crop and orientation are `None`."""
    if name in VARIANTS or name.startswith(HUB):
        return _opened_classifier(name, image_size)
    path = pathlib.Path(find_model(name))
    wanted = (
        "The model must be a .keras or .tflite file, a file of weights, a "
        "SavedModel, TF Hub module or run folder, or one of "
        f"{', '.join(VARIANTS)}. Received: {name!r}"
    )
    if not path.exists():
        raise FileNotFoundError(wanted)
    if path.is_file() and path.suffix not in (".keras", ".tflite"):
        try:
            return _opened_classifier(path, image_size)
        except ValueError as error:
            raise ValueError(f"{wanted}. {error}") from error
    if (path / "saved_model").is_dir():  # A TF Hub module folder.
        path = path / "saved_model"
    if path.suffix == ".tflite":
        found = _tflite_classifier(path, image_size)
    elif path.is_dir():
        found = _saved_model_classifier(path, image_size)
    else:
        return _opened_classifier(path, image_size)
    reading = read_reading(path)
    return dataclasses.replace(
        found,
        crop_fraction=reading.crop_fraction,
        orientation=reading.orientation,
    )


def _opened_classifier(name, image_size):
    """Creates a classifier from a model that `open_model` opens."""
    _check_data_format()
    opened = open_model(name, image_size)
    check_pixels(opened.model)
    found = _keras_classifier(opened.model, image_size)
    return dataclasses.replace(
        found.renamed(opened.class_names),
        crop_fraction=opened.crop_fraction,
        orientation=opened.orientation,
    )


def _load_features(name, image_size):
    """Makes of what `open_model` opens a `Classifier` that gives features."""
    _check_data_format()
    path = find_model(name)
    if os.path.isdir(path) or path.endswith(".tflite"):
        raise ValueError(
            "Features are computed by Keras models: a variant, a .keras file, "
            f"the folder of a run or a file of weights. Received: {name!r}"
        )
    opened = open_model(name, image_size)
    check_pixels(opened.model)
    model = opened.model
    if activation_of_keras(model) is not None:
        dense = [x for x in model.layers if isinstance(x, keras.layers.Dense)]
        if dense:
            model = keras.Model(model.inputs, dense[-1].input)
    if len(model.output_shape) != 2 or activation_of_keras(model) is not None:
        raise ValueError(
            "The model must end in pooling, or in a dense classifier after "
            f"it, to have features. Received: {name!r}, with outputs of shape "
            f"{model.output_shape}"
        )
    size = _resolve_size(model.input_shape[1:], image_size)
    return Classifier(
        _compiled(model, size),
        model.output_shape[1],
        None,
        size,
        opened.crop_fraction,
        opened.orientation,
    )


def _compiled(model, size):
    """Makes a function of a Keras model, built once for all batches."""
    if keras.backend.backend() != "tensorflow":
        return model.predict_on_batch
    # The last batch may be smaller.
    return tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec((None, size, size, 3))],
        autograph=False,
    )


def _check_data_format():
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Image files are read as (height, width, channels), but Keras' "
            "image data format is channels_first. Call "
            "`keras.config.set_image_data_format('channels_last')`, or change "
            "`image_data_format` in ~/.keras/keras.json."
        )


def _keras_classifier(model, image_size=None):
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise _not_of_images(shape)
    size = _resolve_size(shape[1:], image_size)
    activation = activation_of_keras(model)
    predict = _compiled(model, size)
    return _probed(predict, activation, None, size, model.output_shape)


def _tflite_classifier(path, image_size):
    # Not above: only these files need LiteRT.
    from convmixer_tf.export import LiteRTModel
    from convmixer_tf.export import read_metadata

    model = LiteRTModel(path, num_threads=_threads())
    metadata = read_metadata(path)
    if metadata and (set(metadata.mean), set(metadata.std)) != ({0.0}, {1.0}):
        raise ValueError(
            f"`{path}` must take pixels in [0, 255]. Its metadata has "
            f"mean={metadata.mean}, std={metadata.std}"
        )
    size = _resolve_size(model.input_shape, image_size)
    names = metadata.class_names if metadata else None
    return _probed(model.predict, activation_of_tflite(path), names, size)


def _threads():
    """Returns TensorFlow's number of threads, or the number of cores."""
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    return threads or available_cores()


def _saved_model_classifier(path, image_size):
    from convmixer_tf.export.verification import saved_model_worker

    try:
        loaded, signature, argument, spec, output = saved_model_worker.load(
            str(path), "serving_default"
        )
    except Exception as error:  # A damaged folder raises many types.
        raise ValueError(
            f"Cannot read a model from {str(path)!r}. {error}"
        ) from error
    size = _resolve_size(spec.shape[1:], image_size)
    names = getattr(loaded, "class_names", None)
    if names is not None:
        names = tuple(x.decode("utf-8") for x in names().numpy())

    white = np.float32(read_reading(path).max_pixel / 255)

    def predict(images, loaded=loaded):  # Keeps the variables alive.
        images = tf.cast(white * images, spec.dtype)
        return signature(**{argument: images})[output].numpy()

    predict = _of_any_number(predict, spec.shape[0])
    activation = activation_of_saved_model(signature, output)
    return _probed(predict, activation, names, size)


def _of_any_number(predict, count):
    """Makes a function of `count` images accept any number of images."""
    if count is None:
        return predict

    def predict_all(images):
        missing = -len(images) % count
        filled = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
        batches = np.split(filled, len(filled) // count)
        return np.concatenate([*map(predict, batches)])[: len(images)]

    return predict_all


def _resolve_size(shape, image_size):
    """Returns the size of a model's images of shape (height, width, 3)."""
    height, width, channels = shape
    size = image_size or height or DEFAULT_SIZE
    if channels not in (3, None):
        raise _not_of_images(tuple(shape))
    if (height or size, width or size) != (size, size):
        raise ValueError(
            f"The model takes images of {height} x {width} pixels, but images "
            f"are resized to {size} x {size}. Received: image_size={image_size}"
        )
    return size


def _not_of_images(shape):
    return ValueError(
        "The model must take images of 3 channels because image files are read "
        f"as RGB. Received: a model with input_shape={shape}"
    )


def _check_scores(shape, activation):
    if not isinstance(shape, tuple) or len(shape) != 2 or activation is None:
        raise ValueError(
            "The model must be a classifier with outputs of shape (batch, "
            f"classes). Received: a model with outputs of shape {shape}"
        )


def _probed(predict, activation, class_names, size, shape=None):
    """Runs a classifier to determine its unknown properties."""
    if shape is None:
        shape = np.shape(predict(np.zeros((1, size, size, 3), np.float32)))
    _check_scores(shape, activation)
    if shape[1] == 1 or activation == "unknown":
        outputs = predict(_probes(size))
        activation = resolve_activation(activation, outputs)
    found = Classifier(
        lambda images: probabilities(predict(images), activation),
        num_classes(shape[1]),
        None,
        size,
        outputs=shape[1],
    )
    return found.renamed(class_names)


def _probes(size):
    """Creates different images: some of one color, some of noise."""
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (6, 1, 1, 3))
    noise = rng.integers(0, 256, (6, size, size, 3))
    flat = np.broadcast_to(colors, noise.shape)
    return np.float32(np.concatenate([flat, noise]))
