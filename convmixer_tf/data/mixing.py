"""Mixup and CutMix, with labels that match the pixels."""

import dataclasses

import tensorflow as tf

from convmixer_tf.data.validation import check_choice
from convmixer_tf.data.validation import check_images
from convmixer_tf.data.validation import check_label_rows
from convmixer_tf.data.validation import check_range
from convmixer_tf.validation import check_positive_integer

MODES = ("batch", "pair", "elem")


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Settings of Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899).

    The defaults are the authors'.

    Attributes:
        mixup_alpha: Mixup draws its ratio from Beta(alpha, alpha). 0 disables
            it.
        cutmix_alpha: The same for CutMix.
        probability: Probability of mixing.
        cutmix_probability: Probability of CutMix if both are enabled.
        mode: `"batch"` draws once for the batch, `"pair"` once for an image and
            its partner, `"elem"` once for each image.
    """

    mixup_alpha: float = 0.5
    cutmix_alpha: float = 0.5
    probability: float = 1.0
    cutmix_probability: float = 0.5
    mode: str = "batch"

    def __post_init__(self):
        check_range("mixup_alpha", self.mixup_alpha, 0, 100)
        check_range("cutmix_alpha", self.cutmix_alpha, 0, 100)
        check_range("probability", self.probability, 0, 1)
        check_range("cutmix_probability", self.cutmix_probability, 0, 1)
        check_choice("mode", self.mode, MODES)
        if not self.mixup_alpha and not self.cutmix_alpha:
            raise ValueError(
                "Arguments `mixup_alpha` and `cutmix_alpha` must not both be "
                "0. To disable mixing, use None instead of a Mixing."
            )


def smooth_labels(labels, num_classes, smoothing=0.0):
    """Converts class indices to target distributions.

    Args:
        labels: Integer tensor of shape (batch,).
        num_classes: Number of classes.
        smoothing: Fraction of the label that is spread evenly over all classes.

    Returns:
        float32 tensor of shape (batch, num_classes); every row sums to 1.

    Raises:
        ValueError: If an argument is invalid.
    """
    labels = tf.convert_to_tensor(labels)
    if not labels.dtype.is_integer or labels.shape.rank not in (1, None):
        raise ValueError(
            "Argument `labels` must be class indices, integers of shape "
            f"(batch,). Received: labels of type {labels.dtype.name} and shape "
            f"{labels.shape}"
        )
    check_positive_integer("num_classes", num_classes)
    check_range("smoothing", smoothing, 0, 1)
    off = smoothing / num_classes
    return tf.one_hot(labels, num_classes, 1.0 - smoothing + off, off)


def mix(images, labels, seed, config):
    """Mixes each image of a batch with the one at its mirrored position.

    It can run in a `tf.data` pipeline, or in a replica function on the
    replica's own batch. XLA cannot compile it because XLA has no gamma
    distribution. For a TPU, mix in the pipeline.

    Args:
        images: Tensor of shape (batch, height, width, channels). uint8 images
            stay uint8 (rounded, as in the authors' training), others stay
            float.
        labels: float tensor of shape (batch, classes).
        seed: Integer tensor of shape (2,); the same seed gives the same result.
        config: A `Mixing`.

    Returns:
        Images and labels of the same shapes and types.

    Raises:
        ValueError: If `images` or `labels` has a wrong type or rank, or if
            there is not one label for each image.
    """
    images = check_images(images, ("uint8", "float"))
    labels = check_label_rows(labels, images)
    batch, height, width = tf.unstack(tf.shape(images)[:3])
    position = tf.range(batch)
    group = {
        "batch": tf.zeros_like(position),
        "pair": tf.minimum(position, batch - 1 - position),
        "elem": position,
    }[config.mode]
    num_groups = 1 if config.mode == "batch" else batch
    share, is_cut, center = _draw(num_groups, seed, config)
    top, bottom = _interval(height, center[:, 0], share)
    left, right = _interval(width, center[:, 1], share)
    # The box is clipped at the borders, so count its pixels.
    area = tf.cast((bottom - top) * (right - left), tf.float32)
    share = tf.where(is_cut, area / tf.cast(height * width, tf.float32), share)

    partners = tf.reverse(position, [0])
    partners = tf.gather(images, partners), tf.gather(labels, partners)
    if config.mode == "batch":
        # A common box for all images allows slicing, which is fast on a CPU.
        images = tf.cond(
            is_cut[0],
            lambda: _paste(
                images, partners[0], top[0], bottom[0], left[0], right[0]
            ),
            lambda: _interpolate(images, partners[0], share[0]),
        )
    else:
        box = _mask(height, top, bottom)[:, :, None]
        box *= _mask(width, left, right)[:, None, :]
        weight = tf.where(is_cut[:, None, None], box, share[:, None, None])
        weight = tf.gather(weight, group)[..., None]
        images = _interpolate(images, partners[0], weight)
    share = tf.cast(tf.gather(share, group), labels.dtype)[:, None]
    return images, labels + share * (partners[1] - labels)


def _paste(images, partners, top, bottom, left, right):
    middle = tf.concat(
        [
            images[:, top:bottom, :left],
            partners[:, top:bottom, left:right],
            images[:, top:bottom, right:],
        ],
        axis=2,
    )
    pasted = tf.concat([images[:, :top], middle, images[:, bottom:]], axis=1)
    return tf.ensure_shape(pasted, images.shape)


def _interpolate(images, partners, weight):
    if images.dtype != tf.uint8:
        return images + tf.cast(weight, images.dtype) * (partners - images)
    pixels = tf.cast(images, tf.float32)
    pixels += weight * (tf.cast(partners, tf.float32) - pixels)
    return tf.cast(pixels + 0.5, tf.uint8)


def _draw(count, seed, config):
    """Draws the partner's ratio, whether to cut, and where, in [0, 1)."""
    seeds = tf.random.split(seed, 3)
    uniform = tf.random.stateless_uniform([count, 4], seeds[0])
    cut_probability = config.cutmix_probability
    if not config.mixup_alpha:
        cut_probability = 1.0
    if not config.cutmix_alpha:
        cut_probability = 0.0
    is_cut = uniform[:, 0] < cut_probability
    share = tf.where(
        is_cut,
        _beta(count, config.cutmix_alpha, seeds[1]),
        _beta(count, config.mixup_alpha, seeds[2]),
    )
    share = tf.where(uniform[:, 1] < config.probability, share, 0.0)
    return share, is_cut, uniform[:, 2:]


def _beta(count, alpha, seed):
    """Draws from Beta(alpha, alpha); zeros if alpha is 0."""
    if not alpha:
        return tf.zeros([count])
    gamma = tf.random.stateless_gamma([count, 2], seed, alpha)
    return tf.math.divide_no_nan(gamma[:, 0], tf.reduce_sum(gamma, axis=1))


def _interval(length, center, share):
    """Returns start and end of a box around `center` along one axis."""
    side = tf.cast(length, tf.float32)
    half = tf.cast(side * tf.sqrt(share), tf.int32) // 2
    middle = tf.cast(center * side, tf.int32)
    return tf.maximum(middle - half, 0), tf.minimum(middle + half, length)


def _mask(length, first, end):
    position = tf.range(length)
    inside = (position >= first[:, None]) & (position < end[:, None])
    return tf.cast(inside, tf.float32)
