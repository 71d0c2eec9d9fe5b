"""What a Keras model is made of, at whatever depth."""

import keras

from convmixer_tf.layers import PatchEmbed

# Layers that return their input in inference. Of the augmentation layers,
# `RandomCrop` is not one: it crops the center then.
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
    """Lists the layers of a model, those of inner models in their place."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def is_inactive(layer):
    """Whether a layer returns its input in inference, as augmentation does."""
    # Not a subclass: it may be active, as Monte Carlo dropout is.
    return type(layer) in _INACTIVE


def check_pixels(model):
    """Checks that a ConvMixer takes pixels as they are.

    Args:
        model: A `keras.Model`, such as `ConvMixer` or `export.deploy` returns.

    Raises:
        ValueError: If it is one without preprocessing.
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
