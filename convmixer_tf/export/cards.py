"""Model cards of exported artifacts and of TF Hub modules."""

import dataclasses
import re

from convmixer_tf.data.cropping import CROP_FRACTION
from convmixer_tf.export.preparation import classifier_of
from convmixer_tf.export.preparation import is_convmixer
from convmixer_tf.export.verification.verify import describe_tensor
from convmixer_tf.model_card import ModelCard
from convmixer_tf.model_card import kept_part
from convmixer_tf.model_card import turned
from convmixer_tf.models.probabilities import activation_of_keras

# Identifies the card of an artifact. The card of a training run lacks it.
EXPORTED = "exported by convmixer_tf as"

_OUTPUTS = {
    "softmax": "probabilities of the classes, which add up to 1.",
    "sigmoid": "independent probabilities of the classes.",
    "linear": "logits of the classes.",
    "unknown": "a number for each class.",
}


def artifact_card(
    model,
    kind,
    report=None,
    *,
    class_names=None,
    trained_on=None,
    license=None,
    crop_fraction=CROP_FRACTION,
    orientation=None,
    max_pixel=255,
):
    """Creates the model card of an exported file or folder.

    All its figures are from the report.

    Args:
        model: The `keras.Model` that was exported.
        kind: String, a name of the format, such as `"an ONNX file"`.
        report: The `Report` of `verify`, or `None` if it was not verified.
        class_names: Names of the classes, or `None`.
        trained_on: String, a description of the training data.
        license: String, the license of the weights.
        crop_fraction: Fraction of an image's side kept for evaluation.
        orientation: As for `data.decode_image`, or `None`.
        max_pixel: Value of a white pixel, 1 or 255.

    Returns:
        A `ModelCard`.

    Example:

    ```python
    report = verify(model, "model.onnx", images, labels)
    card = artifact_card(model, "an ONNX file", report, license="MIT")
    print(card.text())
    ```
    """
    height, width, channels = (side or "any" for side in model.input_shape[1:])
    output = "features."
    if classifier_of(model) is not None:
        output = _OUTPUTS[activation_of_keras(model) or "unknown"]
    return ModelCard(
        title=f"{model.name}, {kind}",
        about=f"`{model.name}` ({model.count_params():,} weights), "
        f"{_architecture(model)}{EXPORTED} {kind}.",
        input=f"pixels in [0, {max_pixel}], which the model normalizes itself: "
        f"height {height}, width {width},\n{channels} channels. Photographs "
        f"are resized (bicubic) and cropped as in evaluation,\nto "
        f"{kept_part(crop_fraction)}. They are {turned(orientation)}."
        f"{_tensors(report.inputs) if report else ''}",
        output=output + (_tensors(report.outputs) if report else ""),
        class_names=class_names and tuple(class_names),
        trained_on=trained_on,
        figures=report.figures() if report else {},
        measured=_measured(report) if report else "not measured.",
        license=license,
    )


def _architecture(model):
    if not is_convmixer(model):
        return ""
    return (
        "a ConvMixer (Trockman and Kolter,\n*Patches Are All You Need?*, arXiv "
        "2201.09792), "
    )


def _tensors(tensors):
    return f" Tensors: {'; '.join(map(describe_tensor, tensors))}."


def _measured(report):
    labeled = f"{report.labeled:,}" if report.labeled else "none"
    return (
        f"on {report.images:,} images, {labeled} of them labeled, in "
        f"{report.runtime}, compared with the\nexported Keras model. "
        "The JSON report is beside this card."
    )


# https://www.tensorflow.org/hub/writing_documentation; the first line must
# name the publisher, the module and its version.
_HANDLE = re.compile(r"[\w-]+/[\w.-]+(/[\w.-]+)*/\d+")


@dataclasses.dataclass(frozen=True)
class HubCard:
    """Information on a module's page that is not in the model.

    Attributes:
        handle: `publisher/name/version`.
        description: One line about the module.
        dataset: TF Hub's name of the training data, such as
            `imagenet-ilsvrc-2012-cls`, or `None`.
        license: SPDX identifier of the weights' license, in lower case.
        asset_path: URL or name under which the archive will be served.
        notes: More paragraphs, such as the accuracy and its source.
    """

    handle: str
    description: str = "A ConvMixer."
    dataset: str | None = None
    license: str | None = None
    asset_path: str = "model.tar.gz"
    notes: str = ""

    def __post_init__(self):
        if not _HANDLE.fullmatch(self.handle):
            raise ValueError(
                "Argument `handle` must be publisher/name/version. "
                f"Received: handle={self.handle!r}"
            )
        for name in ("description", "dataset", "license", "asset_path"):
            value = getattr(self, name)
            if value is not None and ("\n" in value or not value):
                raise ValueError(
                    f"Argument `{name}` must be one line. "
                    f"Received: {name}={value!r}"
                )

    def text(self, model, kind, max_pixel, class_names=None):
        """Formats the page.

        Args:
            model: The `keras.Model` that was exported.
            kind: `"classifier"` or `"feature_vector"`.
            max_pixel: Value of a white pixel, 1 or 255.
            class_names: Names of the classes, or `None`.

        Returns:
            String, Markdown.
        """
        classifier = kind == "classifier"
        metadata = {
            "asset-path": self.asset_path,
            "task": _TASKS[kind],
            "network-architecture": "convmixer",
            "dataset": self.dataset,
            "license": self.license,
            "fine-tunable": "true",
            "format": "saved_model_2",
        }
        lines = [
            f"<!-- {key}: {value} -->"
            for key, value in metadata.items()
            if value
        ]
        height, width = (
            "any" if x is None else x for x in model.input_shape[1:3]
        )
        channels = model.input_shape[3]
        return _PAGE.format(
            handle=self.handle,
            description=self.description,
            metadata="\n".join(lines),
            notes=f"{self.notes.strip()}\n\n" if self.notes.strip() else "",
            height=height,
            width=width,
            channels=channels,
            max_pixel=max_pixel,
            pixels=_PIXELS[max_pixel],
            output=_output(model, classifier, class_names),
            name="logits" if classifier else "features",
        )


_TASKS = {
    "classifier": "image-classification",
    "feature_vector": "image-feature-vector",
}

_PIXELS = {
    255: """\
**Pixels are in [0, 255], as in image files.** TF Hub's common convention is
[0, 1]. Do not divide by 255 and do not subtract a mean, because the module
normalizes its input. If you pass pixels in [0, 1], every image looks black to
the module, and no error is reported.""",
    1: """\
**Pixels are in [0, 1]**, TF Hub's common convention. Divide the pixels of an
image file by 255. Do not subtract a mean, because the module normalizes its
input.""",
}

_PAGE = """\
# Module {handle}
{description}

{metadata}

## Pixels

{pixels}

## Overview

ConvMixer (Trockman and Kolter, "Patches Are All You Need?",
https://arxiv.org/abs/2201.09792) cuts an image into patches and mixes them
with depthwise and 1 x 1 convolutions.

{notes}## Input

float32, of shape (batch, height, width, channels): any batch, height {height},
width {width}, {channels} channels (red, green, blue if there are three), pixels
in [0, {max_pixel}].

## Output

{output}

## Use

URL is the URL of the archive, or the path of the unpacked folder.

```python
import tensorflow_hub as hub

module = hub.load(URL)
{name} = module(images)
```

In tf_keras:

```python
layer = hub.KerasLayer(URL, trainable=True)
```

In Keras 3, from the unpacked folder. The second layer is from the package
convmixer_tf and can be fine-tuned:

```python
layer = keras.layers.TFSMLayer(FOLDER, call_endpoint="serving_default")
layer = convmixer_tf.export.HubLayer(FOLDER)
```

## Fine-tuning

Call the module with `training=True`. Batch normalization then uses the batch
statistics and updates the running statistics. All weights can be trained. Add
`regularization_losses`, if there are any, to the loss.
"""


def _output(model, classifier, class_names):
    if not classifier:
        return (
            "float32, of shape (batch, features): the globally pooled "
            "features,\nwithout dropout."
        )
    classes = model.output_shape[-1]
    text = (
        f"float32, of shape (batch, {classes}): logits. Apply softmax to get "
        "probabilities of exclusive\nclasses, or sigmoid for multi-label "
        "classification."
    )
    if class_names is not None:
        text += (
            "\n\n`module.class_names()` returns the class names in this order."
        )
    return text
