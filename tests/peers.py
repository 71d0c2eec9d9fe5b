"""Other implementations, for the tests that compare with them."""

import importlib
import re
import sys

import pytest

# Kept alive: an operator disappears with its library object.
_LIBRARIES = []


def import_timm():
    """Imports timm, or skips the test with the reason.

    timm imports torchvision, which fails beside a PyTorch built without the
    accelerator torchvision was built for: its compiled operators are missing.
    ConvMixer needs none of them, so it is enough to declare them.
    """
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    while True:
        try:
            return importlib.import_module("timm")
        except ModuleNotFoundError:
            pytest.skip("needs timm")
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does", str(error))
            if missing is None:
                raise
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{missing[1]}(Tensor a) -> Tensor")
            _LIBRARIES.append(library)
            for name in list(sys.modules):
                if name.partition(".")[0] in ("timm", "torchvision"):
                    del sys.modules[name]


def authors_model(dim, depth, kernel_size, patch_size, classes):
    """The paper's architecture as PyTorch modules, with the authors' names."""
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, fn):
            super().__init__()
            self.fn = fn

        def forward(self, x):
            return self.fn(x) + x

    def norm():
        return [nn.GELU(), nn.BatchNorm2d(dim)]

    def block():
        depthwise = nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same")
        return nn.Sequential(
            Residual(nn.Sequential(depthwise, *norm())),
            nn.Conv2d(dim, dim, 1),
            *norm(),
        )

    return nn.Sequential(
        nn.Conv2d(3, dim, patch_size, stride=patch_size),
        *norm(),
        *[block() for _ in range(depth)],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(dim, classes),
    )
