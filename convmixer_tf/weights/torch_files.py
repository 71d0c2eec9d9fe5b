"""Reading PyTorch checkpoints, without running what a pickle asks for."""

import argparse

import ml_dtypes

# As timm does it: the averaged weights if there are any.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_torch(path):
    """Reads the state dict of a PyTorch checkpoint.

    Only tensors and plain values are unpickled (`weights_only=True`), and the
    `argparse.Namespace` that timm's training script stores.

    Args:
        path: Path of a state dict, or of a dictionary with one under
            `state_dict_ema`, `model_ema`, `state_dict` or `model`; if there
            are several, that's the order of preference (it is timm's).

    Returns:
        Dictionary from names to NumPy arrays.

    Raises:
        ImportError: If PyTorch isn't installed.
        ValueError: If the file is damaged, isn't a PyTorch file, or holds
            other Python objects. Those are never unpickled.
    """
    torch = _import_torch()
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            "it is not a PyTorch checkpoint, is truncated, or holds Python "
            "objects other than tensors and plain values, which are refused "
            f"because unpickling them may run any code ({_summary(error)})."
        ) from error
    return {
        name: _to_numpy(torch, name, tensor)
        for name, tensor in _state_dict(checkpoint).items()
    }


def _import_torch():
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "Reading a PyTorch checkpoint needs PyTorch: `pip install torch`. "
            "A .safetensors file needs nothing further."
        ) from error
    return torch


def _summary(error):
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _state_dict(checkpoint):
    if isinstance(checkpoint, dict):
        for key in _WRAPPERS:
            if checkpoint.get(key) is not None:
                checkpoint = checkpoint[key]
                break
    if not isinstance(checkpoint, dict):
        raise ValueError(
            "it must hold a dictionary of tensors. "
            f"Received: {type(checkpoint).__name__}"
        )
    return checkpoint


def _to_numpy(torch, name, tensor):
    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
        raise ValueError(
            "it must hold a dictionary of tensors. "
            f"Received: {type(tensor).__name__} under {name!r}"
        )
    try:
        if tensor.dtype == torch.bfloat16:  # NumPy itself has no bfloat16.
            bits = tensor.detach().contiguous().view(torch.int16)
            return bits.numpy().view(ml_dtypes.bfloat16)
        return tensor.detach().numpy()
    except (RuntimeError, TypeError) as error:  # Sparse, quantized, ...
        raise ValueError(
            f"`{name}` is not a dense tensor ({_summary(error)})."
        ) from error
