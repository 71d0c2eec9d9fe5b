"""Reads the EXIF orientation of an image file and rotates the image.

Phones store the sensor's pixels unrotated. The tag `Orientation` (CIPA DC-008,
"Exif 3.0", 4.6.5.1.6) of a TIFF structure says how the phone was held. The
structure is in a segment APP1 of a JPEG, in a chunk `eXIf` of a PNG, and in a
chunk `EXIF` of a WebP. An image with malformed EXIF is treated as upright.

All functions consist of graph operations, so that a `tf.data` pipeline and a
SavedModel read the same pixels.
"""

import tensorflow as tf

_TAG, _SHORT = 0x0112, 3
_PREFIX = b"Exif\0\0"
# The first bytes of the EXIF in a JPEG, a PNG and a WebP.
_NAMES = r"(?s)\C*(?:Exif|eXIf|EXIF)\C*"
# The EXIF of a JPEG is in the first bytes, before the pixels.
_JPEG_HEADER = 2**18
# Limits the work for one file. JPEG encoders write few segments before the
# EXIF. PNG encoders write the pixels in chunks of 8 kB or more.
_MAX_SEGMENTS = 64
_MAX_CHUNKS = 10_000
# Big-endian and little-endian.
_BIG_ENDIAN = [1 << 24, 1 << 16, 1 << 8, 1]
_LITTLE_ENDIAN = _BIG_ENDIAN[::-1]


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def read_orientation(encoded):
    """Reads the orientation of an image.

    Args:
        encoded: Scalar string tensor, the bytes of a file.

    Returns:
        Scalar int32 tensor from 1 to 8. It is 1, upright, if the file is not
        a JPEG, PNG or WebP, has no EXIF orientation, or has a malformed one.
    """
    kind = tf.strings.substr(encoded, 0, 4)
    is_jpeg = tf.strings.substr(kind, 0, 2) == b"\xff\xd8"
    # Most images have no EXIF. Searching for its name takes less time than
    # walking through the parts of the file.
    searched = tf.where(is_jpeg, _JPEG_HEADER, tf.strings.length(encoded))
    has_name = tf.strings.regex_full_match(
        tf.strings.substr(encoded, 0, searched), _NAMES
    )
    start, size = tf.case(
        [
            (
                has_name & is_jpeg,
                lambda: _walk(encoded, 2, _jpeg_segment, _MAX_SEGMENTS),
            ),
            (
                has_name & (kind == b"\x89PNG"),
                lambda: _walk(encoded, 8, _png_chunk, _MAX_CHUNKS),
            ),
            (
                has_name & (kind == b"RIFF"),
                lambda: _walk(encoded, 12, _webp_chunk, _MAX_CHUNKS),
            ),
        ],
        default=lambda: (tf.constant(0, tf.int64), tf.constant(0, tf.int64)),
    )
    return tf.cond(
        size > 0,
        lambda: _read_tag(_bytes(encoded, start, size)),
        lambda: tf.constant(1),
    )


def turn(image, orientation):
    """Rotates or flips an image so that it is upright.

    Args:
        image: Tensor of shape (height, width, channels).
        orientation: Scalar int32 tensor from 1 to 8, from `read_orientation`.

    Returns:
        Tensor of shape (height, width, channels) or (width, height, channels).
    """

    def when(orientations, step, image):
        needed = tf.reduce_any(tf.equal(orientation, orientations))
        return tf.cond(needed, lambda: step(image), lambda: image)

    # The flips apply to the transposed image.
    image = when((5, 6, 7, 8), tf.image.transpose, image)
    image = when((2, 3, 6, 7), tf.image.flip_left_right, image)
    return when((3, 4, 7, 8), tf.image.flip_up_down, image)


def upright_size(height, width, orientation):
    """Returns the height and width of the upright image.

    Args:
        height: Scalar int32 tensor, in pixels as stored.
        width: Scalar int32 tensor, in pixels as stored.
        orientation: As for `turn`.
    """
    lying = orientation >= 5
    return tf.where(lying, width, height), tf.where(lying, height, width)


def stored_box(box, height, width, orientation):
    """Converts a box of the upright image to a box of the stored image.

    Args:
        box: Tuple `(top, left, rows, columns)` of int32 tensors, in pixels of
            the upright image.
        height: Scalar int32 tensor, in pixels as stored.
        width: Scalar int32 tensor, in pixels as stored.
        orientation: As for `turn`.

    Returns:
        Tuple like `box`, in pixels as stored.
    """

    def is_one_of(*orientations):
        return tf.reduce_any(tf.equal(orientation, orientations))

    # The steps of `turn`, undone in reverse order.
    top, left, rows, columns = box
    full_height, full_width = upright_size(height, width, orientation)
    top = tf.where(is_one_of(3, 4, 7, 8), full_height - rows - top, top)
    left = tf.where(is_one_of(2, 3, 6, 7), full_width - columns - left, left)
    lying = orientation >= 5
    return (
        tf.where(lying, left, top),
        tf.where(lying, top, left),
        tf.where(lying, columns, rows),
        tf.where(lying, rows, columns),
    )


def _walk(encoded, position, read_part, most):
    """Walks through the parts of a file until one holds the EXIF.

    Returns the EXIF's first byte and size. The size is 0 if there is none.
    """
    length = tf.cast(tf.strings.length(encoded), tf.int64)

    def go_on(position, start, size):
        return (position < length) & (size == 0)

    def step(position, start, size):
        following, start, size, found = read_part(encoded, position)
        # Truncated EXIF is ignored.
        found &= start + size <= length
        following = tf.where(following > position, following, length)
        return following, start, tf.where(found, size, 0)

    _, start, size = tf.while_loop(
        go_on,
        step,
        tuple(tf.constant(x, tf.int64) for x in (position, 0, 0)),
        maximum_iterations=most,
        parallel_iterations=1,
    )
    return start, size


def _jpeg_segment(encoded, position):
    """Returns a segment's end, and its EXIF's start and size if it has any."""
    head = _bytes(encoded, position, 10)
    values = _values(head, 4)
    first, kind = values[0], values[1]
    size = 256 * values[2] + values[3]
    # A segment may follow any number of bytes FF. It stores its size. The
    # pixels start with FFDA.
    is_fill = (first == 0xFF) & (kind == 0xFF)
    is_segment = (first == 0xFF) & (kind >= 0xC0) & (size >= 2)
    is_segment &= (kind < 0xD0) | (kind > 0xDA)
    end = tf.where(is_segment, position + 2 + size, 0)
    end = tf.where(is_fill, position + 1, end)
    is_exif = tf.strings.substr(head, 4, 6) == _PREFIX
    found = is_segment & (kind == 0xE1) & is_exif
    return end, position + 4, size - 2, found


def _png_chunk(encoded, position):
    head = _bytes(encoded, position, 8)
    size = tf.reduce_sum(_values(head, 4) * _BIG_ENDIAN)
    found = tf.strings.substr(head, 4, 4) == b"eXIf"
    return position + 12 + size, position + 8, size, found


def _webp_chunk(encoded, position):
    head = _bytes(encoded, position, 8)
    size = _values(tf.strings.substr(head, 4, 4), 4)
    size = tf.reduce_sum(size * _LITTLE_ENDIAN)
    found = tf.strings.substr(head, 0, 4) == b"EXIF"
    return position + 8 + size + size % 2, position + 8, size, found


def _read_tag(exif):
    """Reads the orientation from a TIFF structure."""
    has_prefix = tf.strings.substr(exif, 0, 6) == _PREFIX
    start = tf.where(has_prefix, len(_PREFIX), 0)
    tiff = _bytes(exif, start, tf.strings.length(exif))
    order = tf.strings.substr(tiff, 0, 4)
    is_big = order == b"MM\0*"
    is_tiff = is_big | (order == b"II*\0")
    weights = tf.where(
        is_big,
        tf.constant(_BIG_ENDIAN, tf.int64),
        tf.constant(_LITTLE_ENDIAN, tf.int64),
    )
    weights_16 = tf.where(is_big, weights[2:], weights[:2])
    start = tf.reduce_sum(_values(_bytes(tiff, 4, 4), 4) * weights)
    count = tf.reduce_sum(_values(_bytes(tiff, start, 2), 2) * weights_16)
    # Each entry has 12 bytes: tag, type, number of values, value.
    entries = _bytes(tiff, start + 2, 12 * count)
    entries = tf.cast(tf.io.decode_raw(entries, tf.uint8), tf.int64)
    whole = tf.size(entries) // 12
    entries = tf.reshape(entries[: 12 * whole], [whole, 12])
    tag = tf.reduce_sum(entries[:, :2] * weights_16, axis=1)
    kind = tf.reduce_sum(entries[:, 2:4] * weights_16, axis=1)
    number = tf.reduce_sum(entries[:, 4:8] * weights, axis=1)
    value = tf.reduce_sum(entries[:, 8:10] * weights_16, axis=1)
    is_valid = (kind == _SHORT) & (number == 1) & (value >= 1) & (value <= 8)
    # If there are several, the first one is used.
    values = tf.boolean_mask(tf.where(is_valid, value, 1), tag == _TAG)
    values = tf.concat([values, tf.constant([1], tf.int64)], axis=0)
    return tf.where(is_tiff, tf.cast(values[0], tf.int32), 1)


def _bytes(encoded, position, count):
    """Returns a piece of a string. It is shorter at the string's end."""
    length = tf.cast(tf.strings.length(encoded), tf.int64)
    position = tf.minimum(tf.cast(position, tf.int64), length)
    return tf.strings.substr(encoded, position, tf.cast(count, tf.int64))


def _values(piece, count):
    """Returns the first bytes as int64 numbers, with 0 for missing ones."""
    values = tf.io.decode_raw(piece, tf.uint8, fixed_length=count)
    return tf.cast(values, tf.int64)
