"""Class activation maps, which show the patches behind a class score."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from convmixer_tf.analysis.parts import find_head
from convmixer_tf.analysis.parts import last_features
from convmixer_tf.analysis.pictures import hide_ticks
from convmixer_tf.analysis.pictures import new_picture
from convmixer_tf.files import PathLike
from convmixer_tf.weights.effective import effective_weights


@dataclasses.dataclass(frozen=True)
class ActivationMaps:
    """The contribution of each patch to a class's logit.

    Attributes:
        maps: Float array, (images, height, width), in patches. The mean of a
            map is the logit of its class minus the classifier's bias.
        classes: Integer array, (images,), the class of each map.
        logits: Float array, (images, classes), the outputs before the
            classifier's activation.
        probabilities: Float array, (images, classes), the outputs after its
            activation, or after softmax if it has none.
    """

    maps: np.ndarray
    classes: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray


def class_activation_map(
    model: keras.Model, images: np.ndarray, class_index: int | None = None
) -> ActivationMaps:
    """Splits the logit of a class into contributions of the patches.

    A ConvMixer ends in average pooling and a linear classifier, so its logit is
    the mean of all patches' scores plus the bias. No gradient or approximation
    is needed. Note that a patch's features depend on its whole receptive field;
    see `receptive_fields`.

    Reference: Zhou et al., "Learning Deep Features for Discriminative
    Localization", https://arxiv.org/abs/1512.04150

    Args:
        model: A classifier that ends in global average pooling and a linear
            layer, such as a ConvMixer.
        images: Batch of images for `model`, computed at once.
        class_index: Integer, the class; or a list with a class for each image.
            Defaults to the predicted classes.

    Returns:
        An `ActivationMaps`.

    Raises:
        ValueError: If `model` ends differently or has no such class.

    Example:

    ```python
    found = class_activation_map(model, images)
    found.maps.shape  # (8, 32, 32)
    ```
    """
    pool, classifier = find_head(model)
    features = last_features(model)(images, training=False)
    features = ops.cast(features, classifier.compute_dtype)
    features = ops.convert_to_numpy(features)
    if pool.data_format == "channels_first":
        features = features.transpose(0, 2, 3, 1)
    kernel, bias = effective_weights(classifier)
    logits = features.mean((1, 2)) @ kernel + (0 if bias is None else bias)
    if class_index is None:
        class_index = logits.argmax(-1)
    classes = _check_classes(class_index, *logits.shape)
    maps = np.einsum("bhwc,cb->bhw", features, kernel[:, classes])
    activation = _activation(classifier, logits.shape[-1])
    probabilities = activation(ops.convert_to_tensor(logits))
    probabilities = ops.convert_to_numpy(probabilities)
    return ActivationMaps(maps, classes, logits, probabilities)


def _activation(classifier, outputs):
    if classifier.activation is not keras.activations.linear:
        return classifier.activation
    # Like `models.probabilities`, but here each output is a class.
    activations = keras.activations
    return activations.sigmoid if outputs == 1 else activations.softmax


def _check_classes(class_index, images, classes):
    found = np.asarray(class_index)
    if (
        not np.issubdtype(found.dtype, np.integer)
        or found.shape not in ((), (images,))
        or found.min() < 0
        or found.max() >= classes
    ):
        raise ValueError(
            f"Argument `class_index` must be an integer from 0 to "
            f"{classes - 1}, or a list of one for each of {images} images. "
            f"Received: class_index={class_index!r}"
        )
    return np.broadcast_to(found, (images,))


def save_activation_maps(
    path: PathLike,
    images: np.ndarray,
    found: ActivationMaps,
    class_names: Sequence[str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Draws images with their class activation maps.

    Red patches are evidence for the class, blue ones against it. Patches with
    little effect show the image. Each map is upsampled smoothly and has its own
    scale, symmetric about 0. The limit of the scale is below the map. The class
    and its probability are above it.

    Args:
        path: Path of the PNG to write.
        images: Array of pixels in [0, 255], (images, height, width, 3) or
            (images, height, width, 1).
        found: The `ActivationMaps` of these images.
        class_names: List of names, or `None` for numbers.
        overwrite: Boolean, whether an existing file may be replaced.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        ImportError: If matplotlib is missing.
        ValueError: If there is not one map for each image.
    """
    if len(images) != len(found.maps):
        raise ValueError(
            "There must be one map for each image. Received: "
            f"{len(images)} images and {len(found.maps)} maps"
        )
    height, width = images.shape[1:3]
    size = (1.7 * len(images) + 1, 1.7 * (2 * height / width) + 0.8)
    with new_picture(path, size, overwrite) as figure:
        grid = figure.subplots(2, len(images), squeeze=False)
        for (above, below), image, values, index, scores in zip(
            grid.T,
            images.astype("uint8"),
            found.maps,
            found.classes,
            found.probabilities,
            strict=True,
        ):
            for axes in (above, below):
                axes.imshow(image, cmap="gray", extent=(0, width, height, 0))
                hide_ticks(axes)
            limit = max(float(np.abs(values).max()), 1e-12)
            drawn = below.imshow(
                values / limit,
                cmap="RdBu_r",
                vmin=-1,
                vmax=1,
                alpha=0.9 * np.abs(values / limit) ** 0.7,
                extent=(0, width, height, 0),
                interpolation="bicubic",
            )
            name = class_names[index] if class_names else f"class {index}"
            above.set_title(f"{name}\n{scores[index]:.0%}", fontsize=9)
            below.set_xlabel(f"\N{PLUS-MINUS SIGN}{limit:.3g}", fontsize=8)
        figure.colorbar(
            drawn,
            ax=grid[1].tolist(),
            ticks=[-1, 0, 1],
            label="for or against",
        )
