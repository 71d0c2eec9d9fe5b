"""Exports TF Hub modules, SavedModels that can be fine-tuned."""

import contextlib
import gzip
import os
import tarfile
from collections.abc import Sequence

import keras
import tensorflow as tf

from convmixer_tf.data.validation import check_crop_fraction
from convmixer_tf.export.cards import HubCard
from convmixer_tf.export.preparation import check_backend
from convmixer_tf.export.preparation import check_convmixer
from convmixer_tf.export.preparation import check_image_model
from convmixer_tf.export.preparation import classifier_of
from convmixer_tf.export.preparation import rebuilt
from convmixer_tf.export.saved_model import SAVED_MODEL_FILE
from convmixer_tf.export.saved_model import check_class_names
from convmixer_tf.export.saved_model import graph_function
from convmixer_tf.export.saved_model import names_function
from convmixer_tf.export.saved_model import write_saved_model
from convmixer_tf.files import PathLike
from convmixer_tf.files import check_folder_destination
from convmixer_tf.files import replaced_folder
from convmixer_tf.layers._fast.choice import plain_operations
from convmixer_tf.models.additions import ImageReading
from convmixer_tf.models.additions import write_reading
from convmixer_tf.validation import check_orientation

KINDS = ("classifier", "feature_vector")

SAVED_MODEL = "saved_model"
ARCHIVE = "model.tar.gz"
CARD = "README.md"
MARK = os.path.join(SAVED_MODEL, SAVED_MODEL_FILE)


def export_tfhub(
    model: keras.Model,
    path: PathLike,
    *,
    kind: str = "classifier",
    max_pixel: int = 255,
    class_names: Sequence[str] | None = None,
    crop_fraction: float | None = None,
    orientation: str | None = None,
    card: HubCard | None = None,
    overwrite: bool = False,
) -> None:
    """Exports a model as a TF Hub module that can be fine-tuned.

    The folder `path` then holds

    - `saved_model/`, a "reusable SavedModel". It is called with `images` and
      `training`. It has the lists `variables`, `trainable_variables` (including
      frozen ones) and `regularization_losses`, the signature `serving_default`,
      and `class_names()` if there are class names. Its
      `assets.extra/evaluation.json` has the crop fraction and the orientation,
      if given, and `max_pixel`, if it is 1;
    - `model.tar.gz`, the same as an archive to serve over HTTP, with the
      SavedModel at its root;
    - `README.md`, the module's page in TF Hub's format.

    It loads without this package and without Keras, with `hub.load`,
    `hub.KerasLayer` (tf_keras), `keras.layers.TFSMLayer` (without fine-tuning)
    and `HubLayer` of this package (Keras 3, with fine-tuning). It computes in
    float32. In training, it uses stock TensorFlow operations on every device.

    **Pixels are in [0, 255]**, as everywhere in this package, unless
    `max_pixel=1` selects TF Hub's convention.

    Reference: https://www.tensorflow.org/hub/reusable_saved_models and
    https://www.tensorflow.org/hub/common_saved_model_apis/images

    Args:
        model: A `ConvMixer`, with batch normalization.
        path: Path of the folder to write. It appears when it is complete.
        kind: `"classifier"`, which returns logits for any activation of the
            model's classifier, or `"feature_vector"`, which returns the pooled
            features, (batch, dim), of a model with or without classifier.
        max_pixel: Value of a white pixel: 255, or 1 as in TF Hub's convention,
            for programs that rescale pixels for all modules.
        class_names: Names of the classes, in the order of the outputs.
        crop_fraction: Fraction of an image's shorter side that is kept for
            evaluation, or `None`.
        orientation: `"exif"` or `"stored"`, as for `data.decode_image`, or
            `None`.
        card: A `HubCard` with additional information for the module's page.
        overwrite: Whether to replace an existing module.

    Raises:
        FileExistsError: If `path` exists and may not be replaced.
        FileNotFoundError: If the parent directory of `path` doesn't exist.
        OSError: If it can't be written.
        ValueError: If an argument is invalid.

    Example:

    ```python
    export_tfhub(model, "module", kind="feature_vector")
    features = tf.saved_model.load("module/saved_model")(images)
    ```
    """
    check_backend("TF Hub modules")
    check_folder_destination(path, MARK, overwrite)
    check_image_model(model)
    check_convmixer(model)
    check_class_names(model, class_names)
    _check_options(kind, max_pixel)
    check_crop_fraction(crop_fraction)
    check_orientation(orientation)
    with replaced_folder(path) as unfinished:
        copy = _module_model(model, kind)
        module, signatures = _reusable(copy, kind, max_pixel, class_names)
        directory = os.path.join(unfinished, SAVED_MODEL)
        os.mkdir(directory)
        write_saved_model(module, directory, signatures)
        reading = ImageReading(crop_fraction, orientation, max_pixel)
        write_reading(directory, reading)
        _write_archive(directory, os.path.join(unfinished, ARCHIVE))
        card = card or HubCard(f"convmixer_tf/{model.name}/{kind}/1")
        text = card.text(model, kind, max_pixel, class_names)
        with open(
            os.path.join(unfinished, CARD), "w", encoding="utf-8"
        ) as file:
            file.write(text)


def _check_options(kind, max_pixel):
    if kind not in KINDS:
        raise ValueError(
            f"Argument `kind` must be one of {KINDS}. Received: kind={kind!r}"
        )
    if max_pixel not in (1, 255):
        raise ValueError(
            "Argument `max_pixel` must be 255, or 1 as in TF Hub's convention. "
            f"Received: max_pixel={max_pixel!r}"
        )


def _module_model(model, kind):
    """Copies a model in float32, unfrozen, with logits or pooled features."""
    classifier = classifier_of(model)
    if kind == "classifier" and classifier is None:
        raise ValueError(
            "The model has no classifier. Export it with "
            '`kind="feature_vector"`. '
            'Received: kind="classifier", '
            f"model.output_shape={model.output_shape}"
        )

    def change(layer):
        # Gradient checkpointing depends on the training machine's memory.
        remat = {"remat": False} if hasattr(layer, "remat") else {}
        logits = {"activation": "linear"} if layer is classifier else {}
        thawed = {"frozen": ()} if hasattr(layer, "frozen") else {}
        return {"trainable": True, **thawed, **remat, **logits}

    copy = rebuilt(model, change)
    if kind == "classifier" or (
        classifier is None and len(copy.output_shape) == 2
    ):
        return copy
    if classifier is None or "avg_pool" not in {x.name for x in copy.layers}:
        raise ValueError(
            "A feature vector needs a model with a layer `avg_pool`, or one "
            'without classifier built with `pooling="avg"` or "max". Received: '
            f"model.output_shape={model.output_shape}"
        )
    return keras.Model(copy.input, copy.get_layer("avg_pool").output)


def _reusable(model, kind, max_pixel, class_names):
    """Builds the object that becomes the reusable SavedModel."""
    spec = tf.TensorSpec(model.input_shape, tf.float32, "images")

    @graph_function
    def call(images, training=False):
        # Inside the function, because saving traces it again.
        how = plain_operations if training else contextlib.nullcontext
        with how():
            return model(images * (255 / max_pixel), training=training)

    for training in ({}, {"training": False}, {"training": True}):
        call.get_concrete_function(spec, **training)

    output = "logits" if kind == "classifier" else "feature_vector"

    @graph_function(input_signature=[spec])
    def serving_default(images):
        return {output: call(images, training=False)}

    module = tf.train.Checkpoint()
    module.__call__ = call
    module.variables = [variable.value for variable in model.variables]
    module.trainable_variables = [
        variable.value for variable in model.trainable_variables
    ]
    module.regularization_losses = [
        _regularization(variable)
        for variable in model.trainable_variables
        if variable.regularizer is not None
    ]
    if class_names is not None:
        module.class_names = names_function(class_names)
    return module, {"serving_default": serving_default}


def _regularization(variable):
    @graph_function(input_signature=[])
    def loss():
        return variable.regularizer(variable.value)

    return loss


def _write_archive(directory, path):
    """Packs a folder without its name, owner and time stamps."""

    def anonymous(entry):
        entry.mtime = entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    # Weights hardly compress: the lowest level is within 1 % of the best.
    with (
        open(path, "wb") as file,
        gzip.GzipFile("", "wb", 1, file, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for name in sorted(os.listdir(directory)):
            archive.add(os.path.join(directory, name), name, filter=anonymous)
