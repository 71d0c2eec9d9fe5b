"""timm's steps. Functions are those of `keras_steps`."""

import timm
import torch
from timm.models.convmixer import ConvMixer

from speed.cases import repeated
from speed.torch_backend import describe as describe_torch
from speed.torch_backend import free_memory
from speed.torch_backend import set_up
from speed.torch_backend import wait

__all__ = ["free_memory", "set_up"]

LEARNING_RATE = 1e-4  # as in `keras_steps`
_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_ACTIVATIONS = {"gelu": torch.nn.GELU, "relu": torch.nn.ReLU}


def describe():
    """Names the device and the versions."""
    return {"timm": timm.__version__, **describe_torch()}


def build_model(model, channels_last):
    """Builds timm's model.

    Args:
        model: A `Model`.
        channels_last: Boolean, whether weights lie in memory as NHWC.

    Returns:
        A `torch.nn.Module`, on the device.
    """
    return ConvMixer(
        model.dim,
        model.depth,
        kernel_size=model.kernel_size,
        patch_size=model.patch_size,
        num_classes=model.classes,
        act_layer=_ACTIVATIONS[model.activation],
    ).to(_DEVICE, memory_format=_layout(channels_last))


def _layout(channels_last):
    return torch.channels_last if channels_last else torch.contiguous_format


def build_step(case, model, batch_size, contestant):
    """Builds timm's step, in mixed precision by autocast."""
    torch._dynamo.reset()
    dtype = torch.bfloat16 if contestant.pure else torch.float32
    network = build_model(model, contestant.channels_last).to(dtype)
    images = torch.randn(
        (batch_size, 3, model.image_size, model.image_size),
        dtype=dtype,
        device=_DEVICE,
    ).to(memory_format=_layout(contestant.channels_last))
    mixed = case.dtype == "bfloat16" and not contestant.pure
    half = torch.autocast(_DEVICE, torch.bfloat16, enabled=mixed)
    network.train(case.step == "train")
    if contestant.compiled:
        network = torch.compile(network, dynamic=False)
    if case.step == "infer":
        return repeated(_infer(network, images, half), wait)
    labels = torch.randint(model.classes, (batch_size,), device=_DEVICE)
    return repeated(_train(network, images, labels, half), wait)


def _infer(network, images, half):
    @torch.inference_mode()
    def step():
        with half:
            return network(images).float()

    return step


def _train(network, images, labels, half):
    optimizer = torch.optim.AdamW(
        network.parameters(), LEARNING_RATE, fused=True
    )

    def step():
        optimizer.zero_grad()
        with half:
            logits = network(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def build_ceiling(kind, dtype, size):
    """Builds what measures a device's limits."""
    if kind == "copy":
        x = torch.randn(size // 4, device=_DEVICE)
        y = torch.empty_like(x)
        return repeated(lambda: torch.neg(x, out=y), wait)
    x, y = (
        torch.randn((size, size), device=_DEVICE).to(getattr(torch, dtype))
        for _ in range(2)
    )
    z = torch.empty_like(x)
    return repeated(lambda: torch.matmul(x, y, out=z), wait)


def to_numpy(x):
    """Fetches what a step returns."""
    return x.float().cpu().numpy()
