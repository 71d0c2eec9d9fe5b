"""What happens to training images: named, complete settings."""

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
    """Everything that happens to training images, in this order.

    Attributes:
        crop: How an image of any size becomes square.
        flip: Probability of mirroring left to right.
        alternate_flips: Boolean, whether chance decides in the first epoch
            only, and an image is then mirrored in every other epoch: of two
            epochs one shows it as it is, and the other its mirror image.
        rand_augment: A `RandAugment`, or None.
        color_jitter: A `ColorJitter`, or None.
        mixing: A `Mixing`, or None.
        erasing: A `RandomErasing`, or None.
        label_smoothing: Share of a label spread evenly over all classes.
        repeats: How many differently augmented copies of an image an epoch
            has (repeated augmentation, arXiv 1901.09335); it then shows that
            much fewer images.
        keras_cv: A `KerasCV`, or None. Its random numbers are keras-cv's own:
            alone of all these, it is not a function of the seed.
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
                "Argument `alternate_flips` needs flip=0.5, as it mirrors an "
                f"image in half of the epochs. Received: flip={self.flip}"
            )
        check_range("label_smoothing", self.label_smoothing, 0, 1)
        check_positive_integer("repeats", self.repeats)


AUGMENTATIONS = {
    # The authors' ImageNet run.
    "imagenet": Augmentation(
        rand_augment=RandAugment(),
        mixing=Mixing(),
        erasing=RandomErasing(),
        label_smoothing=0.1,
    ),
    # The authors' small CIFAR-10 script: 100 epochs, "more than 94 %". Their
    # magnitude is 12 of torchvision's 30, every operation is applied.
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
    # Fine-tuning: keep most of the image, mix mildly.
    "light": Augmentation(
        crop=RandomResizedCrop(min_area=0.35),
        rand_augment=RandAugment(magnitude=5.0),
        mixing=Mixing(mixup_alpha=0.2, cutmix_alpha=1.0),
        label_smoothing=0.1,
    ),
    # Fine-tuning with keras-cv in place of what is written here.
    "keras_cv": Augmentation(
        crop=RandomResizedCrop(min_area=0.35),
        label_smoothing=0.1,
        keras_cv=KerasCV(),
    ),
    # The largest square in the middle.
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
        An `Augmentation`. `dataclasses.replace` changes parts of it.

    Raises:
        ImportError: If it needs keras-cv and that is missing.
        ValueError: If there is no such augmentation.
    """
    check_choice("name", name, tuple(AUGMENTATIONS))
    if AUGMENTATIONS[name].keras_cv:
        import_keras_cv()
    return AUGMENTATIONS[name]
