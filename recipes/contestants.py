"""The models that `compare.py` compares, at any width.

All take pixels in [0, 255], normalise them alike, and end in a classifier. The
batch normalisations of all forget at ConvMixer's rate: MobileNetV3's own, 0.999
a step, is too slow for runs of a few thousand updates.
"""

import bisect
import functools
import importlib.util

import keras
from keras import layers
from mlp_mixer import mlp_mixer

from convmixer_tf.models.normalization import normalization
from convmixer_tf.training.averages import batch_norms

HEADS = 4  # of the ViT


def resnet(image, width):
    """Half a ResNet50, for small images.

    keras.applications has ResNets of one width, and no builder of others in
    its public names. So this is its ResNet50 up to the end of the second of
    four stages, copied with `width` times the filters of each convolution,
    and with a first convolution of stride 1 instead of 2, as is usual for
    images of 32 pixels: its maps are then 16 x 16 and 8 x 8.

    Args:
        image: Normalised images, a symbolic tensor.
        width: Float.

    Returns:
        Symbolic tensor of shape (batch, features).
    """
    x = _copy(_half_resnet50(image.shape[1:]), width, "conv1_conv")(image)
    return layers.GlobalAveragePooling2D(name="avg_pool")(x)


@functools.cache
def _half_resnet50(shape):
    whole = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=shape
    )
    return keras.Model(whole.input, whole.get_layer("conv3_block4_out").output)


def mobilenet(image, width):
    """MobileNetV3Small from keras.applications, for small images.

    Its first convolution has stride 1 instead of 2, or else its last maps of
    a 32-pixel image would be of a single pixel; so they are 2 x 2. Its head is
    a pooling alone, without the layer of 1,024 features.

    Args:
        image: Normalised images, a symbolic tensor.
        width: Float, its `alpha`.

    Returns:
        Symbolic tensor of shape (batch, features).
    """
    body = keras.applications.MobileNetV3Small(
        include_top=False,
        weights=None,
        input_shape=image.shape[1:],
        alpha=width,
        include_preprocessing=False,
    )
    x = _copy(body, 1, "conv")(image)
    return layers.GlobalAveragePooling2D(name="avg_pool")(x)


def _copy(model, width, first_convolution):
    def copy(layer):
        config = layer.get_config()
        if "filters" in config:
            config["filters"] = max(1, round(width * config["filters"]))
        if layer.name == first_convolution:
            config["strides"] = 1
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=copy)


def vit(image, width, depth, patch_size):
    """A ViT of KerasHub, with a class token and MLPs of 4 x the width.

    Args:
        image: Normalised images, a symbolic tensor.
        width: Integer, a multiple of `HEADS`.
        depth: Integer, the number of blocks.
        patch_size: Integer, side of a patch, in pixels.

    Returns:
        Symbolic tensor of shape (batch, features).
    """
    import keras_hub

    backbone = keras_hub.models.ViTBackbone(
        image_shape=tuple(image.shape[1:]),
        patch_size=patch_size,
        num_layers=depth,
        num_heads=HEADS,
        hidden_dim=width,
        mlp_dim=4 * width,
    )
    return backbone(image)[:, 0]


def check_keras_hub():
    """Raises `ImportError` unless KerasHub is there."""
    if importlib.util.find_spec("keras_hub") is None:
        raise ImportError(
            "The ViT comes from KerasHub: `pip install keras-hub`, or leave "
            "it out with --models resnet,mobilenet,mixer."
        )


def classifier(features, input_shape, classes, activation, name):
    """Builds a classifier of images.

    Args:
        features: Function from normalised images, a symbolic tensor, to
            features, of shape (batch, features).
        input_shape: Tuple (height, width, channels).
        classes: Integer, the number of classes.
        activation: Of the classifier; `None` gives logits.
        name: The model's name.

    Returns:
        A `keras.Model` that takes pixels in [0, 255].
    """
    image = keras.Input(input_shape, name="image")
    x = features(normalization(input_shape)(image))
    outputs = layers.Dense(
        classes, activation, dtype="float32", name="predictions"
    )(x)
    model = keras.Model(image, outputs, name=name)
    for norm in batch_norms(model):
        norm.momentum = 0.9
    return model


def _multiples(step):
    """Lists multiples of a step, each at most 4 % or one step above the last.

    The middle one is small: what a search for a width begins with is cheap.
    """
    return [
        round(step * i, 2) for i in sorted({round(1.04**i) for i in range(160)})
    ]


# The names of --models. Each has the features of images at a width, and the
# widths among which there is one of the size that is wanted.
FEATURES = {
    "resnet": resnet,
    "mobilenet": mobilenet,
    "vit": vit,
    "mixer": mlp_mixer,
}
WIDTHS = {
    "resnet": _multiples(0.01),
    "mobilenet": _multiples(0.02),
    "vit": _multiples(HEADS),
    "mixer": _multiples(2),
}


def closest_width(count, widths, target):
    """Finds the width at which a model is of the size that is wanted.

    Args:
        count: Function from a width to a number of parameters, which grows
            with the width.
        widths: Sequence of widths, in ascending order.
        target: Integer, the number of parameters to come close to.

    Returns:
        One of `widths`.
    """
    count = functools.cache(count)
    i = bisect.bisect_left(widths, target, key=count)
    return min(
        widths[max(i - 1, 0) : i + 1], key=lambda w: abs(count(w) - target)
    )
