"""A light augmentation for fine-tuning, made of keras-cv's layers."""


def keras_cv_augment(seed, magnitude=0.3, mixup_alpha=0.2):
    """Makes a function that augments batches with keras-cv.

    It applies keras-cv's RandAugment, then its MixUp, with one share for each
    image. It is not the authors' recipe: four of their operations are missing,
    others are weaker or stronger; and the random numbers are the layers' own,
    so batches repeat only from the start of an epoch and in sequence. Its
    CutMix is left out, because its labels do not match its boxes.

    Args:
        seed: Integer.
        magnitude: Magnitude of RandAugment, in [0, 1].
        mixup_alpha: MixUp draws its share from Beta(alpha, alpha).

    Returns:
        Function `(images, labels) -> (images, labels)` for float images in
        pixels and labels of shape (batch, classes).

    Raises:
        ImportError: If keras-cv is missing.

    Example:

    ```python
    batches = train_batches(dataset, Recipe(), 224, 64, seed=0, epoch=0)
    batches = batches.map(keras_cv_augment(seed=0))
    ```
    """
    try:
        import keras_cv
    except ImportError as error:
        raise ImportError(
            "This augmentation needs keras-cv. "
            "Install it with: pip install keras-cv"
        ) from error
    policy = keras_cv.layers.RandAugment(
        value_range=(0, 255),
        augmentations_per_image=2,
        magnitude=magnitude,
        seed=seed,
    )
    mixup = keras_cv.layers.MixUp(alpha=mixup_alpha, seed=seed)

    def augment(images, labels):
        mixed = mixup(
            {"images": policy(images, training=True), "labels": labels},
            training=True,
        )
        return mixed["images"], mixed["labels"]

    return augment
