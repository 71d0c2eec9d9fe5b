"""Random weights of a small ConvMixer in all formats of the tests."""

import warnings

import keras
import numpy as np

from convmixer_tf import ConvMixer
from convmixer_tf.weights.checking import Architecture
from convmixer_tf.weights.names import to_timm

SMALL = Architecture(
    dim=6, depth=2, kernel_size=3, patch_size=4, channels=3, classes=5
)


def random_weights(architecture=SMALL, seed=0, dtype="float32"):
    """Weights by Keras path. All values are different."""
    rng = np.random.default_rng(seed)
    return {
        path: rng.uniform(0.5, 1.5, shape).astype(dtype)
        for path, shape in architecture.shapes().items()
    }


def random_state_dict(architecture=SMALL, seed=0, dtype="float32"):
    """Weights by timm's name, as timm saves them."""
    return to_timm(random_weights(architecture, seed, dtype))


def small_model(**kwargs):
    """A ConvMixer of the architecture `SMALL`."""
    arguments = {
        "dim": SMALL.dim,
        "depth": SMALL.depth,
        "kernel_size": SMALL.kernel_size,
        "patch_size": SMALL.patch_size,
        "classes": SMALL.classes,
        "input_shape": (None, None, SMALL.channels),
    }
    return ConvMixer(**{**arguments, **kwargs})


def assign(model, weights):
    """Sets a model's variables by path."""
    for variable in model.weights:
        if variable.path in weights:
            variable.assign(weights[variable.path])


def model_weights(model):
    """A model's variables by path."""
    return {v.path: np.asarray(v.numpy()) for v in model.weights}


def quantized(model, mode):
    """Quantizes the classifier in place, as `model.quantize(mode)` does."""
    configs = {
        "int4 by channel": keras.quantizers.Int4QuantizationConfig(
            block_size=-1
        ),
        "int4 in blocks": keras.quantizers.Int4QuantizationConfig(block_size=4),
    }
    with warnings.catch_warnings(action="ignore"):  # About other layers.
        model.quantize(mode.partition(" ")[0], config=configs.get(mode))
    return model


QUANTIZATIONS = ["int8", "int4", "int4 by channel", "int4 in blocks", "float8"]


def with_lora(model, *layers):
    """Adds LoRA updates that are not zero to layers of the model."""
    rng = np.random.default_rng(1)
    for layer in layers:
        layer.enable_lora(2, lora_alpha=3)
        for v in (layer.lora_kernel_a, layer.lora_kernel_b):
            v.assign(rng.normal(size=v.shape))
    return model


def flat_names(architecture=SMALL):
    """Maps timm's names to those of the authors' nn.Sequential.

    Written out by hand for depth 2; the peer tests compare it with PyTorch.
    """
    assert architecture.depth == 2
    modules = {
        "stem.0": "0",
        "stem.2": "2",
        "blocks.0.0.fn.0": "3.0.fn.0",
        "blocks.0.0.fn.2": "3.0.fn.2",
        "blocks.0.1": "3.1",
        "blocks.0.3": "3.3",
        "blocks.1.0.fn.0": "4.0.fn.0",
        "blocks.1.0.fn.2": "4.0.fn.2",
        "blocks.1.1": "4.1",
        "blocks.1.3": "4.3",
        "head": "7",
    }
    names = {}
    for name in random_state_dict(architecture):
        module, _, parameter = name.rpartition(".")
        names[name] = f"{modules[module]}.{parameter}"
    return names


def assert_same(actual, expected):
    """Asserts that two dictionaries hold the same bits."""
    assert set(actual) == set(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype, name
        np.testing.assert_array_equal(actual[name], array, err_msg=name)
