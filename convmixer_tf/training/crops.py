"""Images in memory and their views: whole, flipped and randomly cropped."""

import numpy as np
import tensorflow as tf

from convmixer_tf import data
from convmixer_tf.data.loading import finish

# Larger sets of images are read from their files in every pass.
MEMORY_BYTES = 2**31
MIN_SIDE = 0.8  # Minimum side of a random crop, as a fraction.
# The same crops for images that are read from their files.
AUGMENTATION = data.Augmentation(
    crop=data.RandomResizedCrop(min_area=MIN_SIDE**2, min_aspect=0.9)
)


class Crops:
    """Images in memory from which views are cropped.

    Args:
        images: uint8 array of shape (images, side, side, 3).
        size: Side of the views, in pixels, at most `side`. The center of this
            size is evaluated; the rest is a margin.
    """

    def __init__(self, images: np.ndarray, size: int):
        self.images = tf.constant(images)
        self.size = size
        self.side = images.shape[1]

    def __len__(self):
        return len(self.images)

    def whole(self) -> np.ndarray:
        """Returns the box of the evaluated view, shape (4,)."""
        first = (self.side - self.size) // 2
        last = first + self.size - 1
        return np.array([first, first, last, last]) / max(self.side - 1, 1)

    def cut(self, indices: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Crops views from images.

        Args:
            indices: Integer tensor of shape (views,), the image of each view.
            boxes: Float32 tensor of shape (views, 4): top, left, bottom and
                right of each view, as fractions of the image's side. A view is
                flipped if its left and right are swapped.

        Returns:
            Float32 tensor of shape (views, size, size, 3), in pixels.
        """
        return tf.image.crop_and_resize(
            tf.cast(tf.gather(self.images, indices), tf.float32),
            boxes,
            tf.range(tf.shape(indices)[0]),
            [self.size, self.size],
        )


def read_crops(dataset, size, crop_fraction, orientation):
    """Reads images into memory.

    Args:
        dataset: Data set from `data.open_dataset`.
        size: Side of the views, in pixels.
        crop_fraction: Fraction of an image's side that is evaluated.
        orientation: As for `data.decode_image`.

    Returns:
        `Crops`, or `None` if the images are too large.
    """
    side = int(size / crop_fraction)
    if len(dataset) * side**2 * 3 > MEMORY_BYTES:
        return None
    images, _ = data.read_images(
        dataset, side, crop_fraction=1.0, orientation=orientation
    )
    return Crops(images, size)


def mirrored(boxes):
    """Swaps left and right of boxes, an array of shape (..., 4)."""
    return boxes[..., [0, 3, 2, 1]]


def random_boxes(draws, mirror):
    """Draws boxes for `Crops.cut`.

    Args:
        draws: Float tensor of shape (views, 4), random numbers in [0, 1).
        mirror: Boolean, whether to flip half of the views.

    Returns:
        Float32 tensor of shape (views, 4).
    """
    scale, top, left, side_draw = tf.unstack(draws, axis=-1)
    side = MIN_SIDE + (1 - MIN_SIDE) * scale
    top, left = top * (1 - side), left * (1 - side)
    right = left + side
    mirror = (side_draw < 0.5) & mirror
    return tf.stack(
        [
            top,
            tf.where(mirror, right, left),
            top + side,
            tf.where(mirror, left, right),
        ],
        axis=-1,
    )


def crop_inputs(config, crops, targets, mirror):
    """Builds the argument `train_batches` of `train` from images in memory.

    The images are reshuffled for each pass. A batch may span two passes, so
    that no image is dropped. A batch depends only on the seed and on its
    number.

    Args:
        config: A `TrainConfig`.
        crops: `Crops` of the training images.
        targets: Float32 array of shape (images, classes), the targets of the
            loss.
        mirror: Boolean, whether to flip half of the images.

    Returns:
        A function (epoch, first_batch, context).
    """
    size = config.batch_size // config.accumulation_steps
    per_epoch = config.steps_per_epoch * config.accumulation_steps
    targets = tf.constant(targets)

    def train_batches(epoch, first_batch, context):
        numbers = np.arange(
            epoch * per_epoch + first_batch, (epoch + 1) * per_epoch
        )
        indices = _stream(
            len(crops), numbers[0] * size, len(numbers) * size, config.seed
        )
        workers = context.num_input_pipelines
        local = slice(context.input_pipeline_id, None, workers)

        def batch(number, indices):
            draws = tf.random.stateless_uniform(
                [size, 4],
                tf.stack([tf.constant(config.seed, tf.int64), number]),
            )
            boxes = random_boxes(draws[local], mirror)
            chosen = tf.ensure_shape(indices[local], [size // workers])
            return crops.cut(chosen, boxes), tf.gather(targets, chosen)

        batches = tf.data.Dataset.from_tensor_slices(
            (numbers, indices.reshape(len(numbers), size))
        ).map(batch, num_parallel_calls=2)
        return finish(batches, len(numbers))

    return train_batches


def _stream(images, first, count, seed):
    """Returns a part of the endless sequence of shuffled passes."""
    passes = range(first // images, (first + count - 1) // images + 1)
    orders = [
        np.random.default_rng([seed, x]).permutation(images) for x in passes
    ]
    start = first - passes[0] * images
    return np.concatenate(orders)[start : start + count]
