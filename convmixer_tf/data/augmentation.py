"""Named augmentation settings for training images."""

import dataclasses

from convmixer_tf.data.color_jitter import ColorJitter
from convmixer_tf.data.cropping import PadAndCrop
from convmixer_tf.data.cropping import RandomResizedCrop
from convmixer_tf.data.erasing import RandomErasing
from convmixer_tf.data.light import KerasCV
from convmixer_tf.data.light import import_keras_cv
from convmixer_tf.data.mixing import Mixing
from convmixer_tf.data.rand_augment import RandAugment
from convmixer_tf.data.validation import check_choice
from convmixer_tf.data.validation import check_range
from convmixer_tf.validation import check_positive_integer

_AUTHORS_CROP = RandomResizedCrop()


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """All augmentation settings, in the order in which they are applied.

    Attributes:
        crop: Crop that makes an image of any size square.
        flip: Probability of a horizontal flip.
        alternate_flips: Boolean, whether flips are random in the first epoch
            only. After that, an image is flipped in every other epoch.
        rand_augment: A `RandAugment`, or None.
        color_jitter: A `ColorJitter`, or None.
        mixing: A `Mixing`, or None.
        erasing: A `RandomErasing`, or None.
        label_smoothing: Fraction of a label that is spread evenly over all
            classes.
        repeats: Number of differently augmented copies of an image in an epoch
            (repeated augmentation, arXiv 1901.09335). The epoch then has that
            many times fewer images.
        keras_cv: A `KerasCV`, or None. It uses keras-cv's own random numbers,
            so unlike all other settings it does not depend on the seed.
    """

    crop: RandomResizedCrop | PadAndCrop = _AUTHORS_CROP
    flip: float = 0.5
    alternate_flips: bool = False
    rand_augment: RandAugment | None = None
    color_jitter: ColorJitter | None = None
    mixing: Mixing | None = None
    erasing: RandomErasing | None = None
    label_smoothing: float = 0.0
    repeats: int = 1
    keras_cv: KerasCV | None = None

    def __post_init__(self):
        check_range("flip", self.flip, 0, 1)
        if self.alternate_flips and self.flip != 0.5:
            raise ValueError(
                "Argument `alternate_flips` needs flip=0.5 because it flips an "
                f"image in half of the epochs. Received: flip={self.flip}"
            )
        check_range("label_smoothing", self.label_smoothing, 0, 1)
        check_positive_integer("repeats", self.repeats)


AUGMENTATIONS = {
    # The authors' ImageNet training.
    "imagenet": Augmentation(
        rand_augment=RandAugment(),
        mixing=Mixing(),
        erasing=RandomErasing(),
        label_smoothing=0.1,
    ),
    # The authors' small CIFAR-10 script: 100 epochs, "more than 94 %". Their
    # magnitude is 12 of torchvision's 30, and every drawn operation is applied.
    "cifar10": Augmentation(
        crop=RandomResizedCrop(
            min_area=0.75, min_aspect=1.0, interpolation="bilinear"
        ),
        rand_augment=RandAugment(
            magnitude=4.0, magnitude_std=0.0, probability=1.0
        ),
        color_jitter=ColorJitter(0.2, 0.2, 0.2),
        erasing=RandomErasing(probability=0.2, max_area=0.33, mode="const"),
    ),
    # Fine-tuning: keep most of the image and mix mildly.
    "light": Augmentation(
        crop=RandomResizedCrop(min_area=0.35),
        rand_augment=RandAugment(magnitude=5.0),
        mixing=Mixing(mixup_alpha=0.2, cutmix_alpha=1.0),
        label_smoothing=0.1,
    ),
    # Fine-tuning with keras-cv's operations instead of this package's.
    "keras_cv": Augmentation(
        crop=RandomResizedCrop(min_area=0.35),
        label_smoothing=0.1,
        keras_cv=KerasCV(),
    ),
    # The largest centered square.
    "none": Augmentation(
        crop=RandomResizedCrop(
            min_area=1.0, min_aspect=1.0, interpolation="bicubic"
        ),
        flip=0.0,
    ),
}


def get_augmentation(name: str) -> Augmentation:
    """Returns the augmentation of this name.

    Args:
        name: `"imagenet"`, `"cifar10"`, `"light"`, `"keras_cv"` or `"none"`.

    Returns:
        An `Augmentation`. Use `dataclasses.replace` to change settings.

    Raises:
        ImportError: If it needs keras-cv and that is missing.
        ValueError: If there is no such augmentation.
    """
    check_choice("name", name, tuple(AUGMENTATIONS))
    if AUGMENTATIONS[name].keras_cv:
        import_keras_cv()
    return AUGMENTATIONS[name]
