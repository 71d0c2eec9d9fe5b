"""What `benchmark.py` times: models, cases, contestants.

This module imports neither Keras nor PyTorch: each has a process of its own.
"""

import dataclasses

DTYPES = ("float32", "bfloat16")
STEPS = ("infer", "train")


@dataclasses.dataclass(frozen=True)
class Model:
    """A ConvMixer's shape, and that of its images.

    Attributes:
        dim: Integer, channels of an embedded patch.
        depth: Integer, the number of blocks.
        kernel_size: Integer, side of a depthwise kernel, in patches.
        patch_size: Integer, side of a patch, in pixels.
        activation: `"gelu"` or `"relu"`.
        image_size: Integer, side of an image, in pixels.
        classes: Integer, the number of classes.
    """

    dim: int
    depth: int
    kernel_size: int
    patch_size: int
    activation: str
    image_size: int
    classes: int


@dataclasses.dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        model: Name of a model.
        step: `"infer"`, a forward pass to the logits, or `"train"`, forward,
            backward and AdamW.
        dtype: `"float32"`, or `"bfloat16"` for mixed precision with it.
    """

    model: str
    step: str
    dtype: str


@dataclasses.dataclass(frozen=True)
class Contestant:
    """Who is timed.

    Attributes:
        framework: `"keras"`, on its backend, or `"torch"`, timm's model.
        channels_last: Boolean, whether timm's tensors lie in memory as NHWC.
        compiled: Boolean, whether XLA compiles TensorFlow's graph, or
            `torch.compile` timm's model.
        pure: Boolean, whether weights are bfloat16 too, not only what is
            computed from them.
    """

    framework: str
    channels_last: bool = True
    compiled: bool = False
    pure: bool = False

    def applies(self, case, backend):
        """Tells whether there is such a thing.

        Args:
            case: A `Case`.
            backend: Name of Keras' backend.

        Returns:
            Boolean. Weights that are trained stay float32. Keras compiles on
            JAX in any case, and on PyTorch not.
        """
        if self.pure and (case.step, case.dtype) != ("infer", "bfloat16"):
            return False
        compiled = self.framework == "keras" and self.compiled
        return not compiled or backend == "tensorflow"


CONTESTANTS = {
    "ours": Contestant("keras"),
    "ours compiled": Contestant("keras", compiled=True),
    "ours pure": Contestant("keras", pure=True),
    "timm NCHW": Contestant("torch", channels_last=False),
    "timm NHWC": Contestant("torch"),
    "timm NCHW compiled": Contestant(
        "torch", channels_last=False, compiled=True
    ),
    "timm NHWC compiled": Contestant("torch", compiled=True),
    "timm NCHW pure": Contestant("torch", channels_last=False, pure=True),
    "timm NHWC pure": Contestant("torch", pure=True),
    "timm NHWC compiled pure": Contestant("torch", compiled=True, pure=True),
}


def repeated(step, wait):
    """Runs a step several times, and waits for the last.

    Args:
        step: Function without arguments.
        wait: Function of what `step` returns. A device computes in order, so
            with the last step all are done.

    Returns:
        Function of a number of steps, which returns what the last one does.
    """

    def run(steps):
        for _ in range(steps):
            output = step()
        wait(output)
        return output

    return run
