"""Tests reading PyTorch checkpoints: valid, damaged and malicious."""

import argparse
import collections
import datetime
import decimal
import os
import pathlib
import pickle
import sys
import types
import uuid

import numpy as np
import pytest

from convmixer_tf.weights import load_weights
from convmixer_tf.weights import read_weights
from tests.peers import import_timm
from tests.weights.samples import assert_same
from tests.weights.samples import flat_names
from tests.weights.samples import model_weights
from tests.weights.samples import random_state_dict
from tests.weights.samples import random_weights
from tests.weights.samples import small_model


def test_without_pytorch(tmp_path, monkeypatch):
    path = tmp_path / "small.pth"
    path.write_bytes(b"\x80\x02}.")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"needs PyTorch: `pip install torch"):
        read_weights(path)


@pytest.fixture
def torch():
    """PyTorch. Tests that use it are marked `peer`."""
    import torch

    return torch


def tensors(torch, **kwargs):
    state_dict = random_state_dict(**kwargs)
    return collections.OrderedDict(
        (name, torch.from_numpy(array)) for name, array in state_dict.items()
    )


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.peer
@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dict(torch, tmp_path, suffix, zipped):
    path = tmp_path / f"small{suffix}"
    torch.save(tensors(torch), path, _use_new_zipfile_serialization=zipped)
    assert_same(read_weights(path), random_weights())


@pytest.mark.peer
def test_training_checkpoint_of_timm(torch, tmp_path):
    path = tmp_path / "checkpoint.pth.tar"
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "arch": "convmixer_768_32",
        "state_dict": tensors(torch, seed=1),
        "optimizer": optimizer.state_dict(),
        "version": 2,
        "args": argparse.Namespace(lr=0.01, mean=None, opt_betas=[0.9, 0.99]),
        "amp_scaler": {"scale": 65536.0},
        "metric": 80.1,
    }
    torch.save(checkpoint, path)
    assert_same(read_weights(path), random_weights(seed=1))
    # Like timm, the averaged weights are preferred.
    torch.save({**checkpoint, "state_dict_ema": tensors(torch)}, path)
    assert_same(read_weights(path), random_weights())


@pytest.mark.peer
@pytest.mark.parametrize(
    "key", ["state_dict", "model", "state_dict_ema", "model_ema"]
)
def test_wrapped_flat_and_data_parallel(torch, tmp_path, key):
    path = tmp_path / "small.pth.tar"
    flat = {
        f"module.{flat_names()[name]}": tensor
        for name, tensor in tensors(torch).items()
    }
    torch.save({key: flat}, path)
    assert_same(read_weights(path), random_weights())


@pytest.mark.peer
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_precisions(torch, tmp_path, dtype):
    path = tmp_path / "small.pth"
    expected = {
        name: value.astype(dtype) for name, value in random_weights().items()
    }
    torch.save(
        {
            name: tensor.to(getattr(torch, dtype))
            for name, tensor in tensors(torch).items()
        },
        path,
    )
    assert_same(read_weights(path), expected)


@pytest.mark.peer
def test_parameters_and_views(torch, tmp_path):
    path = tmp_path / "small.pth"
    changed = tensors(torch)
    head = changed["head.weight"]
    changed["head.weight"] = torch.nn.Parameter(head.T.contiguous().T)
    torch.save(changed, path)
    assert_same(read_weights(path), random_weights())


@pytest.mark.peer
@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_checkpoint_is_refused_and_not_run(torch, tmp_path, zipped):
    path, trace = tmp_path / "small.pth", tmp_path / "trace"
    torch.save(
        {"state_dict": tensors(torch), "args": Malicious(trace)},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(
        ValueError,
        match=rf"`{path}`: .*`\w+\.mkdir`, which was not unpickled because",
    ):
        read_weights(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # Shows the attack.
    assert trace.exists()


@pytest.mark.peer
def test_malicious_pickle_is_refused_and_not_run(torch, tmp_path):
    path, trace = tmp_path / "small.pth", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(ValueError, match="a pickle that is not a PyTorch"):
        read_weights(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()


@pytest.mark.peer
def test_whole_module_is_refused(torch, tmp_path):
    path = tmp_path / "small.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(
        ValueError, match=r"`torch\.\S+\.Linear`, which was not unpickled"
    ):
        read_weights(path)


@pytest.mark.peer
def test_truncated_anywhere(torch, tmp_path):
    path = tmp_path / "small.pth"
    torch.save(tensors(torch), path)
    content = path.read_bytes()
    for size in [1, 8, 100, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=rf"`{path}`: it is .* truncated"):
            read_weights(path)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("content", "received"),
    [
        (3, "no tensors, but one value: int"),
        ([1, 2], "no tensors, but a list of int, int"),
        ({}, "no tensors, but a dict of nothing"),
        ({"state_dict": 3}, r"a dict of state_dict \(int\)"),
        ({"head.weight": 3}, r"a dict of head\.weight \(int\)"),
        ({7: None}, r"a dict of 7 \(NoneType\)"),
        (argparse.Namespace(lr=1), "one value: an object that is not read"),
        ({"a": np.ones(1)}, r"a dict of a \(an object that is not read\)"),
    ],
)
def test_no_tensors(torch, tmp_path, content, received):
    path = tmp_path / "small.pth"
    torch.save(content, path)
    message = rf"{received}\. Save only the weights"
    with pytest.raises(ValueError, match=message):
        read_weights(path)


@pytest.mark.peer
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["a.pt", "a.ckpt", "A.PTH", "a.bin", "a"])
def test_content_decides_and_not_the_name(torch, tmp_path, name, zipped):
    path = tmp_path / name
    torch.save(tensors(torch), path, _use_new_zipfile_serialization=zipped)
    assert_same(read_weights(path), random_weights())


@pytest.mark.peer
@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: {"model_state_dict": x, "epoch": 3},
        lambda x: {"net": x, "acc": 0.9},
        lambda x: {"ema": x},
        lambda x: {"teacher": x, "optimizer": {"state": {}}},
        lambda x: {"weights": x},
        lambda x: {"params": x},
        lambda x: {"module": x},
        lambda x: {"checkpoint": {"model": {"state_dict": x}}},
        lambda x: [x],
        lambda x: collections.defaultdict(dict, model=x),
    ],
)
def test_wrappings(torch, tmp_path, wrap):
    path = tmp_path / "small.pt"
    torch.save(wrap(tensors(torch)), path)
    assert_same(read_weights(path), random_weights())


@pytest.mark.peer
def test_what_stands_beside_is_said_once(torch, tmp_path):
    path = tmp_path / "averaged.pt"
    content = {f"model.{name}": x for name, x in tensors(torch).items()}
    content["criterion.weight"] = torch.ones(5)
    content["n_averaged"] = torch.tensor(3)
    torch.save(content, path)
    with pytest.warns(
        UserWarning, match=r"were not read: criterion\.weight, n_averaged\.$"
    ) as said:
        model = small_model(weights=path)
    assert len(said) == 1
    assert_same(model_weights(model), random_weights())


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_modules_around_a_model(torch, tmp_path):
    """Names from PyTorch's averaging and compiling modules."""
    import_timm()
    from timm.models.convmixer import ConvMixer

    model = ConvMixer(6, 2, kernel_size=3, patch_size=4, num_classes=5)
    model.load_state_dict(tensors(torch))
    averaged = torch.optim.swa_utils.AveragedModel(model)
    compiled = torch.compile(model)
    path = tmp_path / "wrapped.pt"
    torch.save(compiled.state_dict(), path)
    assert_same(read_weights(path), random_weights())
    torch.save({"model": averaged.state_dict()}, path)
    with pytest.warns(UserWarning, match="were not read: n_averaged"):
        assert_same(read_weights(path), random_weights())
    torch.save({"state_dict": model.state_dict(), "whole": model}, path)
    with pytest.raises(ValueError, match=r"`timm\.models\.convmixer\.ConvMix"):
        read_weights(path)


@pytest.mark.peer
def test_two_models(torch, tmp_path):
    path = tmp_path / "distilled.pt"
    torch.save(
        {"student": tensors(torch), "teacher": tensors(torch, seed=1)}, path
    )
    with pytest.raises(ValueError, match="2 ConvMixers: `student`, `teacher`"):
        read_weights(path)
    assert_same(read_weights(path, key="teacher"), random_weights(seed=1))
    model = small_model()
    load_weights(model, path, key="student")
    assert_same(model_weights(model), random_weights())


@pytest.mark.peer
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.5),
        np.float32(0.5),
        np.bool_(True),
        np.dtype("float32"),
        np.arange(3.0),
        pathlib.Path("a/b"),
        pathlib.PureWindowsPath("a/b"),
        argparse.Namespace(lr=np.float64(0.1), out=pathlib.Path("a")),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        datetime.timedelta(3),
        collections.Counter("abb"),
        collections.defaultdict(list, loss=[np.float64(1)]),
        collections.deque([1, 2], maxlen=3),
        types.SimpleNamespace(lr=1),
        {1, "a"},
        frozenset({1}),
        b"bytes",
        2j,
        range(3),
        slice(1, 2),
        uuid.UUID(int=3),
        decimal.Decimal("0.1"),
        float,
        10**30,
        np.random.RandomState(0).get_state(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_harmless_metadata(torch, tmp_path, value, zipped):
    path = tmp_path / "small.pth"
    content = {"state_dict": tensors(torch), "extra": value, "list": [value]}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert_same(read_weights(path), random_weights())


class AttributeDict(dict):
    """As in Lightning's checkpoints."""


@pytest.mark.peer
@pytest.mark.parametrize("package", ["lightning.fabric", "lightning_fabric"])
def test_hyperparameters_of_lightning(torch, tmp_path, monkeypatch, package):
    name = f"{package}.utilities.data"
    module = types.ModuleType(name)
    module.AttributeDict = AttributeDict
    parts = name.split(".")
    for i in range(len(parts)):
        monkeypatch.setitem(sys.modules, ".".join(parts[: i + 1]), module)
    monkeypatch.setattr(AttributeDict, "__module__", name)
    path = tmp_path / "last.ckpt"
    content = {f"net.{name}": x for name, x in tensors(torch).items()}
    hyper = AttributeDict(lr=np.float64(0.1))
    torch.save({"state_dict": content, "hyper_parameters": hyper}, path)
    monkeypatch.delitem(sys.modules, name)
    assert_same(read_weights(path), random_weights())


class Settings:
    """A class that exists only in the training program."""


@pytest.mark.peer
def test_other_object_is_named(torch, tmp_path):
    path = tmp_path / "small.pth"
    torch.save({"state_dict": tensors(torch), "cfg": Settings()}, path)
    with pytest.raises(
        ValueError,
        match=r"`[\w.]*torch_files_test\.Settings`, which was not unpickled .*"
        r"`torch\.save\(model\.state_dict\(\), path\)`\.$",
    ) as error:
        read_weights(path)
    message = str(error.value)
    assert "\x1b" not in message
    assert "weights_only" not in message
    assert error.value.__suppress_context__


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(torch, tmp_path):
    path = tmp_path / "scripted.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(2)), path)
    with pytest.raises(ValueError, match=r"TorchScript.*torch\.jit\.load"):
        read_weights(path)


@pytest.mark.peer
def test_optimizer_alone(torch, tmp_path):
    path = tmp_path / "optimizer.pt"
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), path)
    with pytest.raises(
        ValueError, match=r"no ConvMixer\. .*`state\.0` \(.*exp"
    ):
        read_weights(path)


@pytest.mark.peer
def test_content_that_contains_itself(torch, tmp_path):
    path = tmp_path / "small.pt"
    content = {"model": tensors(torch)}
    content["again"] = content
    content["last"] = content["model"]  # The same object is not counted twice.
    torch.save(content, path)
    assert_same(read_weights(path), random_weights())


@pytest.mark.peer
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("is a sparse", lambda torch: torch.eye(5).to_sparse()),
        ("is a sparse", lambda torch: torch.eye(5).to_sparse_csr()),
        ("is a tensor without values", lambda t: t.ones(5, device="meta")),
        (
            "is a quantized",
            lambda t: t.quantize_per_tensor(t.ones(5), 1, 0, t.qint8),
        ),
        (
            "type that NumPy does not have",
            lambda t: t.ones(5).to(t.float8_e5m2),
        ),
        ("must hold floating", lambda t: t.ones(5, dtype=t.int8)),
        ("must hold floating", lambda t: t.ones(5, dtype=t.complex64)),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse", "ignore:torch.quantize")
@pytest.mark.filterwarnings("ignore:torch.ao", "ignore::DeprecationWarning")
def test_tensors_of_other_kinds(torch, tmp_path, kind, make):
    path = tmp_path / "small.pth"
    torch.save({"head.bias": make(torch)}, path)
    with pytest.raises(ValueError, match=rf"`\w+[./]bias`.*{kind}"):
        read_weights(path)


@pytest.mark.peer
def test_safetensors_in_a_precision_that_numpy_lacks(torch, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "small.safetensors"
    bias = torch.zeros(5).to(torch.float8_e4m3fn)
    save_file({"head.bias": bias}, path)
    with pytest.raises(ValueError, match="a type that NumPy does not have"):
        read_weights(path)


@pytest.mark.peer
def test_values_do_not_share_memory_with_a_closed_file(torch, tmp_path):
    path = tmp_path / "small.pth"
    torch.save(tensors(torch), path)
    weights = read_weights(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    np.testing.assert_array_equal(
        weights["predictions/bias"], random_weights()["predictions/bias"]
    )
