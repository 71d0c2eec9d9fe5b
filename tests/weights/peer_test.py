"""Compares with the real modules of timm and of the authors."""

import numpy as np
import pytest

from convmixer_tf.weights import load_weights
from convmixer_tf.weights import save_timm_weights
from convmixer_tf.weights import timm_state_dict
from convmixer_tf.weights.loading import adapt_stem
from convmixer_tf.weights.names import to_keras
from tests.peers import authors_model
from tests.peers import import_timm
from tests.weights.samples import SMALL
from tests.weights.samples import assert_same
from tests.weights.samples import assign
from tests.weights.samples import flat_names
from tests.weights.samples import model_weights
from tests.weights.samples import random_weights
from tests.weights.samples import small_model

pytestmark = pytest.mark.peer


@pytest.fixture(autouse=True)
def _timm():
    import_timm()


def authors_small():
    return authors_model(
        SMALL.dim,
        SMALL.depth,
        SMALL.kernel_size,
        SMALL.patch_size,
        SMALL.classes,
    )


def timm_model():
    from timm.models.convmixer import ConvMixer

    return ConvMixer(
        dim=SMALL.dim,
        depth=SMALL.depth,
        kernel_size=SMALL.kernel_size,
        patch_size=SMALL.patch_size,
        num_classes=SMALL.classes,
    )


def randomize(module):
    """Sets every parameter and statistic to a different value."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5, generator=generator)
            else:
                tensor.fill_(7)
    return module.eval()


def logits(module, images):
    import torch

    with torch.no_grad():
        return module(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()


def images():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 20, 12, 3)).astype("float32")


@pytest.mark.parametrize("build", [timm_model, authors_small])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_their_file_gives_their_logits(tmp_path, build, suffix):
    import safetensors.torch
    import torch

    module = randomize(build())
    path = tmp_path / f"small.{suffix}"
    if suffix == "pth":
        torch.save(module.state_dict(), path)
    else:
        safetensors.torch.save_file(module.state_dict(), path)
    model = small_model(
        classifier_activation=None, include_preprocessing=False, weights=path
    )
    expected = logits(module, images())
    actual = np.asarray(model(images()))
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_timm_takes_our_file(tmp_path):
    from timm.models import load_checkpoint

    model = small_model(classifier_activation=None, include_preprocessing=False)
    assign(model, random_weights())
    path = tmp_path / "small.safetensors"
    save_timm_weights(model, path)
    module = timm_model().eval()
    load_checkpoint(module, str(path), strict=True)
    np.testing.assert_allclose(
        logits(module, images()), np.asarray(model(images())), rtol=1e-4
    )


def test_strict_state_dict_both_ways(tmp_path):
    import torch

    module = randomize(timm_model())
    before = {k: v.numpy().copy() for k, v in module.state_dict().items()}
    path = tmp_path / "small.pth"
    torch.save(module.state_dict(), path)
    model = small_model()
    load_weights(model, path)
    state_dict = timm_state_dict(model)
    module = timm_model()
    module.load_state_dict(
        {k: torch.from_numpy(v) for k, v in state_dict.items()}, strict=True
    )
    for name, tensor in module.state_dict().items():
        expected = before[name]
        if name.endswith("num_batches_tracked"):
            expected = np.zeros_like(expected)
        assert tensor.numpy().tobytes() == expected.tobytes(), name


def test_flat_names_are_those_of_the_sequential():
    names = flat_names()
    assert set(names.values()) == set(authors_small().state_dict())
    assert set(names) == set(timm_model().state_dict())
    flat = {
        k: v.numpy() for k, v in randomize(authors_small()).state_dict().items()
    }
    renamed = {name: flat[names[name]] for name in names}
    assert_same(to_keras(flat), to_keras(renamed))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_stem_is_adapted_as_timm_does(channels):
    import torch
    from timm.models import adapt_input_conv

    kernel = random_weights()["patch_embed/conv/kernel"]
    expected = adapt_input_conv(
        channels, torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    )
    np.testing.assert_allclose(
        adapt_stem(kernel, channels),
        expected.numpy().transpose(2, 3, 1, 0),
        rtol=1e-6,
    )


def test_parameter_names_of_the_keras_model():
    model = small_model()
    state_dict = {k: v.numpy() for k, v in timm_model().state_dict().items()}
    shapes = {k: v.shape for k, v in to_keras(state_dict).items()}
    assert shapes == {k: v.shape for k, v in model_weights(model).items()}
