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
        depthwise: What `CONVMIXER_DEPTHWISE` is to say to our layers; empty
            for what it says already.
    """

    framework: str
    channels_last: bool = True
    compiled: bool = False
    pure: bool = False
    depthwise: str = ""

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


def find_contestant(name):
    """Says who a contestant is.

    Args:
        name: `"ours"`, or `"timm NCHW"` or `"timm NHWC"`, with `"compiled"`,
            `"pure"` or both after it; ours also with a word, or three with
            commas between, on depthwise convolutions.

    Returns:
        A `Contestant`.

    Raises:
        ValueError: If it is called otherwise.
    """
    whose, *words = name.split() or [""]
    options = {word: True for word in words if word in ("compiled", "pure")}
    words = [word for word in words if word not in options]
    if whose == "timm" and words in (["NCHW"], ["NHWC"]):
        return Contestant("torch", words == ["NHWC"], **options)
    if whose == "ours" and len(words) <= 1:
        return Contestant("keras", depthwise="".join(words), **options)
    raise ValueError(
        "A contestant is ours, timm NCHW or timm NHWC, then compiled or pure "
        "or both; ours also with a word that CONVMIXER_DEPTHWISE can have. "
        f"Received: {name!r}"
    )


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
