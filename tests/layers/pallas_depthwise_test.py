"""Our kernels for GPUs, interpreted on a CPU, and lowered for a GPU.

Nothing here shows that a GPU runs them, nor how fast.
"""

import json

import pytest

from tests.helpers import run_python

pytestmark = pytest.mark.peer

# Small tiles: interpreted, time goes with the code's length.
INTERPRETED = """
import json
import jax
from convmixer_tf.layers import pallas_depthwise as kernels
from convmixer_tf.layers.depthwise_forms import flipped
from tests.helpers import relative_difference
from tests.layers.depthwise_cases import data, exact, to_numpy

kernels.ROWS, kernels.COLUMNS, kernels.CHANNELS = 2, 4, 4
kernels.LINES, kernels.LINES_OF_GRADIENT, kernels.SPLITS = 16, 8, 2
errors = {}
for number, (kernel_size, size, batch, dtype) in enumerate([
    ((3, 2), (5, 6), 3, "bfloat16"),
    ((4, 5), (1, 9), 2, "float32"),
    ((2, 3), (1, 1), 1, "float16"),
]):
    x, dy, kernel = data(kernel_size, size, dtype, batch)
    expected = exact(*map(to_numpy, (x, dy, kernel)))

    @jax.jit
    def everything(x, dy, kernel):
        return [
            [
                convolve(x, kernel, interpret=True),
                convolve(dy, flipped(kernel), interpret=True),
                gradient(x, dy, kernel_size, interpret=True),
            ]
            for convolve, gradient in (
                (kernels.convolve, kernels.kernel_gradient),
                (
                    kernels.convolve_by_products,
                    kernels.kernel_gradient_by_products,
                ),
            )
        ]

    for name, actual in zip(
        ("plain", "products"), everything(x, dy, kernel), strict=True
    ):
        for which, ours, theirs in zip("yxk", actual, expected, strict=True):
            assert ours.dtype == dtype
            key = f"{name} {which} {dtype} {number}"
            errors[key] = relative_difference(to_numpy(ours), theirs)
print(json.dumps(errors))
"""


def test_interpreted_kernels_are_exact():
    pytest.importorskip("jax")
    printed = run_python(INTERPRETED, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    errors = json.loads(printed.splitlines()[-1])
    assert len(errors) == 3 * 6
    limits = {"float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}
    for key, error in errors.items():
        assert error < limits[key.split()[2]], (key, error)


BLOCK = """
import functools, json
import jax, jax.numpy as jnp, numpy as np
from scipy import special
from convmixer_tf.layers import ConvMixerBlock, set_depthwise
from convmixer_tf.layers import pallas_depthwise as kernels
from tests.helpers import randomize, relative_difference

x = jnp.asarray([*np.linspace(-40, 40, 80001), -1e30, 1e30], "float32")
wide = np.float64(x)
error = np.abs(kernels.gelu(x) - wide * special.ndtr(wide))
errors = {"gelu": float((error / np.maximum(1, np.abs(wide))).max())}

kernels.ROWS, kernels.COLUMNS, kernels.CHANNELS = 2, 4, 4
kernels._check = lambda *arguments: None  # There is no GPU.
calls, residual = [], kernels.residual

def interpreted(*arguments):
    calls.append(arguments)
    return residual(*arguments, True)

kernels.residual = interpreted
for activation in ("gelu", "relu"):
    for policy in ("float32", "mixed_bfloat16"):
        block = ConvMixerBlock(5, activation=activation, dtype=policy)
        block.build((2, 6, 7, 5))
        randomize(block)
        dtype = block.compute_dtype
        x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 7, 5)))
        x = x.astype(dtype)

        def loss(x):
            y = block(x, training=False)
            return jnp.square(y.astype("float32")).sum(), y

        slope = jax.grad(loss, has_aux=True)
        set_depthwise("native")
        exact = slope(x)
        assert not calls
        set_depthwise("pallas")
        ours = slope(x)
        assert len(calls) == 1 and calls.pop()
        for name, one, other in zip(("dx", "y"), ours, exact, strict=True):
            assert one.dtype == other.dtype == dtype
            key = f"{name} {dtype} {activation}"
            errors[key] = relative_difference(
                np.float32(one), np.float32(other)
            )
block = ConvMixerBlock(3, activation=lambda x: 2 * x)
block.build(x.shape)
assert (
    block.depthwise.residual(x, block.activation, block.depthwise_norm) is None
)
print(json.dumps(errors))
"""


def test_inference_of_a_block_is_one_kernel_before_the_pointwise_one():
    pytest.importorskip("jax")
    printed = run_python(BLOCK, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    errors = json.loads(printed.splitlines()[-1])
    assert errors.pop("gelu") < 2.5e-7
    assert len(errors) == 8
    limits = {"float32": 3e-6, "bfloat16": 2e-2}
    for key, error in errors.items():
        assert error < limits[key.split()[1]], (key, error)


LOWERED = """
import functools, sys
import jax, jax.numpy as jnp
from convmixer_tf.layers import pallas_depthwise as kernels

for x in (jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 4, 4, 2), "int8")):
    try:
        kernels.convolve(x, jnp.zeros((3, 3, 2, 1), x.dtype), x.dtype == "int8")
    except NotImplementedError as error:
        print(error)
try:
    kernels.convolve_by_products(
        jnp.zeros((1, 4, 65, 2)), jnp.zeros((3, 3, 2, 1)), interpret=True
    )
except NotImplementedError as error:
    print(error)

kernels._check = lambda x, interpret: None  # There is no GPU.
described = jax.sharding.AbstractMesh(
    (1,),
    ("devices",),
    (jax.sharding.AxisType.Auto,),
    abstract_device=jax.sharding.AbstractDevice("NVIDIA H200", None, "cuda"),
)
for dtype in ("float32", "bfloat16", "float16"):
    for height, width, dim, size in ((32, 32, 1536, 9), (7, 14, 33, 6)):
        x = jax.ShapeDtypeStruct((4, height, width, dim), dtype)
        kernel = jax.ShapeDtypeStruct((size, size, dim, 1), dtype)
        vector = jax.ShapeDtypeStruct((dim,), "float32")
        residual = functools.partial(kernels.residual, kernels.gelu)
        residual.__name__ = "residual"
        for function, arguments in (
            (kernels.convolve, (x, kernel)),
            (residual, (x, kernel, vector, vector, vector)),
            (kernels.convolve_by_products, (x, kernel)),
            (kernels.kernel_gradient, (x, x)),
            (kernels.kernel_gradient_by_products, (x, x)),
        ):
            if function.__name__.startswith("kernel"):
                function = functools.partial(function, kernel_size=(size, size))
            with jax.sharding.use_abstract_mesh(described):
                traced = jax.jit(function).trace(*arguments)
                text = traced.lower(lowering_platforms=("cuda",)).as_text()
            print(text.count("@__gpu$xla.gpu.triton("))
"""


def test_kernels_lower_to_triton_and_say_where_they_do_not_run():
    pytest.importorskip("jax")
    printed = run_python(LOWERED, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    printed = printed.splitlines()
    assert printed[:3] == [
        "it is written for an NVIDIA GPU",
        "it has no int8",
        "a line of the map has 65 values",
    ]
    assert printed[3:] == ["1"] * 30
