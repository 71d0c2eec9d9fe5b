"""Inspects the layers of a Keras model, including nested models."""

import keras

from convmixer_tf.layers import PatchEmbed

# Layers that return their input in inference. `RandomCrop` is not one: in
# inference it crops the center.
_INACTIVE = {
    getattr(keras.layers, name)
    for name in (
        "ActivityRegularization",
        "AlphaDropout",
        "AugMix",
        "CutMix",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "Identity",
        "MixUp",
        "RandAugment",
        "RandomBrightness",
        "RandomColorDegeneration",
        "RandomColorJitter",
        "RandomContrast",
        "RandomElasticTransform",
        "RandomErasing",
        "RandomFlip",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomHue",
        "RandomInvert",
        "RandomPerspective",
        "RandomPosterization",
        "RandomRotation",
        "RandomSaturation",
        "RandomSharpness",
        "RandomShear",
        "RandomTranslation",
        "RandomZoom",
        "SpatialDropout2D",
    )
}


def leaf_layers(model):
    """Lists the layers of a model, with nested models flattened."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def is_inactive(layer):
    """Returns whether a layer returns its input in inference."""
    # Not a subclass, which may be active, such as Monte Carlo dropout.
    return type(layer) in _INACTIVE


def check_pixels(model):
    """Checks that a ConvMixer takes pixels in [0, 255].

    Args:
        model: A `keras.Model`, such as `ConvMixer` or `export.deploy` returns.

    Raises:
        ValueError: If it has no preprocessing.
    """
    deployment = getattr(model, "deployment", None)
    if isinstance(_first_layer(model), PatchEmbed) or (
        deployment and not deployment.preprocessing_folded
    ):
        raise ValueError(
            "The model must take pixels in [0, 255]. Build it again with "
            "include_preprocessing=True; the weights are the same. "
            f"Received: {model!r}, which has no preprocessing"
        )


def _first_layer(model):
    for layer in leaf_layers(model):
        if not (
            isinstance(layer, keras.layers.InputLayer) or is_inactive(layer)
        ):
            return layer
    return None
