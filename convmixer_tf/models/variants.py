"""The ConvMixer variants with published weights."""

import os
from collections.abc import Callable
from typing import Any

import keras

from convmixer_tf.models.contract import image_shape
from convmixer_tf.models.contract import number_of_channels
from convmixer_tf.models.convmixer import ConvMixer
from convmixer_tf.models.normalization import statistics_of
from convmixer_tf.weights import PUBLISHED_WEIGHTS

_DOCSTRING = """Builds ConvMixer-{dim}/{depth}: {about}.

Its kernel is {kernel_size} x {kernel_size} patches, its patch
{patch_size} x {patch_size} pixels. {origin}

Args:
    include_top: See `ConvMixer`.
    weights: See `ConvMixer`. Defaults to `"{dataset}"`.
    input_tensor: See `ConvMixer`.
    input_shape: See `ConvMixer`. With the classifier, it defaults to
        ({size}, {size}, 3).
    pooling: See `ConvMixer`.
    classes: See `ConvMixer`.
    classifier_activation: See `ConvMixer`.
    name: See `ConvMixer`.
    **kwargs: The keyword-only arguments of `ConvMixer`. `mean` and `std`
        default to {statistics}.

Returns:
    A `keras.Model`.

Raises:
    ValueError: If an argument is invalid, or if the weights do not fit.
    OSError: If the weights can't be {verb}.

Example:

```python
model = {title}(weights=None)
model(np.zeros((1, {size}, {size}, 3))).shape  # (1, {classes})
```
"""
_FETCHED = {
    "origin": "The pretrained weights are timm's.\nThey are downloaded once "
    "and kept in the Hugging Face cache.",
    "verb": "fetched",
}
_PACKAGED = {
    "origin": "The pretrained weights are part\nof this package, in float16. "
    "`weights.read_facts` returns their accuracy.",
    "verb": "read",
}
_KERAS_CV = {
    "origin": "The pretrained weights are\nkeras-cv's. They are downloaded "
    "once from Google's storage and kept in the folder\n`models` of "
    "`KERAS_HOME`, by default `~/.keras`. keras-cv's pull request 1325\n"
    "reports a top-1 accuracy of 74.38 % for them. This project measured "
    "neither the\naccuracy nor the download. They were trained on pixels "
    "scaled to [0, 1] and with a\nbatch normalization epsilon of 1e-3; here "
    "it is 1e-5. The moving variances are\nadjusted for the difference, so "
    "the outputs in inference are the same. In training,\nthe batch's own "
    "statistics are used, so features with a variance near 1e-3 are\nlarger "
    "than in keras-cv. `freeze_batch_norm` avoids that.",
    "verb": "fetched",
}
_DATASET_NAMES = {"imagenet": "ImageNet", "cifar10": "CIFAR-10"}


def _variant(name, about):
    default_name = f"convmixer_{name}"
    facts = PUBLISHED_WEIGHTS[default_name]

    def build(
        include_top: bool = True,
        weights: str | os.PathLike[str] | None = facts.dataset,
        input_tensor: keras.KerasTensor | None = None,
        input_shape: tuple[int | None, ...] | None = None,
        pooling: str | None = None,
        classes: int = facts.classes,
        classifier_activation: str | Callable | None = "softmax",
        name: str = default_name,
        **kwargs: Any,
    ) -> keras.Model:
        shape = image_shape(
            input_shape,
            input_tensor,
            include_top,
            facts.patch_size,
            facts.image_size,
        )
        mean, std = statistics_of(facts, number_of_channels(shape))
        return ConvMixer(
            facts.dim,
            facts.depth,
            facts.kernel_size,
            facts.patch_size,
            facts.activation,
            include_top,
            weights,
            input_tensor,
            shape,
            pooling,
            classes,
            classifier_activation,
            name,
            **{"mean": mean, "std": std, **kwargs},
        )

    build.__name__ = build.__qualname__ = f"ConvMixer{name}"
    build.__doc__ = _DOCSTRING.format(
        title=build.__name__,
        about=about,
        dim=facts.dim,
        depth=facts.depth,
        kernel_size=facts.kernel_size,
        patch_size=facts.patch_size,
        size=facts.image_size,
        classes=facts.classes,
        dataset=facts.dataset,
        statistics=_statistics(facts),
        **_source(facts),
    )
    return build


def _statistics(facts):
    if facts.mean is not None:
        return "0 and 1"
    return f"those of {_DATASET_NAMES[facts.dataset]}'s pixels"


def _source(facts):
    if facts.file:
        return _KERAS_CV
    return _FETCHED if facts.repository else _PACKAGED


ConvMixer1536_20 = _variant("1536_20", "51.6M parameters, GELU, ImageNet")
ConvMixer768_32 = _variant("768_32", "21.1M parameters, ReLU, ImageNet")
ConvMixer1024_20 = _variant("1024_20", "24.4M parameters, GELU, ImageNet")
ConvMixer512_16 = _variant("512_16", "5.4M parameters, GELU, ImageNet")
ConvMixer256_8 = _variant("256_8", "0.6M parameters, GELU, CIFAR-10")

# By the name that scripts use.
VARIANTS = {
    "1536_20": ConvMixer1536_20,
    "768_32": ConvMixer768_32,
    "1024_20": ConvMixer1024_20,
    "512_16": ConvMixer512_16,
    "256_8": ConvMixer256_8,
}
