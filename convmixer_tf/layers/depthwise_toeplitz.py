"""A depthwise convolution as matrix products, one for each channel.

A channel's map is cut into tiles. Each tile's outputs are the product of the
inputs that it sees with a banded matrix that has the kernel's taps in it: many
more operations, most of them with zeros, but of the kind for which tensor
cores are made.
"""

import dataclasses
import math

import keras
import numpy as np
from keras import ops

from convmixer_tf.layers.depthwise_parts import offsets

TILES = {  # Rows and columns of a tile's outputs, in patches; or all of them.
    "toeplitz": (math.inf, math.inf),
    "toeplitz_rows": (8, math.inf),
    "toeplitz_lines": (1, math.inf),
    "toeplitz_tiles": (8, 8),
}

LARGEST = 2**29  # Values in all matrices of a layer: 1 GiB in half precision.


@dataclasses.dataclass(frozen=True)
class Band:
    """How tiles along one side of the map see their inputs.

    A tile as long as its side sees nothing but that, and no zeros around it.

    Attributes:
        size: Integer, the map's side.
        tile: Integer or infinity, how many outputs a tile has.
        taps: Integer, the kernel's side.
    """

    size: int
    tile: float
    taps: int

    @property
    def outputs(self):
        """How many outputs a tile has."""
        return min(self.size, self.tile)

    @property
    def inputs(self):
        """How many inputs a tile sees."""
        return self.size if self._whole else self.outputs + self.taps - 1

    @property
    def _whole(self):
        return self.tile >= self.size

    @property
    def _count(self):
        return -(-self.size // self.outputs)

    def matrix(self):
        """Makes (inputs, outputs, taps): 1 where an output's tap looks."""
        first = offsets(self.taps)[0] if self._whole else 0
        p, a, i = np.ogrid[: self.inputs, : self.outputs, : self.taps]
        return (p == a + i + first).astype("float32")

    def input_tiles(self, x, axis):
        """Cuts out what the tiles see: one more axis, before `axis`."""
        if self._whole:
            return ops.expand_dims(x, axis)
        before = -offsets(self.taps)[0]
        after = self._count * self.outputs + self.taps - 1 - self.size - before
        x = _pad(x, axis, before, after)
        everything = (slice(None),) * axis
        return ops.stack(
            [
                x[(*everything, slice(start, start + self.inputs))]
                for start in range(0, self.size, self.outputs)
            ],
            axis,
        )

    def output_tiles(self, y, axis):
        """Cuts the outputs into tiles: one more axis, before `axis`."""
        y = _pad(y, axis, 0, self._count * self.outputs - self.size)
        shape = list(ops.shape(y))
        shape[axis : axis + 1] = self._count, self.outputs
        return ops.reshape(y, shape)


def _pad(x, axis, before, after):
    pads = [(0, 0)] * len(x.shape)
    pads[axis] = before, after
    return ops.pad(x, pads)


def convolve(x, kernel, tile):
    """Computes a depthwise convolution with "same" padding.

    Args:
        x: Tensor (batch, height, width, dim).
        kernel: Tensor (rows, columns, dim, 1) of the same dtype.
        tile: (rows, columns) of a tile's outputs, in patches; see `TILES`.

    Returns:
        Tensor of the shape and dtype of `x`.

    Raises:
        NotImplementedError: If the height or the width is unknown, or if the
            matrices are too large.
    """
    height, width = _bands(x, kernel.shape[:2], tile)
    matrices = ops.einsum(
        "pai,qbj,ijc->cpqab",
        ops.cast(height.matrix(), x.dtype),
        ops.cast(width.matrix(), x.dtype),
        kernel[..., 0],
    )
    tiles = height.input_tiles(width.input_tiles(x, 2), 1)
    y = ops.einsum("nupvqc,cpqab->nuavbc", tiles, matrices)
    _, u, a, v, b, dim = y.shape
    y = ops.reshape(y, (-1, u * a, v * b, dim))
    return y[:, : height.size, : width.size]


def kernel_gradient(x, dy, kernel_size, tile):
    """Computes the gradient with respect to the kernel.

    Args:
        x: Tensor (batch, height, width, dim).
        dy: Tensor of its shape and dtype, the output's gradient.
        kernel_size: (rows, columns).
        tile: As for `convolve`.

    Returns:
        Tensor (rows, columns, dim, 1) of the dtype of `x`.

    Raises:
        NotImplementedError: As `convolve`.
    """
    height, width = _bands(x, kernel_size, tile)
    dmatrices = _sum_of_products(
        "nupvqc,nuavbc->cpqab",
        height.input_tiles(width.input_tiles(x, 2), 1),
        height.output_tiles(width.output_tiles(dy, 2), 1),
    )
    dkernel = ops.einsum(
        "pai,qbj,cpqab->ijc",
        ops.cast(height.matrix(), dmatrices.dtype),
        ops.cast(width.matrix(), dmatrices.dtype),
        dmatrices,
    )
    return ops.cast(dkernel[..., None], x.dtype)


def _bands(x, kernel_size, tile):
    if None in x.shape[1:3]:
        raise NotImplementedError("it needs a known height and width")
    height, width = map(Band, x.shape[1:3], tile, kernel_size)
    values = math.prod((height.inputs, height.outputs, x.shape[3]))
    values *= width.inputs * width.outputs
    if values > LARGEST:
        raise NotImplementedError(f"its matrices would have {values} values")
    return height, width


def _sum_of_products(equation, a, b):
    """An einsum whose sums of half-precision values stay exact longer."""
    if keras.backend.backend() == "jax":
        import jax.numpy as jnp

        single = jnp.promote_types(a.dtype, "float32")
        return jnp.einsum(equation, a, b, preferred_element_type=single)
    dtype = keras.backend.result_type(a.dtype, "float32")
    return ops.einsum(equation, ops.cast(a, dtype), ops.cast(b, dtype))
