"""Other implementations, for the tests that compare with them."""

import importlib
import re
import sys

import pytest

# Kept alive: PyTorch forgets an operator with the library that declares it.
_LIBRARIES = []


def import_timm():
    """Imports timm, or skips the test and says why.

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
