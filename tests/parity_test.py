"""Compares the models with timm's, from pixels to probabilities.

The default model takes uint8 pixels, normalizes them, and returns logits or
probabilities. All weights and batch statistics are random.
"""

import numpy as np
import pytest
from safetensors.numpy import save_file

from convmixer_tf import models
from convmixer_tf.preprocessing import IMAGENET_MEAN
from convmixer_tf.preprocessing import IMAGENET_STD
from convmixer_tf.preprocessing import normalize
from convmixer_tf.weights import timm_state_dict
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference
from tests.peers import import_timm

pytestmark = pytest.mark.peer

VARIANTS = {
    "ConvMixer1536_20": "convmixer_1536_20",
    "ConvMixer768_32": "convmixer_768_32",
    "ConvMixer1024_20": "convmixer_1024_20_ks9_p14",
}
# Not one of timm's variants, but of its class.
SMALL = {
    "dim": 256,
    "depth": 8,
    "kernel_size": 5,
    "patch_size": 2,
    "num_classes": 10,
}
IMAGES = asymmetric_image(70, 98)


def timm_logits(model, images):
    import torch

    images = normalize(images).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(images)).numpy()


def load_into_timm(model, ours):
    import torch

    state_dict = timm_state_dict(ours)
    model.load_state_dict(
        {name: torch.from_numpy(a) for name, a in state_dict.items()},
        strict=True,
    )
    return model


def check_parity(ours, theirs, images=IMAGES):
    expected = timm_logits(load_into_timm(theirs, ours), images)
    actual = ours.predict(images, verbose=0)
    assert relative_difference(actual, expected) < 1e-4
    # The test would detect a flipped or unnormalized image.
    for wrong in (images[:, :, ::-1], images[:, ::-1], images / 255):
        assert relative_difference(ours.predict(wrong, verbose=0), expected) > (
            1e-3
        )


@pytest.mark.parametrize("kernel_size", [3, 8, 9])
@pytest.mark.parametrize("patch_size", [1, 2, 7])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_generic_model(kernel_size, patch_size, activation):
    import_timm()
    import torch
    from timm.models.convmixer import ConvMixer

    theirs = ConvMixer(
        16,
        3,
        kernel_size,
        patch_size,
        num_classes=7,
        act_layer={"gelu": torch.nn.GELU, "relu": torch.nn.ReLU}[activation],
    )
    ours = models.ConvMixer(
        16,
        3,
        kernel_size,
        patch_size,
        activation,
        input_shape=(31, 45, 3),
        classes=7,
        classifier_activation=None,
    )
    check_parity(randomize(ours), theirs, asymmetric_image(31, 45))


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name):
    timm = import_timm()
    theirs = timm.create_model(VARIANTS[name])
    ours = getattr(models, name)(
        weights=None, input_shape=(70, 98, 3), classifier_activation=None
    )
    check_parity(randomize(ours), theirs)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_with_the_weights_of_timm(name, tmp_path):
    timm = import_timm()
    import torch

    theirs = timm.create_model(VARIANTS[name])
    generator = torch.Generator().manual_seed(0)
    for tensor in theirs.state_dict().values():
        if tensor.ndim == 1:  # Biases and batch normalization.
            tensor.uniform_(0.5, 1.5, generator=generator)
    state_dict = {k: v.numpy() for k, v in theirs.state_dict().items()}
    save_file(state_dict, tmp_path / "model.safetensors")
    ours = getattr(models, name)(
        weights=tmp_path / "model.safetensors", input_shape=(None, None, 3)
    )
    logits = torch.from_numpy(timm_logits(theirs, IMAGES))
    expected = torch.softmax(logits, -1).numpy()
    actual = ours.predict(IMAGES, verbose=0)
    assert relative_difference(actual, expected) < 1e-4
    # The reverse conversion is exact.
    for key, value in timm_state_dict(ours).items():
        np.testing.assert_array_equal(value, state_dict[key])


def test_every_variant_is_compared():
    # keras-cv's is compared in tests/weights/keras_cv_test.py.
    compared = {*VARIANTS, "ConvMixer256_8", "ConvMixer512_16"}
    assert compared == {n for n in models.__all__ if n[-1].isdigit()}


def test_the_small_variant():
    import_timm()
    from timm.models.convmixer import ConvMixer

    ours = models.ConvMixer256_8(
        weights=None,
        input_shape=(31, 45, 3),
        classifier_activation=None,
        # The statistics in `timm_logits`.
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    check_parity(randomize(ours), ConvMixer(**SMALL), asymmetric_image(31, 45))
