"""Checks a set of weights against the expected names and shapes."""

import dataclasses

import numpy as np

from convmixer_tf.weights.names import abbreviate
from convmixer_tf.weights.names import variable_names


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The architecture that a ConvMixer's weight shapes imply.

    Attributes:
        dim: Width of the model, in channels.
        depth: Number of blocks.
        kernel_size: Side of the depthwise kernels, in patches.
        patch_size: Side of a patch, in pixels.
        channels: Channels of the input.
        classes: Number of classes, or `None` without a classifier.
    """

    dim: int
    depth: int
    kernel_size: int
    patch_size: int
    channels: int
    classes: int | None

    def shapes(self):
        """Lists the variables of a model of this architecture.

        Returns:
            Dictionary from variable paths to shapes.
        """
        patch, kernel, dim = self.patch_size, self.kernel_size, self.dim
        kernels = {"patch_embed/conv": (patch, patch, self.channels, dim)}
        norms = ["patch_embed/norm"]
        for i in range(self.depth):
            kernels[f"block_{i}/depthwise"] = (kernel, kernel, dim, 1)
            kernels[f"block_{i}/pointwise"] = (1, 1, dim, dim)
            norms += [f"block_{i}/depthwise_norm", f"block_{i}/pointwise_norm"]
        shapes = {f"{layer}/kernel": s for layer, s in kernels.items()}
        shapes |= {f"{layer}/bias": (dim,) for layer in kernels}
        for norm in norms:
            shapes |= {f"{norm}/{n}": (dim,) for n in variable_names(norm)}
        if self.classes is not None:
            shapes["predictions/kernel"] = (dim, self.classes)
            shapes["predictions/bias"] = (self.classes,)
        return shapes


def infer_architecture(weights: dict[str, np.ndarray]) -> Architecture:
    """Infers the architecture from a complete set of weights.

    Args:
        weights: Dictionary from variable paths to arrays, from `read_weights`.

    Returns:
        An `Architecture`.

    Raises:
        ValueError: If the weights aren't those of exactly one ConvMixer.
    """
    stem = weights.get("patch_embed/conv/kernel")
    depthwise = weights.get("block_0/depthwise/kernel")
    bias = weights.get("predictions/bias")
    if stem is None or depthwise is None:
        raise ValueError(
            "a ConvMixer's weights must have `patch_embed/conv/kernel` and "
            f"`block_0/depthwise/kernel`. Received: {abbreviate(weights)}"
        )
    blocks = {path.partition("/")[0] for path in weights}
    architecture = Architecture(
        dim=stem.shape[3],
        depth=sum(block.startswith("block_") for block in blocks),
        kernel_size=depthwise.shape[0],
        patch_size=stem.shape[0],
        channels=stem.shape[2],
        classes=None if bias is None else bias.shape[0],
    )
    mismatch = describe_mismatch(weights, architecture.shapes())
    if mismatch:
        raise ValueError(f"the weights are not one ConvMixer's: {mismatch}")
    return architecture


def describe_mismatch(weights, shapes):
    """Describes how a set of weights differs from the expected one.

    Args:
        weights: Dictionary from variable paths to arrays.
        shapes: Dictionary from variable paths to expected shapes.

    Returns:
        One or more sentences, or an empty string if everything fits.
    """
    missing = [path for path in shapes if path not in weights]
    extra = [path for path in weights if path not in shapes]
    wrong = [
        f"{path} (expected {tuple(shapes[path])}, "
        f"received {tuple(weights[path].shape)})"
        for path in shapes
        if path in weights and tuple(shapes[path]) != weights[path].shape
    ]
    parts = {"Missing": missing, "Unexpected": extra, "Wrong shape": wrong}
    return " ".join(
        f"{title}: {abbreviate(paths)}."
        for title, paths in parts.items()
        if paths
    )
