"""The published ImageNet weights: where they are and what they reach."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """One set of published weights, trained on ImageNet-1k at 224 x 224.

    Attributes:
        repository: Repository on the Hugging Face hub.
        dim: Width of the model, in channels.
        depth: Number of blocks.
        kernel_size: Side of the depthwise kernels, in patches.
        patch_size: Side of a patch, in pixels.
        activation: Keras name of the activation the weights were trained with.
        top1: Published ImageNet top-1 accuracy, in percent.
        top5: Published ImageNet top-5 accuracy, in percent.
        filename: Name of the file in the repository.
        license: Licence of the weights.
    """

    repository: str
    dim: int
    depth: int
    kernel_size: int
    patch_size: int
    activation: str
    top1: float
    top5: float
    filename: str = "model.safetensors"
    license: str = "MIT"


# Accuracies: timm's table of ImageNet results (224 x 224, crop 0.96). They are
# published figures, not measured by this project. The architectures are those
# of the authors' repository, github.com/locuslab/convmixer.
PUBLISHED_WEIGHTS = {
    "convmixer_1536_20": PublishedWeights(
        repository="timm/convmixer_1536_20.in1k",
        dim=1536,
        depth=20,
        kernel_size=9,
        patch_size=7,
        activation="gelu",
        top1=81.382,
        top5=95.618,
    ),
    "convmixer_768_32": PublishedWeights(
        repository="timm/convmixer_768_32.in1k",
        dim=768,
        depth=32,
        kernel_size=7,
        patch_size=7,
        activation="relu",
        top1=80.158,
        top5=95.070,
    ),
    "convmixer_1024_20": PublishedWeights(
        repository="timm/convmixer_1024_20_ks9_p14.in1k",
        dim=1024,
        depth=20,
        kernel_size=9,
        patch_size=14,
        activation="gelu",
        top1=76.944,
        top5=93.364,
    ),
}


def find_published(dim, depth, kernel_size, patch_size, activation):
    """Finds the published weights of an architecture.

    Args:
        dim: Integer, width of the model, in channels.
        depth: Integer, number of blocks.
        kernel_size: Integer, side of the depthwise kernels, in patches.
        patch_size: Integer, side of a patch, in pixels.
        activation: Keras name of the activation.

    Returns:
        The name of the weights in `PUBLISHED_WEIGHTS`.

    Raises:
        ValueError: If there are none.
    """
    architecture = (dim, depth, kernel_size, patch_size, activation)
    known = {
        name: (
            entry.dim,
            entry.depth,
            entry.kernel_size,
            entry.patch_size,
            entry.activation,
        )
        for name, entry in PUBLISHED_WEIGHTS.items()
    }
    for name, published in known.items():
        if published == architecture:
            return name
    raise ValueError(
        "There are published weights for (dim, depth, kernel_size, "
        f"patch_size, activation) in {', '.join(map(str, known.values()))} "
        "only. Pass the path of a file as `weights`, or None. "
        f"Received: {architecture}"
    )
