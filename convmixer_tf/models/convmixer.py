"""ConvMixer: patch embedding, `depth` equal blocks, pooling, classifier."""

import os
from collections.abc import Callable
from collections.abc import Sequence

import keras
from keras import layers

from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers import CovarianceInitializer
from convmixer_tf.layers import PatchEmbed
from convmixer_tf.layers.initializers import torch_uniform
from convmixer_tf.models.contract import activation_name
from convmixer_tf.models.contract import check_depthwise_initializer
from convmixer_tf.models.contract import check_head
from convmixer_tf.models.contract import check_pretrained_head
from convmixer_tf.models.contract import check_sizes
from convmixer_tf.models.contract import check_weights
from convmixer_tf.models.contract import dataset_of
from convmixer_tf.models.contract import image_input
from convmixer_tf.models.contract import image_shape
from convmixer_tf.models.normalization import normalization
from convmixer_tf.models.saved import check_saved
from convmixer_tf.validation import plain
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights import load_weights
from convmixer_tf.weights.hub import fetch_weights
from convmixer_tf.weights.hub import fetched
from convmixer_tf.weights.published import find_published


def ConvMixer(
    dim: int,
    depth: int,
    kernel_size: int,
    patch_size: int,
    activation: str | Callable = "gelu",
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | Callable | None = "softmax",
    name: str = "convmixer",
    *,
    include_preprocessing: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    remat: bool = False,
    reset_classifier: bool = False,
    adapt_channels: bool = False,
    depthwise_initializer: str | keras.Initializer | None = None,
) -> keras.Model:
    """Builds a ConvMixer, a functional Keras model.

    The model cuts an image into patches and embeds every patch. `depth` equal
    blocks mix the patches; the resolution and the width stay the same. Global
    average pooling and a linear classifier follow. The model takes pixels in
    [0, 255] and normalizes them itself.

    Reference: Trockman and Kolter, "Patches Are All You Need?",
    https://arxiv.org/abs/2201.09792

    Args:
        dim: Integer, the number of channels of an embedded patch.
        depth: Integer, the number of blocks.
        kernel_size: Integer, the side of the depthwise kernels, in patches.
        patch_size: Integer, the side of a patch, in pixels.
        activation: Any Keras activation, as a name or a function. `"gelu"` is
            the exact GELU.
        include_top: Boolean, whether to include the classifier.
        weights: `None` for random weights with PyTorch's initialization;
            `"imagenet"` or `"cifar10"` for the published weights of this
            architecture, if there are any; the path of a Keras 3, safetensors
            or PyTorch file; or `"hf://USER/REPOSITORY"`, as for `open_model`.
            The file may come from this package, timm, the authors or another
            training program. Its format is detected from the content, not from
            the name. The model in a `.keras` file must have the same
            activation, mean and standard deviation.
        input_tensor: Symbolic output of other Keras layers, to be used as the
            image.
        input_shape: Tuple (height, width, channels), or (channels, height,
            width) if `keras.config.image_data_format()` is `"channels_first"`.
            The minimum size is one patch. A height or width of `None` accepts
            any size. Defaults to (224, 224, 3), or to (None, None, 3) if
            `include_top` is false.
        pooling: The last layer of a model without classifier. `None` for no
            pooling; the output is 4-D. `"avg"` or `"max"` for global pooling;
            the output is 2-D.
        classes: Integer, the number of classes of the classifier.
        classifier_activation: Activation of the classifier. `None` returns
            logits, `"softmax"` probabilities, and `"sigmoid"` independent
            probabilities for multi-label classification.
        name: The model's name.
        include_preprocessing: Boolean, whether the model takes pixels in [0,
            255] and normalizes them. If false, it takes the output of
            `preprocessing.normalize` with the model's `mean` and `std`.
        mean: Mean of the pixels scaled to [0, 1]: a number, or one for each
            channel. Defaults to the mean that the published weights were
            trained with, or to ImageNet's. One channel gets the average of the
            default's three; for more than three channels they repeat.
        std: Standard deviation of the pixels scaled to [0, 1], with the same
            rules as `mean`.
        dropout: Fraction of the pooled features that is dropped in training.
        drop_path: Fraction of the images for which the last block's residual
            branch is dropped in training (stochastic depth). The fraction grows
            linearly with depth, from 0 in the first block. A model of one block
            drops nothing.
        remat: Boolean, whether to recompute activations in the backward pass
            instead of storing them. This takes less memory and more time; the
            gradients are the same.
        reset_classifier: Boolean, whether to keep the classifier random when
            weights are loaded. Use it for other classes.
        adapt_channels: Boolean, whether to adapt weights for three channels to
            another number of channels. They are summed for one channel;
            otherwise they are repeated and scaled by 3 / channels.
        depthwise_initializer: Initializer of the depthwise kernels if no
            weights are loaded. `None` is the original, uniform in
            +-1/kernel_size. `"covariance"` draws kernels that look like trained
            ones and are wider with depth (see `layers.CovarianceInitializer`);
            the model then learns faster.

    Returns:
        A `keras.Model`. Its layers are `patch_embed`, `block_0` and so on,
        `avg_pool` and `predictions`.

    Raises:
        ValueError: If an argument is invalid or contradicts another, or if the
            weights do not fit. Weights are never loaded partly.
        OSError: If published weights can't be downloaded.
        ImportError: If a weights file needs PyTorch and PyTorch isn't
            installed.

    Example:

    ```python
    model = ConvMixer(256, 8, 5, 2, input_shape=(32, 32, 3), classes=10)
    model.count_params()  # 602890, of which 594186 are trainable
    ```
    """
    dim, depth, kernel_size, patch_size, classes, dropout, drop_path = map(
        plain,
        (dim, depth, kernel_size, patch_size, classes, dropout, drop_path),
    )
    check_sizes(dim, depth, kernel_size, patch_size)
    check_head(include_top, pooling, classes, dropout, drop_path)
    check_depthwise_initializer(depthwise_initializer)
    shape = image_shape(input_shape, input_tensor, include_top, patch_size)
    activation = keras.activations.get(activation)
    if weights is not None:
        weights = fetched(weights)
        check_weights(weights, shape, adapt_channels)
    dataset, published = dataset_of(weights), None
    if dataset:
        name_of_weights = find_published(
            dim,
            depth,
            kernel_size,
            patch_size,
            activation_name(activation),
            dataset,
        )
        published = PUBLISHED_WEIGHTS[name_of_weights]
    preprocess = normalization(shape, mean, std, published)
    if not include_preprocessing:
        preprocess = None
    if published:
        pretrained_top = include_top and not reset_classifier
        if pretrained_top:
            check_pretrained_head(published, classes, classifier_activation)
        weights = fetch_weights(name_of_weights, pretrained_top)
    elif weights is not None:
        check_saved(weights, activation, preprocess)

    inputs, x = image_input(shape, input_tensor)
    if preprocess:
        x = preprocess(x)
    x = PatchEmbed(dim, patch_size, activation, name="patch_embed")(x)
    for i in range(depth):
        position = i / max(depth - 1, 1)
        x = ConvMixerBlock(
            kernel_size,
            activation,
            drop_path=drop_path * position,
            remat=remat,
            depthwise_initializer=CovarianceInitializer(position)
            if depthwise_initializer == "covariance"
            else None,
            name=f"block_{i}",
        )(x)
    if include_top:
        x = _classifier(x, dim, classes, classifier_activation, dropout)
    elif pooling:
        x = _pooling(pooling)(x)
    model = keras.Model(inputs, x, name=name)

    if weights is not None:
        load_weights(
            model,
            weights,
            reset_classifier=reset_classifier,
            adapt_channels=adapt_channels,
        )
    return model


def _pooling(pooling):
    cls = {
        "avg": layers.GlobalAveragePooling2D,
        "max": layers.GlobalMaxPooling2D,
    }[pooling]
    return cls(dtype=_full_precision(), name=f"{pooling}_pool")


def _classifier(x, dim, classes, activation, dropout):
    x = _pooling("avg")(x)
    x = layers.Dropout(dropout, dtype=_full_precision(), name="head_dropout")(x)
    return layers.Dense(
        classes,
        activation,
        kernel_initializer=torch_uniform(dim),
        bias_initializer=torch_uniform(dim),
        dtype=_full_precision(),
        name="predictions",
    )(x)


def _full_precision():
    """Returns the variables' dtype, since half precision rounds the sums."""
    return keras.config.dtype_policy().variable_dtype
