"""Exports SavedModels for servers that take pixels or image files."""

import contextlib
import functools
from collections.abc import Sequence

import keras
import tensorflow as tf

from convmixer_tf.data import decode_image
from convmixer_tf.data.cropping import CROP_FRACTION
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.data.validation import check_crop_fraction
from convmixer_tf.export.preparation import check_backend
from convmixer_tf.export.preparation import check_image_model
from convmixer_tf.export.preparation import classifier_of
from convmixer_tf.export.preparation import in_float32
from convmixer_tf.files import PathLike
from convmixer_tf.files import check_folder_destination
from convmixer_tf.files import replaced_folder
from convmixer_tf.models.additions import ImageReading
from convmixer_tf.models.additions import write_reading
from convmixer_tf.models.probabilities import activation_of_keras
from convmixer_tf.models.probabilities import check_single_output
from convmixer_tf.models.probabilities import graph_probabilities
from convmixer_tf.models.probabilities import name_classes
from convmixer_tf.models.probabilities import num_classes
from convmixer_tf.validation import check_orientation
from convmixer_tf.validation import check_positive_integer

SAVED_MODEL_FILE = "saved_model.pb"

# Without AutoGraph, because the functions already are graph code.
graph_function = functools.partial(tf.function, autograph=False)


def export_saved_model(
    model: keras.Model,
    path: PathLike,
    *,
    class_names: Sequence[str] | None = None,
    top: int = 5,
    image_size: int | None = None,
    crop_fraction: float | None = None,
    orientation: str | None = None,
    overwrite: bool = False,
) -> None:
    """Exports a model as a SavedModel, for example for TensorFlow Serving.

    It runs without this package and without Keras, computes in float32 and
    consists of stock TensorFlow operations. Its signatures are:

    - `serving_default`: from `images`, float32 pixels in [0, 255], to
      `predictions`, the model's output; it is named `features` if the model has
      no classifier.
    - `serve_uint8`: the same for uint8 pixels.
    - `serve_encoded`: from `image_bytes`, strings of shape (batch,), the
      contents of JPEG, PNG, WebP, GIF or BMP files of any size, to the same
      output. A classifier also returns its top classes, most probable first:
      `top_indices`, int32, `top_probabilities`, float32, and `top_labels`,
      strings, if there are class names, each of shape (batch, top). A single
      output is treated as two classes: 0, the negative, and 1, the positive
      class. The files are decoded and resized with
      `data.resize_and_center_crop`. If a file can't be decoded, the error names
      its position in the batch. Only models of square images with three
      channels have this signature.

    The object from `tf.saved_model.load` has `serve(images)`, which is the
    model itself, `variables`, and `class_names()` if there are class names.

    Args:
        model: `keras.Model` that takes a batch of pixels in [0, 255] and
            returns one tensor. Unknown heights, widths and batch sizes stay
            unknown.
        path: Path of the folder to write. It appears when it is complete.
        class_names: Names of the classes, in the order of the outputs.
        top: Integer, the maximum number of top classes.
        image_size: Size, in pixels, to which image files are resized. Required
            if the model takes any size; otherwise it is the model's.
        crop_fraction: As for `data.resize_and_center_crop`. It is stored in the
            folder, in `assets.extra/evaluation.json`. `None` uses that
            function's default and stores nothing.
        orientation: As for `data.decode_image`. It is stored in the same file.
            `None` uses that function's default and stores nothing.
        overwrite: Whether to replace an existing SavedModel.

    Raises:
        FileExistsError: If `path` exists and may not be replaced.
        FileNotFoundError: If the parent directory of `path` doesn't exist.
        OSError: If it can't be written.
        ValueError: If an argument is invalid.

    Example:

    ```python
    export_saved_model(model, "saved_model", class_names=["cat", "dog"])
    loaded = tf.saved_model.load("saved_model")
    best = loaded.signatures["serve_encoded"](image_bytes=tf.constant([file]))
    ```
    """
    check_backend("SavedModels")
    check_folder_destination(path, SAVED_MODEL_FILE, overwrite)
    check_image_model(model)
    check_class_names(model, class_names)
    check_positive_integer("top", top)
    check_crop_fraction(crop_fraction)
    check_orientation(orientation)
    size = _encoded_size(model.input_shape, image_size)
    name = "features" if classifier_of(model) is None else "predictions"
    rank = _ranking(model, class_names, top)

    with replaced_folder(path) as unfinished:
        module, serve = _serving_module(in_float32(model), class_names)
        images = tf.TensorSpec(model.input_shape, tf.float32, "images")
        pixels = tf.TensorSpec(model.input_shape, tf.uint8, "images")
        files = tf.TensorSpec(model.input_shape[:1], tf.string, "image_bytes")

        @graph_function(input_signature=[images])
        def serving_default(images):
            return {name: serve(images)}

        @graph_function(input_signature=[pixels])
        def serve_uint8(images):
            return {name: serve(tf.cast(images, tf.float32))}

        @graph_function(input_signature=[files])
        def serve_encoded(image_bytes):
            images = _decode(
                image_bytes, size, crop_fraction or CROP_FRACTION, orientation
            )
            outputs = serve(tf.cast(images, tf.float32))
            return {name: outputs, **rank(outputs)}

        signatures = {
            "serving_default": serving_default,
            "serve_uint8": serve_uint8,
        }
        if size:
            signatures["serve_encoded"] = serve_encoded
        write_saved_model(module, unfinished, signatures)
        write_reading(unfinished, ImageReading(crop_fraction, orientation))


def check_class_names(model, class_names):
    """Checks that there is a name for each class.

    Args:
        model: A `keras.Model` with one output.
        class_names: The user's argument: strings, or `None`.

    Raises:
        ValueError: If a name is missing, or if the model has no classes.
    """
    if class_names is None:
        return
    classes = classifier_of(model) and model.output_shape[-1]
    if (
        isinstance(class_names, str)
        or not classes
        # For a single output, the negative class may also have a name.
        or len(class_names) not in (classes, num_classes(classes))
        or not all(isinstance(name, str) for name in class_names)
    ):
        raise ValueError(
            "Argument `class_names` must be one string for each of the "
            f"model's {classes or 0} classes. Received: {len(class_names)}, "
            f"{class_names!r:.80}"
        )


def write_saved_model(module, directory, signatures):
    """Writes a SavedModel.

    Args:
        module: Trackable object to save.
        directory: Path of an existing, empty folder.
        signatures: Dictionary of functions.

    Raises:
        OSError: If it can't be written, for example because the disk is full.
    """
    with system_errors("the SavedModel"):
        tf.saved_model.save(module, directory, signatures)


@contextlib.contextmanager
def system_errors(what):
    """Converts TensorFlow's errors, such as for a full disk, to `OSError`.

    Args:
        what: String, the name of the written object.
    """
    try:
        yield
    except tf.errors.OpError as error:
        # Drop the operation and the internal file name at the start.
        reason = error.message.rpartition("; ")[2].partition(" [")[0]
        raise OSError(f"Cannot write {what}: {reason}") from error


def names_function(class_names):
    """Builds a function without arguments that returns the class names."""

    @graph_function(input_signature=[])
    def names():
        return tf.constant(list(class_names))

    return names


def _serving_module(model, class_names):
    """Builds the object to save: the model as a function, and variables."""

    @graph_function(
        input_signature=[tf.TensorSpec(model.input_shape, tf.float32, "images")]
    )
    def serve(images):
        return model(images, training=False)

    module = tf.train.Checkpoint()
    module.variables = [variable.value for variable in model.variables]
    module.serve = serve
    if class_names is not None:
        module.class_names = names_function(class_names)
    return module, serve


def _encoded_size(shape, image_size):
    """Returns the size for image files, or `None` if they are unsupported."""
    _, height, width, channels = shape
    if image_size is not None:
        check_positive_integer("image_size", image_size)
    size = height or width or image_size
    if channels != 3 or {height, width} - {None, size}:
        return None
    if size is None:
        raise ValueError(
            "Argument `image_size` is required because the model takes images "
            "of any size. Image files are resized to it. Received: "
            f"image_size=None, model.input_shape={shape}"
        )
    if image_size not in (None, size):
        raise ValueError(
            f"Argument `image_size` must be that of the model, {size}, or "
            f"None. Received: image_size={image_size}"
        )
    return size


def _ranking(model, class_names, top):
    """Builds the function from predictions to the top classes."""
    classifier = classifier_of(model)
    if classifier is None:
        return lambda outputs: {}
    activation = activation_of_keras(model)
    if activation == "unknown":
        received = keras.activations.serialize(classifier.activation)
        raise ValueError(
            "The model's classifier must have the activation None, softmax or "
            f"sigmoid. Received: {received!r}"
        )
    outputs = model.output_shape[-1]
    if outputs == 1:
        check_single_output(activation)
    names = name_classes(class_names, outputs)
    count = min(top, num_classes(outputs))

    def rank(outputs):
        found = graph_probabilities(outputs, activation)
        best, indices = tf.math.top_k(found, count)
        ranked = {"top_indices": indices, "top_probabilities": best}
        if names is not None:
            ranked["top_labels"] = tf.gather(tf.constant(names), indices)
        return ranked

    return rank


def _decode(image_bytes, size, crop_fraction, orientation):
    """Decodes a batch of files in parallel. Errors list undecodable files."""
    count = tf.size(image_bytes)

    def read(position, encoded):
        image = decode_image(encoded, orientation)
        return position, resize_and_center_crop(image, size, crop_fraction)

    files = tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes))
    images = files.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    # One extra image, because an empty batch raises another error.
    one_more = tf.data.Dataset.from_tensors(
        (-1, tf.zeros((size, size, 3), tf.uint8))
    )
    images = images.ignore_errors().concatenate(one_more)
    images = images.batch(tf.cast(count, tf.int64) + 1)
    positions, images = images.get_single_element()
    positions, images = positions[:-1], images[:-1]

    found = tf.scatter_nd(positions[:, None], tf.ones_like(positions), [count])
    lost = tf.where(found == 0)[:, 0]
    complete = tf.debugging.Assert(
        tf.size(lost) == 0,
        ["Images that cannot be decoded, by position in the batch:", lost],
        summarize=20,
    )
    with tf.control_dependencies([complete]):
        return tf.ensure_shape(images, (None, size, size, 3))
