"""One depthwise convolution, computed in many ways.

Every form is a function of the input and the kernel and gives the same: a
convolution with "same" padding and no strides, whose even kernels look one
further ahead than back, as in TensorFlow. Which is the fastest depends on the
device, the shape and the dtype: see `depthwise_plan`.

A form that can't be had raises `NotImplementedError`.
"""

import functools

import keras
from keras import ops

from convmixer_tf.layers import depthwise_toeplitz
from convmixer_tf.layers.depthwise_parts import offsets
from convmixer_tf.layers.depthwise_parts import phases


def native(x, kernel):
    """Leaves it to Keras.

    Args:
        x: Tensor (batch, height, width, dim).
        kernel: Tensor (rows, columns, dim, 1) of the same dtype.

    Returns:
        Tensor of the shape and dtype of `x`.
    """
    return ops.depthwise_conv(
        x, kernel, padding="same", data_format="channels_last"
    )


def grouped(x, kernel):
    """As a convolution with a group for each channel; see `native`."""
    if keras.backend.backend() == "jax":
        raise NotImplementedError("it is the native form of JAX")
    return ops.conv(
        x,
        ops.transpose(kernel, (0, 1, 3, 2)),
        padding="same",
        data_format="channels_last",
    )


def channels_first(x, kernel):
    """With the channels moved to the front and back; see `native`."""
    if keras.backend.backend() == "tensorflow" and not _tensorflow_gpu():
        raise NotImplementedError("TensorFlow has none on a CPU")
    y = ops.depthwise_conv(
        ops.transpose(x, (0, 3, 1, 2)),
        kernel,
        padding="same",
        data_format="channels_first",
    )
    return ops.transpose(y, (0, 2, 3, 1))


def _tensorflow_gpu():
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))


def polyphase(x, kernel):
    """As four dilated convolutions with a quarter of the taps; see `native`."""
    return _in_parts(x, kernel, phases(tuple(kernel.shape[:2]), 2, 2))


def rows(x, kernel):
    """As a convolution of one row for each row of the kernel; see `native`."""
    return _in_parts(
        x, kernel, phases(tuple(kernel.shape[:2]), kernel.shape[0], 1)
    )


def _in_parts(x, kernel, parts):
    height, width = ops.shape(x)[1:3]
    padded = pad_same(x, kernel.shape[:2])
    top, left = (offsets(size)[0] for size in kernel.shape[:2])
    total = 0
    for part in parts:
        i, row_step, row_span = _slice(part.rows, top)
        j, column_step, column_span = _slice(part.columns, left)
        window = padded[:, i : i + height + row_span]
        window = window[:, :, j : j + width + column_span]
        taps = kernel[i : i + row_span + 1 : row_step]
        y = ops.depthwise_conv(
            window,
            taps[:, j : j + column_span + 1 : column_step],
            padding="valid",
            dilation_rate=(row_step, column_step),
            data_format="channels_last",
        )
        total = total + ops.cast(y, sum_dtype(x))
    return ops.cast(total, x.dtype)


def _slice(taps, first):
    """First tap of a part in its kernel, the step, and first to last."""
    step = taps[1] - taps[0] if len(taps) > 1 else 1
    return taps[0] - first, step, taps[-1] - taps[0]


def shifted(x, kernel):
    """As a sum of shifted inputs, one for each tap; see `native`.

    A compiler that fuses, such as XLA, makes one loop over the output of it.
    """
    height, width = ops.shape(x)[1:3]
    padded, total = pad_same(x, kernel.shape[:2]), 0
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            window = padded[:, i : i + height, j : j + width]
            tap = ops.cast(kernel[i, j, :, 0], sum_dtype(x))
            total = total + ops.cast(window, sum_dtype(x)) * tap
    return ops.cast(total, x.dtype)


def _pallas(name, *arguments):
    """Calls a function of `pallas_depthwise`, which imports much of JAX."""
    if keras.backend.backend() != "jax":
        raise NotImplementedError("it is written for JAX")
    from convmixer_tf.layers import pallas_depthwise

    return getattr(pallas_depthwise, name)(*arguments)


FORMS = {
    "native": native,
    "grouped": grouped,
    "channels_first": channels_first,
    "polyphase": polyphase,
    "rows": rows,
    "shifted": shifted,
    **{
        name: functools.partial(depthwise_toeplitz.convolve, tile=tile)
        for name, tile in depthwise_toeplitz.TILES.items()
    },
    "pallas": functools.partial(_pallas, "convolve"),
    "pallas_toeplitz": functools.partial(_pallas, "convolve_by_products"),
}


def flipped(kernel):
    """Gives the kernel that takes the output's gradient to the input's.

    Args:
        kernel: Tensor (rows, columns, dim, 1).

    Returns:
        The kernel turned by 180 degrees. An even side gets a row of zeros: as
        the kernel looks one further ahead, this one has to look back.
    """
    odd = [(0, 1 - size % 2) for size in kernel.shape[:2]]
    return ops.pad(ops.flip(kernel, (0, 1)), [*odd, (0, 0), (0, 0)])


def big_filter(x, dy, kernel_size):
    """The gradient of a kernel: `dy` slides over the padded `x`.

    Every image's channels are channels of one image.

    Args:
        x: Tensor (batch, height, width, dim).
        dy: Tensor of its shape and dtype, the output's gradient.
        kernel_size: (rows, columns).

    Returns:
        Tensor (rows, columns, dim, 1) of the dtype of `x`.
    """
    if keras.backend.backend() == "tensorflow":
        from convmixer_tf.layers import tensorflow_depthwise

        return tensorflow_depthwise.big_filter(x, dy, kernel_size)
    image = _batch_to_channels(pad_same(x, kernel_size))[None]
    filters = _batch_to_channels(dy)[..., None]
    parts = ops.depthwise_conv(image, filters, data_format="channels_last")
    parts = ops.reshape(parts, (*kernel_size, -1, x.shape[3]))
    total = ops.sum(ops.cast(parts, sum_dtype(x)), axis=2)
    return ops.cast(total[..., None], x.dtype)


def _batch_to_channels(x):
    height, width = ops.shape(x)[1:3]
    return ops.reshape(ops.transpose(x, (1, 2, 0, 3)), (height, width, -1))


def shifted_products(x, dy, kernel_size):
    """The gradient of a kernel, tap by tap; see `big_filter`."""
    height, width = ops.shape(x)[1:3]
    padded = ops.cast(pad_same(x, kernel_size), sum_dtype(x))
    dy = ops.cast(dy, sum_dtype(x))
    taps = [
        ops.sum(padded[:, i : i + height, j : j + width] * dy, axis=(0, 1, 2))
        for i in range(kernel_size[0])
        for j in range(kernel_size[1])
    ]
    total = ops.reshape(ops.stack(taps), (*kernel_size, -1, 1))
    return ops.cast(total, x.dtype)


KERNEL_GRADIENTS = {
    "big_filter": big_filter,
    "shifted": shifted_products,
    **{
        name: functools.partial(depthwise_toeplitz.kernel_gradient, tile=tile)
        for name, tile in depthwise_toeplitz.TILES.items()
    },
    "pallas": functools.partial(_pallas, "kernel_gradient"),
    "pallas_toeplitz": functools.partial(
        _pallas, "kernel_gradient_by_products"
    ),
}


def pad_same(x, kernel_size):
    """Pads with the zeros that "same" padding has around.

    Args:
        x: Tensor (batch, height, width, dim).
        kernel_size: (rows, columns).
    """
    pads = [(-taps[0], taps[-1]) for taps in map(offsets, kernel_size)]
    return ops.pad(x, [(0, 0), *pads, (0, 0)])


def sum_dtype(x):
    """Names the dtype to add many values of `x` up in."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype
