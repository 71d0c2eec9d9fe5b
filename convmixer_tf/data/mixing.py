"""Mixup and CutMix, with labels that match the pixels."""

import dataclasses

import tensorflow as tf

from convmixer_tf.data.validation import check_choice
from convmixer_tf.data.validation import check_range

MODES = ("batch", "pair", "elem")


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Settings of Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899).

    The defaults are the authors'.

    Attributes:
        mixup_alpha: Mixup draws its share from Beta(alpha, alpha). 0 turns it
            off.
        cutmix_alpha: The same for CutMix.
        probability: Probability of mixing at all.
        cutmix_probability: Probability of CutMix where both are on.
        mode: `"batch"`: one draw for the batch; `"pair"`: one for an image and
            its partner; `"elem"`: one for each image.
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
                "0. To mix nothing, use None in place of a Mixing."
            )


def smooth_labels(labels, num_classes, smoothing=0.0):
    """Turns class indices into target distributions.

    Args:
        labels: Integer tensor of shape (batch,).
        num_classes: Number of classes.
        smoothing: Share of the label that is spread evenly over all classes.

    Returns:
        float32 tensor of shape (batch, num_classes); every row sums to 1.
    """
    off = smoothing / num_classes
    return tf.one_hot(labels, num_classes, 1.0 - smoothing + off, off)


def mix(images, labels, seed, config):
    """Mixes each image of a batch with the one at its mirrored position.

    It may run in a `tf.data` pipeline or in a replica function, on the
    replica's own batch; all shapes are static.

    Args:
        images: Tensor of shape (batch, height, width, channels). uint8 images
            stay uint8 (rounded, as in the authors' run), others stay float.
        labels: float tensor of shape (batch, classes).
        seed: Integer tensor of shape (2,); the same seed gives the same result.
        config: A `Mixing`.

    Returns:
        Images and labels like the arguments.
    """
    batch, height, width = tf.unstack(tf.shape(images)[:3])
    position = tf.range(batch)
    group = {
        "batch": tf.zeros_like(position),
        "pair": tf.minimum(position, batch - 1 - position),
        "elem": position,
    }[config.mode]
    num_groups = 1 if config.mode == "batch" else batch
    share, is_cut, centre = _draw(num_groups, seed, config)

    # Weight of the partner, (groups, height, width): in CutMix 1 inside of a
    # box of the partner's share of the area, in Mixup its share everywhere.
    down = _inside(height, centre[:, 0], share)
    across = _inside(width, centre[:, 1], share)
    box = down[:, :, None] * across[:, None, :]
    # The box is clipped at the borders, so its share is counted.
    share = tf.where(is_cut, tf.reduce_mean(box, axis=[1, 2]), share)
    weight = tf.where(is_cut[:, None, None], box, share[:, None, None])

    # Repeated for each channel, and in batch mode not for each image: the
    # product is then one of whole rows, much faster on a CPU.
    weight = tf.repeat(weight[..., None], images.shape[-1], axis=-1)
    if config.mode != "batch":
        weight = tf.gather(weight, group)
    share = tf.gather(share, group)[:, None]
    partner = batch - 1 - position
    labels += tf.cast(share, labels.dtype) * (
        tf.gather(labels, partner) - labels
    )
    return _interpolate(images, tf.gather(images, partner), weight), labels


def _interpolate(images, partners, weight):
    if images.dtype != tf.uint8:
        return images + tf.cast(weight, images.dtype) * (partners - images)
    pixels = tf.cast(images, tf.float32)
    pixels += weight * (tf.cast(partners, tf.float32) - pixels)
    return tf.cast(pixels + 0.5, tf.uint8)


def _draw(count, seed, config):
    """Draws the partner's share, whether to cut, and where, in [0, 1)."""
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


def _inside(length, centre, share):
    """Marks the positions of one side that lie in a box around `centre`."""
    side = tf.cast(length, tf.float32)
    half = tf.cast(side * tf.sqrt(share), tf.int32) // 2
    middle = tf.cast(centre * side, tf.int32)
    position = tf.range(length)
    inside = position >= (middle - half)[:, None]
    inside &= position < (middle + half)[:, None]
    return tf.cast(inside, tf.float32)
