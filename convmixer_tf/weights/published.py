"""The published weights: source, architecture and accuracy."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file on the web.

    Attributes:
        url: The file's URL.
        sha256: SHA-256 of its content, in hexadecimal.
    """

    url: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """One set of published weights.

    Weights without `repository` and `file` ship with this package.

    Attributes:
        dataset: Training data set, `"imagenet"` (ImageNet-1k) or `"cifar10"`.
            It is the models' argument `weights`.
        repository: Repository on the Hugging Face hub, or `None`.
        dim: Width of the model, in channels.
        depth: Number of blocks.
        kernel_size: Side of the depthwise kernels, in patches.
        patch_size: Side of a patch, in pixels.
        activation: Keras name of the activation the weights were trained with.
        top1: Published top-1 accuracy, in percent. `None` for the weights in
            this package; `read_facts` returns theirs.
        top5: Published top-5 accuracy, in percent. `None` if it was not
            published, and for the weights in this package.
        filename: Name of the file in the repository or in this package.
        license: License of the weights.
        classes: Number of classes.
        image_size: Side of the images, in pixels.
        crop_fraction: Part of an image's shorter side that is evaluated.
        mean: Mean of each channel in training, of pixels scaled to [0, 1].
            `None` for the data set's mean.
        std: Standard deviation of each channel in training, of pixels scaled to
            [0, 1]. `None` for the data set's.
        accuracy_source: Where the accuracy was published, and the images' size
            and crop.
        file: `PublishedFile` of weights on the web, or `None`.
        file_without_top: `PublishedFile` of the weights without classifier, or
            `None`.
    """

    dataset: str
    repository: str | None
    dim: int
    depth: int
    kernel_size: int
    patch_size: int
    activation: str
    top1: float | None
    top5: float | None
    filename: str = "model.safetensors"
    license: str = "MIT"
    classes: int = 1000
    image_size: int = 224
    crop_fraction: float = 0.96
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    accuracy_source: str = "timm's table, 224 x 224, crop 0.96"
    file: PublishedFile | None = None
    file_without_top: PublishedFile | None = None


# Accuracies on ImageNet are published figures, not measured by this project.
# The architectures are those of the authors' repositories,
# github.com/locuslab/convmixer and github.com/locuslab/convmixer-cifar10.
#
# The URLs and hashes of ConvMixer-512/16 are from keras-cv 0.9.0,
# keras_cv/src/models/legacy/weights.py. Its accuracy is from keras-cv's pull
# request 1325 and its examples/training/classification/imagenet. That script
# resizes the largest centered square of a validation image to 224 x 224 with
# bilinear interpolation. This package's evaluation is bicubic.
_KERAS_CV = (
    "https://storage.googleapis.com/keras-cv/models/convmixer_512_16/imagenet"
)
PUBLISHED_WEIGHTS = {
    "convmixer_1536_20": PublishedWeights(
        dataset="imagenet",
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
        dataset="imagenet",
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
        dataset="imagenet",
        repository="timm/convmixer_1024_20_ks9_p14.in1k",
        dim=1024,
        depth=20,
        kernel_size=9,
        patch_size=14,
        activation="gelu",
        top1=76.944,
        top5=93.364,
    ),
    "convmixer_512_16": PublishedWeights(
        dataset="imagenet",
        repository=None,
        dim=512,
        depth=16,
        kernel_size=8,
        patch_size=7,
        activation="gelu",
        top1=74.38,
        top5=None,
        filename="classification-v0.h5",
        license="Apache-2.0",
        crop_fraction=1.0,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        accuracy_source="keras-cv's pull request 1325, 224 x 224, crop 1.0",
        file=PublishedFile(
            f"{_KERAS_CV}/classification-v0.h5",
            "861f3080dc383f7936d3df89691aadea05eee6acaa4a0b60aa70dd657df915ee",
        ),
        file_without_top=PublishedFile(
            f"{_KERAS_CV}/classification-v0-notop.h5",
            "aa08c7fa9ca6ec045c4783e1248198dbe1bc141e2ae788e712de471c0370822c",
        ),
    ),
    "convmixer_256_8": PublishedWeights(
        dataset="cifar10",
        repository=None,
        dim=256,
        depth=8,
        kernel_size=5,
        patch_size=2,
        activation="gelu",
        top1=None,
        top5=None,
        filename="convmixer_256_8.safetensors",
        classes=10,
        image_size=32,
        crop_fraction=1.0,
    ),
}
DATASETS = tuple(dict.fromkeys(x.dataset for x in PUBLISHED_WEIGHTS.values()))


def find_published(
    dim, depth, kernel_size, patch_size, activation, dataset="imagenet"
):
    """Finds the published weights of an architecture.

    Args:
        dim: Integer, width of the model, in channels.
        depth: Integer, number of blocks.
        kernel_size: Integer, side of the depthwise kernels, in patches.
        patch_size: Integer, side of a patch, in pixels.
        activation: Keras name of the activation.
        dataset: Training data set, one of `DATASETS`.

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
    of_dataset, of_others = [], []
    for name, published in known.items():
        found = PUBLISHED_WEIGHTS[name].dataset
        if (published, found) == (architecture, dataset):
            return name
        if found == dataset:
            of_dataset.append(str(published))
        elif published == architecture:
            of_others.append(f'"{found}"')
    advice = "the path of a file as `weights`, or None"
    raise ValueError(
        f'There are published weights "{dataset}" for (dim, depth, '
        "kernel_size, patch_size, activation) in "
        f"{', '.join(of_dataset)} only. Pass "
        f"{', '.join([*of_others, advice])}. Received: {architecture}"
    )
