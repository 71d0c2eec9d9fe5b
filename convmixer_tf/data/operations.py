"""The image operations of RandAugment, with Pillow's arithmetic.

Every function takes uint8 images of shape (batch, height, width, 3) and one
float32 value per image, of shape (batch,), and returns images of the same
shape. The batch may be empty. As in Pillow, enhancements truncate and the
histogram is per channel. The tests compare the pixels with Pillow's.
"""

import numpy as np
import tensorflow as tf

# Fill color of affine operations outside of the image: round(255 *
# IMAGENET_MEAN), as in timm.
FILL = (124, 116, 104)

# Pillow truncates after interpolating. Float32 sums of integer pixels may be
# slightly below an integer.
_TRUNCATION_SLACK = 1e-3


def auto_contrast(images):
    """Stretches each channel to the full range [0, 255]."""
    pixels = tf.reshape(images, [-1, _num_pixels(images), 3])
    low = tf.cast(tf.reduce_min(pixels, axis=1), tf.float64)[..., None]
    high = tf.cast(tf.reduce_max(pixels, axis=1), tf.float64)[..., None]
    identity = tf.range(256, dtype=tf.float64)
    scale = 255.0 / tf.maximum(high - low, 1.0)
    stretched = tf.clip_by_value(identity * scale - low * scale, 0.0, 255.0)
    tables = tf.where(high > low, tf.floor(stretched), identity)
    return _look_up(tf.cast(tables, tf.uint8), _table_entries(images))


def equalize(images):
    """Flattens the histogram of each channel."""
    entries = _table_entries(images)
    num_tables = 3 * tf.shape(images)[0]
    histogram = tf.raw_ops.Bincount(
        arr=tf.reshape(entries, [-1]),
        size=256 * num_tables,
        weights=tf.zeros([0], tf.int32),
    )
    histogram = tf.reshape(histogram, [-1, 3, 256])
    values = tf.range(256)
    last = tf.reduce_max(tf.where(histogram > 0, values, 0), axis=-1)
    in_last = tf.gather(histogram, last, axis=-1, batch_dims=2)
    step = (_num_pixels(images) - in_last)[..., None] // 255
    below = tf.cumsum(histogram, axis=-1, exclusive=True)
    flat = (step // 2 + below) // tf.maximum(step, 1)
    tables = tf.where(step > 0, tf.minimum(flat, 255), values)
    return _look_up(tf.cast(tables, tf.uint8), entries)


def invert(images):
    """Replaces every pixel by 255 minus itself."""
    return 255 - images


def posterize(images, bits):
    """Keeps the highest `bits` bits of every pixel. 0 bits give black."""
    dropped = 8 - tf.clip_by_value(tf.cast(bits, tf.int32), 0, 8)
    mask = 256 - tf.bitwise.left_shift(tf.ones_like(dropped), dropped)
    mask = tf.cast(mask, tf.uint8)[:, None, None, None]
    return tf.bitwise.bitwise_and(images, mask)


def solarize(images, threshold):
    """Inverts the pixels at or above `threshold`."""
    pixels = tf.cast(images, tf.float32)
    bright = tf.cast(pixels >= threshold[:, None, None, None], tf.float32)
    return tf.cast(pixels + bright * (255.0 - 2.0 * pixels), tf.uint8)


def solarize_add(images, addend):
    """Adds `addend` to the pixels below 128, up to 255."""
    pixels = tf.cast(images, tf.float32)
    dark = tf.cast(pixels < 128.0, tf.float32)
    brighter = pixels + dark * addend[:, None, None, None]
    return tf.cast(tf.minimum(brighter, 255.0), tf.uint8)


def color(images, factor):
    """Moves away from gray (factor > 1) or toward it."""
    return _blend(_gray(images)[..., None], images, factor)


def contrast(images, factor):
    """Moves away from the mean gray level (factor > 1) or toward it."""
    total = tf.reduce_sum(tf.cast(_gray(images), tf.int64), axis=[1, 2])
    mean = tf.floor(total / tf.cast(_num_pixels(images), tf.int64) + 0.5)
    mean = tf.cast(mean, tf.float32)[:, None, None, None]
    return _blend(mean, images, factor)


def brightness(images, factor):
    """Moves away from black (factor > 1) or toward it."""
    return _blend(0.0, images, factor)


def sharpness(images, factor):
    """Moves away from a smoothed image (factor > 1) or toward it.

    The outermost pixels have no smoothed value and stay unchanged.
    """
    pixels = tf.cast(images, tf.float32)
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    center = images[:, 1:-1, 1:-1]
    # The weights are 1, and 5 in the middle, divided by 13.
    smooth = (box + 4.0 * tf.cast(center, tf.float32)) / 13.0
    inner = _blend(tf.floor(smooth + 0.5), center, factor)
    inner = tf.concat(
        [images[:, 1:-1, :1], inner, images[:, 1:-1, -1:]], axis=2
    )
    return tf.concat([images[:, :1], inner, images[:, -1:]], axis=1)


def shear_x(images, slope, cubic):
    """Shifts rows, each by `slope` times its distance from the top."""
    rows = tf.range(tf.shape(images)[1], dtype=tf.float64) + 0.5
    shift = tf.cast(slope, tf.float64)[:, None] * rows
    return _shift_rows(images, shift, cubic)


def shear_y(images, slope, cubic):
    """Shifts columns, each by `slope` times its distance from the left."""
    return _transpose(shear_x(_transpose(images), slope, cubic))


def translate_x(images, fraction, cubic):
    """Shifts the image to the left by a fraction of its width."""
    height, width = tf.unstack(tf.shape(images)[1:3])
    shift = tf.cast(fraction, tf.float64) * tf.cast(width, tf.float64)
    shift = tf.broadcast_to(shift[:, None], [tf.shape(images)[0], height])
    return _shift_rows(images, shift, cubic)


def translate_y(images, fraction, cubic):
    """Shifts the image up by a fraction of its height."""
    return _transpose(translate_x(_transpose(images), fraction, cubic))


def rotate(images, degrees, cubic):
    """Rotates the image counterclockwise about its center."""
    height, width = tf.unstack(tf.shape(images)[1:3])
    y = tf.range(height, dtype=tf.float32)[:, None] - _center(height)
    x = tf.range(width, dtype=tf.float32) - _center(width)
    angle = degrees[:, None, None] * np.float32(np.pi / 180)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    source_x = cosine * x - sine * y + _center(width)
    source_y = cosine * y + sine * x + _center(height)
    return _sample(images, source_y, source_x, cubic)


def _center(length):
    return (tf.cast(length, tf.float32) - 1.0) / 2.0


def _num_pixels(images):
    return tf.shape(images)[1] * tf.shape(images)[2]


def _transpose(images):
    return tf.transpose(images, [0, 2, 1, 3])


def _gray(images):
    """ITU-R 601-2 luma in Pillow's 16-bit fixed point, int32."""
    red, green, blue = tf.unstack(tf.cast(images, tf.int32), axis=-1)
    luma = red * 19595 + green * 38470 + blue * 7471 + 0x8000
    return tf.bitwise.right_shift(luma, 16)


def _blend(start, images, factor):
    """Start + factor * (images - start), clipped and truncated to uint8."""
    start = tf.cast(start, tf.float32)
    factor = factor[:, None, None, None]
    mixed = start + factor * (tf.cast(images, tf.float32) - start)
    return tf.cast(tf.clip_by_value(mixed, 0.0, 255.0), tf.uint8)


def _table_entries(images):
    """Index of every pixel's entry in tables of shape (batch, 3, 256)."""
    channel = tf.tile(tf.range(0, 768, 256), [_num_pixels(images)])
    first = 768 * tf.range(tf.shape(images)[0])[:, None] + channel
    return tf.cast(images, tf.int32) + tf.reshape(first, tf.shape(images))


def _look_up(tables, entries):
    return tf.gather(tf.reshape(tables, [-1]), entries)


def _neighbors(cubic):
    """Returns the offsets of the pixels that interpolation combines."""
    return (-1, 0, 1, 2) if cubic else (0, 1)


def _neighbor_weights(t, cubic):
    """Returns the neighbors' weights for a point `t` pixels right of pixel 0.

    Pillow's transforms use the cubic kernel with a = -1, unlike its resize.
    """
    if not cubic:
        return 1.0 - t, t
    square, cube = t * t, t * t * t
    return (
        2.0 * square - t - cube,
        1.0 - 2.0 * square + cube,
        t + square - cube,
        cube - square,
    )


def _pad_columns(images, before, after):
    """Repeats the outermost columns."""
    first, last = images[:, :, :1], images[:, :, -1:]
    return tf.concat([first] * before + [images] + [last] * after, axis=2)


def _truncate(pixels):
    pixels = tf.clip_by_value(pixels + _TRUNCATION_SLACK, 0.0, 255.0)
    return tf.cast(pixels, tf.uint8)


def _append_fill(table):
    """Appends FILL to a table of pixels; returns its index, too."""
    fill = tf.constant(FILL * (table.shape[-1] // 3), tf.uint8)[None]
    return tf.concat([table, fill], axis=0), tf.shape(table)[0]


def _shift_rows(images, shift, cubic):
    """Moves row y of each image left by shift[:, y] pixels.

    All pixels of a row have the same fractional shift, so the row is
    interpolated in place and then moved by whole pixels. The shift is float64
    because at half a pixel, rounding decides whether a column is filled.
    """
    batch, height, width = tf.unstack(tf.shape(images)[:3])
    whole = tf.floor(shift)
    fraction = shift - whole
    # Interpolated pixels are `fraction` right of the columns -1 to width - 1.
    taps = _neighbors(cubic)
    padded = tf.cast(_pad_columns(images, 1 - taps[0], taps[-1]), tf.float32)
    weights = _neighbor_weights(
        tf.cast(fraction, tf.float32)[..., None, None], cubic
    )
    pixels = tf.add_n(
        [
            weight * padded[:, :, tap : tap + width + 1]
            for tap, weight in enumerate(weights)
        ]
    )
    table, fill = _append_fill(tf.reshape(_truncate(pixels), [-1, 3]))

    column = tf.range(width) + tf.cast(whole, tf.int32)[..., None]
    # A point that is closer to a pixel outside of the image is outside.
    outer = tf.cast(fraction >= 0.5, tf.int32)[..., None]
    inside = (column >= -outer) & (column < width - outer)
    row = tf.reshape(tf.range(batch * height), [batch, height, 1])
    index = row * (width + 1) + column + 1
    return tf.gather(table, tf.where(inside, index, fill))


def _sample(images, y, x, cubic):
    """Interpolates each image at the pixel positions (y, x)."""
    batch, height, width = tf.unstack(tf.shape(images)[:3])
    inside = (y >= -0.5) & (y < tf.cast(height, tf.float32) - 0.5)
    inside &= (x >= -0.5) & (x < tf.cast(width, tf.float32) - 0.5)
    top, left = tf.floor(y), tf.floor(x)
    down = _neighbor_weights((y - top)[..., None], cubic)
    across = _neighbor_weights((x - left)[..., None], cubic)
    top, left = tf.cast(top, tf.int32), tf.cast(left, tf.int32)

    # A table of all runs of neighbors in a row, so that one lookup gets all.
    taps = _neighbors(cubic)
    padded = _pad_columns(images, 1 - taps[0], taps[-1])
    runs = [padded[:, :, tap : tap + width + 1] for tap in range(len(taps))]
    runs = tf.reshape(tf.concat(runs, axis=-1), [-1, 3 * len(taps)])
    table, fill = _append_fill(runs)

    first = tf.reshape(tf.range(batch) * height, [-1, 1, 1])
    rows = []
    for tap, weight in zip(taps, down, strict=True):
        row = first + tf.clip_by_value(top + tap, 0, height - 1)
        index = tf.where(inside, row * (width + 1) + left + 1, fill)
        rows.append(weight * tf.cast(tf.gather(table, index), tf.float32))
    # The columns are weighted with products of 0/1 matrices. This is several
    # times faster than slicing 3 out of every 12 numbers.
    spread = np.repeat(np.eye(len(taps), dtype="float32"), 3, axis=1)
    across = tf.matmul(
        tf.reshape(tf.concat(across, -1), [-1, len(taps)]), spread
    )
    rows = tf.reshape(tf.add_n(rows), [-1, 3 * len(taps)])
    total = np.tile(np.eye(3, dtype="float32"), [len(taps), 1])
    pixels = tf.matmul(across * rows, total)
    return _truncate(tf.reshape(pixels, tf.shape(images)))
