"""From images in memory to augmented batches: NumPy and Pillow.

The steps, their order, their random numbers and their arithmetic are those of
`convmixer_tf.data.train_batches`. Settings are a `convmixer_tf.data.Recipe` or
a namespace like it.
"""

import itertools
import math

import numpy as np
from PIL import Image
from PIL import ImageEnhance

from jax_cifar10 import operations

# Boxes that are drawn before giving up, of crops and of erasing.
_TRIES = 10
_BOX_DRAWS = 2 * _TRIES + 3

_ENHANCERS = (
    ImageEnhance.Brightness,
    ImageEnhance.Contrast,
    ImageEnhance.Color,
)
_ORDERS = tuple(itertools.permutations(range(len(_ENHANCERS))))
_JITTER_DRAWS = 1 + len(_ENHANCERS)

# What else than the order of the images is drawn.
_OF_IMAGE, _OF_STEP = 1, 2


class Augmenter:
    """Makes the batches of all epochs, each on its own.

    The order is a function of (seed, epoch), and that of
    `convmixer_tf.data.train_batches`; crops, flips, RandAugment and jitter are
    functions of (seed, epoch, image); mixing and erasing of (seed, epoch,
    step).

    Args:
        images: `Images`.
        recipe: The settings.
        num_classes: Integer.
        batch_size: Integer, images per batch.
        seed: Non-negative integer.
    """

    def __init__(self, images, recipe, num_classes, batch_size, seed):
        self.images = images
        self.recipe = recipe
        self.num_classes = num_classes
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = None

    def batch(self, epoch, step):
        """Makes one batch.

        Args:
            epoch: Integer, from 0.
            step: Integer, from 0, which batch of the epoch.

        Returns:
            Images in pixels, of shape (batch_size, 32, 32, 3), uint8, or
            float32 if parts were erased; and labels, float32 of shape
            (batch_size, classes).
        """
        if epoch != self._epoch:
            self._begin_epoch(epoch)
        chosen = self._order[step * self.batch_size :][: self.batch_size]
        pixels = augment_images(
            self.images.pixels[chosen],
            self._draws[chosen],
            self.recipe,
        )
        labels = smooth_labels(
            self.images.labels[chosen],
            self.num_classes,
            self.recipe.label_smoothing,
        )
        random = np.random.default_rng([self.seed, epoch, _OF_STEP, step])
        if self.recipe.mixing:
            share, is_cut, centre = draw_mixing(random, self.recipe.mixing)
            pixels, labels = mix(pixels, labels, share, is_cut, centre)
        if self.recipe.erasing:
            pixels = erase(pixels.astype(np.float32), random, self.recipe)
        return pixels, labels

    def _begin_epoch(self, epoch):
        count = len(self.images)
        random = np.random.default_rng([self.seed, epoch])
        self._order = random.permutation(count)
        random = np.random.default_rng([self.seed, epoch, _OF_IMAGE])
        shape = (count, sum(_num_draws(self.recipe)))
        self._draws = random.random(shape, np.float32)
        self._epoch = epoch


def _num_draws(recipe):
    """Random numbers of an image: flip, crop, RandAugment, jitter."""
    return (
        1,
        _BOX_DRAWS,
        operations.num_draws(recipe.rand_augment) if recipe.rand_augment else 0,
        _JITTER_DRAWS if recipe.color_jitter else 0,
    )


def augment_images(pixels, draws, recipe):
    """Applies what treats each image by itself, with given random numbers.

    Args:
        pixels: uint8 array of shape (batch, height, width, 3).
        draws: float32 array of shape (batch, draws) of numbers in [0, 1): one
            to flip, and then those of `convmixer_tf.data`: to crop, for
            RandAugment, to jitter.
        recipe: The settings.

    Returns:
        uint8 array of shape (batch, height, height, 3).
    """
    ends = np.cumsum(_num_draws(recipe))[:-1]
    flip, crop, policy, jitter = np.split(draws, ends, axis=1)
    images = random_crop(pixels, crop, flip[:, 0] < recipe.flip, recipe.crop)
    if recipe.rand_augment:
        images = rand_augment(images, policy, recipe.rand_augment)
    if recipe.color_jitter:
        images = color_jitter(images, jitter, recipe.color_jitter)
    return np.stack([np.asarray(image) for image in images])


def random_crop(pixels, draws, flip, settings):
    """Crops, resizes and flips.

    Args:
        pixels: uint8 array of shape (batch, height, width, 3).
        draws: float32 array of shape (batch, 23).
        flip: Boolean array of shape (batch,).
        settings: A `convmixer_tf.data.RandomResizedCrop`, or its like.

    Returns:
        List of `PIL.Image`, squares as high as `pixels` are.
    """
    size = pixels.shape[1]
    cubic = {
        "random": draws[:, -1] < 0.5,
        "bilinear": np.zeros(len(draws), bool),
        "bicubic": np.ones(len(draws), bool),
    }[settings.interpolation]
    images = []
    for i, box in enumerate(crop_boxes(draws, *pixels.shape[1:3], settings)):
        top, left, rows, columns = box
        part = pixels[i, top : top + rows, left : left + columns]
        filter_ = Image.Resampling.BICUBIC if cubic[i] else None
        filter_ = filter_ or Image.Resampling.BILINEAR
        image = Image.fromarray(np.ascontiguousarray(part))
        # In two steps: Pillow 13 would start with the rows of some images.
        image = image.resize((size, rows), filter_)
        image = image.resize((size, size), filter_)
        if flip[i]:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        images.append(image)
    return images


def crop_boxes(draws, height, width, settings):
    """Draws the boxes of crops.

    Args:
        draws: float32 array of shape (batch, 23).
        height: Integer, of the images.
        width: Integer, of the images.
        settings: A `convmixer_tf.data.RandomResizedCrop`, or its like.

    Returns:
        List of tuples of integers: top, left, rows, columns.
    """
    columns, rows = _draw_sides(draws, height * width, settings)
    fits = (columns <= width) & (rows <= height)
    fits &= (columns >= 1) & (rows >= 1)
    # Where nothing fits, the largest central box of a permitted aspect.
    most = settings.min_aspect
    columns = _first(columns, fits, min(width, round(height / most)))
    rows = _first(rows, fits, min(height, round(width / most)))
    place = np.where(fits.any(axis=1)[:, None], draws[:, -3:-1], np.nan)
    boxes = [
        _place(place[:, 0], height - rows),
        _place(place[:, 1], width - columns),
        rows,
        columns,
    ]
    return np.stack(boxes, axis=1).astype(int).tolist()


def _draw_sides(draws, whole, settings):
    """Draws sides of boxes: root of area times aspect, and over aspect."""
    span = np.float32(settings.max_area - settings.min_area)
    area = np.float32(settings.min_area) + draws[:, :_TRIES] * span
    area *= np.float32(whole)
    log_aspect = np.float32(math.log(settings.min_aspect))
    aspect = np.exp(log_aspect - 2 * log_aspect * draws[:, _TRIES:-3])
    return np.round(np.sqrt(area * aspect)), np.round(np.sqrt(area / aspect))


def _first(values, fits, otherwise):
    """The first of each row's values that fits."""
    first = np.take_along_axis(values, fits.argmax(1)[:, None], axis=1)[:, 0]
    return np.where(fits.any(axis=1), first, np.float32(otherwise))


def _place(place, free):
    """Where a box begins: by a number in [0, 1), or for NaN in the middle."""
    drawn = np.floor(place * (free + np.float32(1)))
    return np.where(np.isnan(place), np.floor(free / 2), drawn)


def rand_augment(images, draws, settings):
    """Applies RandAugment.

    Args:
        images: List of `PIL.Image`.
        draws: float32 array of shape (batch, 5 * settings.num_ops).
        settings: A `convmixer_tf.data.RandAugment`, or its like.

    Returns:
        List of `PIL.Image`.
    """
    for slot in np.split(draws, settings.num_ops, axis=1):
        choices = zip(*operations.choose(slot, settings), strict=True)
        images = [
            operations.apply(image, index, float(value), cubic)
            if applied
            else image
            for image, (index, applied, value, cubic) in zip(
                images, choices, strict=True
            )
        ]
    return images


def color_jitter(images, draws, settings):
    """Jitters colours, in an order drawn for each image.

    Args:
        images: List of `PIL.Image`.
        draws: float32 array of shape (batch, 4).
        settings: A `convmixer_tf.data.ColorJitter`, or its like.

    Returns:
        List of `PIL.Image`.
    """
    span = np.float32(
        [settings.brightness, settings.contrast, settings.saturation]
    )
    factors = (1 + span * (2 * draws[:, 1:] - 1)).tolist()
    orders = (draws[:, 0] * len(_ORDERS)).astype(int)
    jittered = []
    for image, order, factor in zip(images, orders, factors, strict=True):
        for step in _ORDERS[order]:
            image = _ENHANCERS[step](image).enhance(factor[step])
        jittered.append(image)
    return jittered


def smooth_labels(labels, num_classes, smoothing):
    """Turns class indices into target distributions.

    Args:
        labels: Integer array of shape (batch,).
        num_classes: Integer.
        smoothing: Share of the label that is spread evenly over all classes.

    Returns:
        float32 array of shape (batch, num_classes).
    """
    targets = np.full(
        (len(labels), num_classes), smoothing / num_classes, np.float32
    )
    targets[np.arange(len(labels)), labels] += np.float32(1 - smoothing)
    return targets


def draw_mixing(random, settings):
    """Draws how a batch is mixed.

    Args:
        random: A `numpy.random.Generator`.
        settings: A `convmixer_tf.data.Mixing` of mode "batch", or its like.

    Returns:
        The partner's share, a float; whether it is cut in; and where, two
        numbers in [0, 1).
    """
    uniform = random.random(4, np.float32)
    cut_probability = settings.cutmix_probability
    if not settings.mixup_alpha:
        cut_probability = 1.0
    if not settings.cutmix_alpha:
        cut_probability = 0.0
    is_cut = bool(uniform[0] < cut_probability)
    alpha = settings.cutmix_alpha if is_cut else settings.mixup_alpha
    share = random.beta(alpha, alpha)
    if uniform[1] >= settings.probability:
        share = 0.0
    return share, is_cut, uniform[2:]


def mix(pixels, labels, share, is_cut, centre):
    """Mixes each image with the one at its mirrored position.

    Args:
        pixels: uint8 array of shape (batch, height, width, 3).
        labels: float32 array of shape (batch, classes).
        share: Float, the partner's share.
        is_cut: Boolean: CutMix, or else Mixup.
        centre: Two numbers in [0, 1), where to cut.

    Returns:
        Arrays like `pixels` and `labels`.
    """
    share = np.float32(share)
    partners = pixels[::-1]
    if is_cut:
        height, width = pixels.shape[1:3]
        top, bottom = _interval(height, centre[0], share)
        left, right = _interval(width, centre[1], share)
        pixels = pixels.copy()
        box = np.s_[:, top:bottom, left:right]
        pixels[box] = partners[box]
        # The box is clipped at the borders, so its pixels are counted.
        share = np.float32((bottom - top) * (right - left) / (height * width))
    else:
        first = pixels.astype(np.float32)
        mixed = first + share * (first[::-1] - first)
        pixels = (mixed + np.float32(0.5)).astype(np.uint8)
    return pixels, labels + share * (labels[::-1] - labels)


def _interval(length, centre, share):
    """First position and end of a box around `centre` along one axis."""
    half = int(np.float32(length) * np.sqrt(share)) // 2
    middle = int(np.float32(centre) * np.float32(length))
    return max(middle - half, 0), min(middle + half, length)


def erase(pixels, random, recipe):
    """Erases a random box of some images, in normalised space.

    Args:
        pixels: float32 array of shape (batch, height, width, 3), in which
            parts are replaced.
        random: A `numpy.random.Generator`.
        recipe: The settings, of which `erasing` counts.

    Returns:
        `pixels`.
    """
    settings = recipe.erasing
    draws = random.random((len(pixels), _BOX_DRAWS), np.float32)
    boxes = erased_boxes(draws, *pixels.shape[1:3], settings)
    mean, std = np.float32(settings.mean), np.float32(settings.std)
    for image, (top, left, rows, columns) in zip(pixels, boxes, strict=True):
        shape = {
            "pixel": (rows, columns, 3),
            "rand": (3,),
            "const": None,
        }[settings.mode]
        noise = 0
        if shape is not None:
            noise = random.standard_normal(shape, np.float32)
        part = image[top : top + rows, left : left + columns]
        part[:] = 255 * (mean + std * noise)
    return pixels


def erased_boxes(draws, height, width, settings):
    """Draws the boxes that are erased.

    Args:
        draws: float32 array of shape (batch, 23).
        height: Integer, of the images.
        width: Integer, of the images.
        settings: A `convmixer_tf.data.RandomErasing`, or its like.

    Returns:
        List of tuples of integers: top, left, rows, columns. Images that are
        not erased have no rows.
    """
    rows, columns = _draw_sides(draws, height * width, settings)
    fits = (rows < height) & (columns < width)
    erased = draws[:, -1] < settings.probability
    rows = np.where(erased, _first(rows, fits, 0), 0)
    columns = _first(columns, fits, 0)
    boxes = [
        _place(draws[:, -3], height - rows),
        _place(draws[:, -2], width - columns),
        rows,
        columns,
    ]
    return np.stack(boxes, axis=1).astype(int).tolist()
