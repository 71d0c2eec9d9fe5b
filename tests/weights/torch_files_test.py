"""Reading PyTorch checkpoints, honest, damaged and hostile."""

import argparse
import collections
import os
import pickle
import sys

import numpy as np
import pytest

from convmixer_tf.weights import read_weights
from tests.weights.samples import assert_same
from tests.weights.samples import flat_names
from tests.weights.samples import random_state_dict
from tests.weights.samples import random_weights


def test_without_pytorch(tmp_path, monkeypatch):
    path = tmp_path / "small.pth"
    path.write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"needs PyTorch: `pip install torch"):
        read_weights(path)


@pytest.fixture
def torch():
    """PyTorch; tests that use it are marked `peer`."""
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
    # The averaged weights, where there are any, as timm does it.
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
        ValueError, match=rf"`{path}`: .*refused because unpickling them"
    ):
        read_weights(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # What it would have done.
    assert trace.exists()


@pytest.mark.peer
def test_malicious_pickle_is_refused_and_not_run(torch, tmp_path):
    path, trace = tmp_path / "small.pth", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(ValueError, match="refused because unpickling them"):
        read_weights(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()


@pytest.mark.peer
def test_whole_module_is_refused(torch, tmp_path):
    path = tmp_path / "small.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match="refused because unpickling them"):
        read_weights(path)


@pytest.mark.peer
def test_truncated_anywhere(torch, tmp_path):
    path = tmp_path / "small.pth"
    torch.save(tensors(torch), path)
    content = path.read_bytes()
    for size in [1, 8, 100, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(
            ValueError, match=rf"`{path}`: it is not a PyTorch checkpoint, is "
        ):
            read_weights(path)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("content", "received"),
    [
        (3, "int"),
        ([1, 2], "list"),
        ({"state_dict": 3}, "int"),
        ({"head.weight": 3}, "int under 'head.weight'"),
        ({7: None}, "NoneType under 7"),
    ],
)
def test_no_state_dict(torch, tmp_path, content, received):
    path = tmp_path / "small.pth"
    torch.save(content, path)
    with pytest.raises(
        ValueError, match=f"dictionary of tensors. Received: {received}"
    ):
        read_weights(path)


@pytest.mark.peer
def test_sparse_tensor(torch, tmp_path):
    path = tmp_path / "small.pth"
    sparse = torch.eye(3).to_sparse()
    torch.save({"head.weight": sparse}, path)
    with pytest.raises(ValueError, match=r"`head\.weight` is not a dense"):
        read_weights(path)


@pytest.mark.peer
def test_safetensors_in_a_precision_that_numpy_lacks(torch, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "small.safetensors"
    bias = torch.zeros(5).to(torch.float8_e4m3fn)
    save_file({"head.bias": bias}, path)
    with pytest.raises(ValueError, match="numbers of a type that NumPy lacks"):
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
