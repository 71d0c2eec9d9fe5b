"""TF Hub modules: SavedModels that others build upon and go on training."""

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
    """Exports a model as a TF Hub module, one that can be fine-tuned.

    The folder `path` then holds

    - `saved_model/`, a "reusable SavedModel": called with `images` and
      `training`; with the lists `variables`, `trainable_variables`, which are
      all that the model could ever train, frozen or not, and
      `regularization_losses`; with the signature `serving_default`; and with
      `class_names()` if there are names; how images are cropped and turned
      for it, if that is given here, and `max_pixel`, if it is 1, are in its
      `assets.extra/evaluation.json`;
    - `model.tar.gz`, the same to be served over HTTP, with the SavedModel at
      its root;
    - `README.md`, the module's page in TF Hub's format.

    It loads without this package and without Keras, by `hub.load`, in
    `hub.KerasLayer` (tf_keras), in `keras.layers.TFSMLayer` (without
    fine-tuning) and in our `HubLayer` (Keras 3, with fine-tuning). It computes
    in float32, in training with TensorFlow's stock operations on every device.

    **Pixels are in [0, 255]**, as everywhere in this package, unless
    `max_pixel=1` asks for TF Hub's own convention.

    Reference: https://www.tensorflow.org/hub/reusable_saved_models and
    https://www.tensorflow.org/hub/common_saved_model_apis/images

    Args:
        model: A `ConvMixer`, with batch normalization.
        path: Path of the folder to write. It appears when it is complete.
        kind: `"classifier"`, which returns logits whatever the activation of
            the model's classifier is, or `"feature_vector"`, which returns
            the pooled features, (batch, dim), of a model with or without
            classifier.
        max_pixel: What white is: 255, or 1 as in TF Hub's convention, for
            programs that rescale the pixels of all modules alike.
        class_names: Names of the classes, in the order of the outputs.
        crop_fraction: Fraction of an image's shorter side that the model is
            evaluated on, or `None`.
        orientation: `"exif"` or `"stored"`, as for `data.decode_image`, or
            `None`.
        card: A `HubCard`, what the module's page says beside what is known
            here.
        overwrite: Whether to replace an existing module.

    Raises:
        FileExistsError: If there is something at `path` that is not to be
            replaced.
        FileNotFoundError: If the directory that `path` lies in doesn't exist.
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
    """Copies a model: float32, nothing frozen, logits or pooled features."""
    classifier = classifier_of(model)
    if kind == "classifier" and classifier is None:
        raise ValueError(
            "The model has no classifier. Export it as "
            '`kind="feature_vector"`. Received: kind="classifier", '
            f"model.output_shape={model.output_shape}"
        )

    def change(layer):
        # Gradient checkpointing is a matter of one machine's memory.
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
        # In here, as the function is traced once more when it is saved.
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
    """Packs a folder without its name, and without who packed it and when."""

    def anonymous(entry):
        entry.mtime = entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    # Weights hardly shrink: the lowest level is within a percent of the best.
    with (
        open(path, "wb") as file,
        gzip.GzipFile("", "wb", 1, file, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for name in sorted(os.listdir(directory)):
            archive.add(os.path.join(directory, name), name, filter=anonymous)
