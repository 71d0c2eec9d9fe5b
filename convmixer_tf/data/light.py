"""A light augmentation for fine-tuning that uses keras-cv's layers."""

import dataclasses

import tensorflow as tf

from convmixer_tf.data.validation import check_images
from convmixer_tf.data.validation import check_label_rows
from convmixer_tf.data.validation import check_range


@dataclasses.dataclass(frozen=True)
class KerasCV:
    """keras-cv's RandAugment, then its MixUp with one ratio for each image.

    It is not the authors' augmentation: four of their operations are missing,
    and others are weaker or stronger. keras-cv's CutMix is not used because its
    labels do not match its boxes.

    Attributes:
        magnitude: Magnitude of RandAugment, in [0, 1].
        mixup_alpha: MixUp draws its ratio from Beta(alpha, alpha).
    """

    magnitude: float = 0.3
    mixup_alpha: float = 0.2

    def __post_init__(self):
        check_range("magnitude", self.magnitude, 0, 1)
        check_range("mixup_alpha", self.mixup_alpha, 0.01, 100)


def import_keras_cv():
    """Imports keras-cv, or raises `ImportError` with install instructions."""
    try:
        import keras_cv
    except ImportError as error:
        raise ImportError(
            "This augmentation needs keras-cv. "
            "Install it with: pip install keras-cv"
        ) from error
    return keras_cv


def keras_cv_augment(seed, config=None):
    """Creates a function that augments batches with keras-cv.

    The layers use their own random numbers. Some layers take no seed, so
    results are not reproducible.

    Args:
        seed: Integer, for the layers that take a seed.
        config: A `KerasCV`. Defaults to `KerasCV()`.

    Returns:
        Function `(images, labels) -> (images, labels)` for images of three
        channels, in pixels, and labels of shape (batch, classes). It returns
        float32 images. For other images it raises `ValueError`.

    Raises:
        ImportError: If keras-cv is missing.

    Example:

    ```python
    batches = train_batches(dataset, Augmentation(), 224, 64, seed=0, epoch=0)
    batches = batches.map(keras_cv_augment(seed=0))
    ```
    """
    keras_cv = import_keras_cv()
    config = config or KerasCV()
    policy = keras_cv.layers.RandAugment(
        value_range=(0, 255),
        augmentations_per_image=2,
        magnitude=config.magnitude,
        seed=seed,
    )
    mixup = keras_cv.layers.MixUp(alpha=config.mixup_alpha, seed=seed)

    def augment(images, labels):
        images = check_images(images, ("uint8", "float"), channels=3)
        labels = check_label_rows(labels, images)
        images = policy(tf.cast(images, tf.float32), training=True)
        mixed = mixup(
            {"images": images, "labels": labels},
            training=True,
        )
        return mixed["images"], mixed["labels"]

    return augment
