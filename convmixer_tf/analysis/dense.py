"""A dense classifier, which scores each patch of an image of any size."""

from collections.abc import Sequence

import keras
import numpy as np

from convmixer_tf.analysis.parts import find_head
from convmixer_tf.analysis.parts import last_features
from convmixer_tf.analysis.pictures import hide_ticks
from convmixer_tf.analysis.pictures import new_picture
from convmixer_tf.files import PathLike
from convmixer_tf.models.copying import copy_weights
from convmixer_tf.weights.effective import effective_weights


def dense_classifier(model: keras.Model) -> keras.Model:
    """Builds a copy of a classifier that scores each patch.

    The classifier's matrix becomes a 1 x 1 convolution, and the pooling is
    removed. Because both are linear, the mean of the scores over all patches
    equals the model's logits.

    Args:
        model: A classifier that ends in global average pooling and a linear
            layer, such as a ConvMixer.

    Returns:
        A `keras.Model` with its own copy of the weights. It takes images of
        any size of at least one patch and returns logits, (batch, height,
        width, classes), in patches; for `"channels_first"`, (batch, classes,
        height, width).

    Raises:
        ValueError: If `model` ends differently or has several inputs.

    Example:

    ```python
    model = dense_classifier(ConvMixer1024_20(weights=None))
    model(np.zeros((1, 280, 420, 3))).shape  # (1, 20, 30, 1000)
    ```
    """
    pool, classifier = find_head(model)
    if len(model.inputs) != 1:
        raise ValueError(
            "Argument `model` must have one input, the image. "
            f"Received: {model!r}, with {len(model.inputs)} inputs"
        )
    body = last_features(model)
    first = pool.data_format == "channels_first"
    channels = body.input_shape[1 if first else -1]
    shape = (channels, None, None) if first else (None, None, channels)
    image = keras.Input(shape, dtype=body.input.dtype, name="image")
    copy = keras.models.clone_model(body, input_tensors=image)
    copy_weights(body, copy)
    quantized = classifier.quantization_mode is not None
    head = keras.layers.Conv2D(
        classifier.units,
        1,
        use_bias=classifier.use_bias,
        data_format="channels_last",
        dtype=(
            classifier.compute_dtype if quantized else classifier.dtype_policy
        ),
        name=classifier.name,
    )
    if first:
        # Keras 3.15 on TensorFlow adds the bias of a channels_first Conv2D
        # along the width if that equals the number of filters.
        to_last = keras.layers.Permute((2, 3, 1), name="channels_last")
        to_first = keras.layers.Permute((3, 1, 2), name="channels_first")
        scores = to_first(head(to_last(copy.output)))
    else:
        scores = head(copy.output)
    kernel, bias = effective_weights(classifier)
    head.set_weights([kernel[None, None], *([] if bias is None else [bias])])
    return keras.Model(image, scores, name=f"{model.name}_dense")


def save_label_map(
    path: PathLike,
    image: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Draws an image and the class of each of its patches side by side.

    Args:
        path: Path of the PNG to write.
        image: Array of pixels in [0, 255], (height, width, 3) or (height,
            width, 1).
        labels: Integer array of classes, (height, width), of any size.
        class_names: List of names, or `None` for numbers.
        overwrite: Boolean, whether an existing file may be replaced.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        ImportError: If matplotlib is missing.
    """
    height, width = image.shape[:2]
    seen, places = np.unique(labels, return_inverse=True)
    panel = 4.5 * max(width / height, 0.6)
    with new_picture(path, (2 * panel, 5.2), overwrite) as figure:
        from matplotlib import colormaps
        from matplotlib.patches import Patch

        colors = np.array(colormaps["tab20"](np.arange(20)))[:, :3]
        # Saturated colors first, which have even indices.
        colors = np.concatenate([colors[::2], colors[1::2]])
        chosen = colors[np.arange(len(seen)) % len(colors)]
        picture = chosen[places.reshape(labels.shape)]
        for axes, shown in zip(
            figure.subplots(1, 2), (np.uint8(image), picture), strict=True
        ):
            axes.imshow(
                shown,
                cmap="gray",
                extent=(0, width, height, 0),
                interpolation="nearest",
            )
            hide_ticks(axes)
        figure.legend(
            handles=[
                Patch(color=color, label=_name(index, class_names))
                for index, color in zip(seen, chosen, strict=True)
            ],
            loc="outside lower center",
            ncols=8,
            frameon=False,
        )


def _name(index, class_names):
    return class_names[index] if class_names else f"class {index}"
