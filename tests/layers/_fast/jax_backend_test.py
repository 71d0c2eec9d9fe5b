"""Tests that the fast JAX operations give the same results."""

import json

import pytest

from tests.helpers import run_python

pytestmark = pytest.mark.peer

GELU = """
import json, sys
import jax, jax.numpy as jnp, keras, numpy as np
from scipy import special
from convmixer_tf.layers._fast.choice import plain_operations
from convmixer_tf.layers.conv_act_norm import activate

jax.config.update("jax_enable_x64", True)
gelu = keras.activations.gelu
extremes = [-1e30, -40, -1e-30, 0, 1e-30, 40, 1e30]
points = np.concatenate([np.linspace(-9, 9, 4001), extremes])
errors = {}
for dtype in ("float64", "float32", "float16", "bfloat16"):
    largest = 3e4 if dtype == "float16" else 1e30
    x = jnp.asarray(np.clip(points, -largest, largest), dtype)
    y = activate(x, gelu, training=True)
    assert y.dtype == dtype
    single = "float64" if dtype == "float64" else "float32"
    assert activate(x, gelu, training=False).dtype == single
    slope = jax.grad(lambda x: activate(x, gelu, True).sum())(x)
    wide = np.float64(x)
    density = np.exp(-wide * wide / 2) / np.sqrt(2 * np.pi)
    for what, actual, exact in (
        ("value", y, wide * special.ndtr(wide)),
        ("slope", slope, special.ndtr(wide) + wide * density),
    ):
        error = np.abs(np.float64(actual) - exact)
        errors[f"{what} {dtype}"] = (error / np.maximum(1, abs(wide))).max()
x = jnp.linspace(-3, 3, 101, dtype="bfloat16")
with plain_operations():
    np.testing.assert_array_equal(activate(x, gelu, True), gelu(x))
print(json.dumps(errors))
"""


def run(code):
    pytest.importorskip("jax")
    printed = run_python(code, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    return json.loads(printed.splitlines()[-1])


def test_gelu_is_exact_and_rounded_once():
    limits = {
        "float64": 1e-14,
        "float32": 1e-6,
        "float16": 2.0**-11,
        "bfloat16": 2.0**-8,
    }
    errors = run(GELU)
    assert len(errors) == 2 * len(limits)
    for key, error in errors.items():
        assert error < limits[key.split()[1]], (key, error)


NORM = """
import json
import jax, jax.numpy as jnp, keras, numpy as np
from convmixer_tf.layers._fast.choice import plain_operations
from convmixer_tf.layers.conv_act_norm import batch_norm, normalize
from tests.helpers import randomize, relative_difference

class Normalized(keras.Layer):
    def __init__(self, policy):
        super().__init__(dtype=policy)
        self.norm = batch_norm("channels_last", policy, "norm")

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x, training=None):
        return normalize(x, self.norm, training)

errors = {}
rng = np.random.default_rng(0)
for policy, mean in (
    ("float32", 3.0),
    ("float32", 1e3),
    ("mixed_bfloat16", 3.0),
    ("mixed_float16", 3.0),
):
    x, dy = rng.normal([[[[[mean]]]], [[[[0.0]]]]], 1, (2, 4, 6, 5, 3))
    norm = Normalized(policy)
    norm.build(x.shape)
    randomize(norm)
    weights = [w.value for w in norm.trainable_variables]
    statistics = [w.value for w in norm.non_trainable_variables]
    x, dy = (jnp.asarray(v, norm.compute_dtype) for v in (x, dy))

    def step(x, weights, statistics):
        def output(x, weights):
            return norm.stateless_call(weights, statistics, x, training=True)

        y, pull, statistics = jax.vjp(output, x, weights, has_aux=True)
        return [y, *jax.tree.leaves(pull(dy)), *statistics]

    # Everything in float64 is the measure.
    jax.config.update("jax_enable_x64", True)
    with plain_operations():
        exact = keras.layers.BatchNormalization(
            epsilon=1e-5, momentum=0.9, dtype="float64"
        )
        exact.build(x.shape)
        wide = [np.float64(w) for w in weights], [
            np.float64(w) for w in statistics
        ]

        def stock(x, weights):
            return exact.stateless_call(weights, wide[1], x, training=True)

        y, pull, moved = jax.vjp(stock, jnp.float64(x), wide[0], has_aux=True)
        expected = [y, *jax.tree.leaves(pull(jnp.float64(dy))), *moved]
    jax.config.update("jax_enable_x64", False)
    actual = jax.jit(step)(x, weights, statistics)
    names = ("y", "dx", "dgamma", "dbeta", "mean", "variance")
    for name, ours, theirs in zip(names, actual, expected, strict=True):
        error = relative_difference(np.float64(ours), np.float64(theirs))
        errors[f"{name} {policy} {mean}"] = error
    assert actual[0].dtype == x.dtype
    again = lambda *arguments: step(*arguments)  # Else the trace is kept.
    jaxpr = str(jax.make_jaxpr(step)(x, weights, statistics))
    with plain_operations():
        assert str(jax.make_jaxpr(again)(x, weights, statistics)) != jaxpr
print(json.dumps(errors))
"""


def test_batches_are_normalized_as_in_double_precision():
    errors = run(NORM)
    limits = {
        "float32 3.0": 2e-5,
        "float32 1000.0": 1e-3,  # The input's precision.
        "mixed_float16 3.0": 3e-3,
        "mixed_bfloat16 3.0": 2e-2,
    }
    assert len(errors) == 6 * len(limits)
    for key, error in errors.items():
        assert error < limits[key.partition(" ")[2]], (key, error)


DEPTHWISE = """
import json
import jax, jax.numpy as jnp, keras, numpy as np
from convmixer_tf.layers._fast import jax_backend
from convmixer_tf.layers._fast.choice import plain_operations
from convmixer_tf.layers.conv_act_norm import convolve

def exact(x, dy, kernel):
    x, dy, kernel = (np.float64(a) for a in (x, dy, kernel))
    (height, width), (rows, columns) = x.shape[1:3], kernel.shape[:2]
    above, left = (rows - 1) // 2, (columns - 1) // 2
    pad = [(above, rows - 1 - above), (left, columns - 1 - left)]
    padded = np.pad(x, [(0, 0), *pad, (0, 0)])
    y, dpadded = np.zeros_like(x), np.zeros_like(padded)
    dkernel = np.zeros_like(kernel)
    for i in range(rows):
        for j in range(columns):
            window = np.s_[:, i : i + height, j : j + width]
            y += padded[window] * kernel[i, j, :, 0]
            dkernel[i, j, :, 0] = (padded[window] * dy).sum((0, 1, 2))
            dpadded[window] += dy * kernel[i, j, :, 0]
    dx = dpadded[:, above : above + height, left : left + width]
    return y, dx, dkernel

errors = {}
rng = np.random.default_rng(0)
# Maps smaller than the kernel, even kernels, and one line too long.
for size, shape, data_format in (
    ((4, 4), (3, 3, 2, 5), "channels_last"),
    ((5, 5), (2, 16, 8, 3), "channels_first"),
    ((6, 5), (1, 7, 9, 2), "channels_last"),
    ((3, 4), (2, 2, 65, 2), "channels_first"),
):
    for dtype in ("float32", "bfloat16"):
        conv = keras.layers.DepthwiseConv2D(
            size, padding="same", dtype=dtype, data_format=data_format
        )
        first = data_format == "channels_first"
        to = (0, 3, 1, 2) if first else (0, 1, 2, 3)
        back = (0, 2, 3, 1) if first else (0, 1, 2, 3)
        conv.build(tuple(shape[axis] for axis in to))
        both = jnp.asarray(rng.normal(size=(2, *shape)), dtype)
        x, dy = both
        kernel = jnp.asarray(rng.normal(size=conv.kernel.shape), dtype)
        conv.kernel.assign(kernel)
        expected = exact(x, dy, kernel)

        @jax.jit
        def step(x, dy, kernel):
            def output(x, kernel):
                with keras.StatelessScope([(conv.kernel, kernel)]):
                    y = convolve(x.transpose(to), conv, True)
                return y.transpose(back)

            y, pull = jax.vjp(output, x, kernel)
            return y, *pull(dy)

        inference = convolve(x.transpose(to), conv, False).transpose(back)
        actual = *step(x, dy, kernel), inference
        for name, ours, theirs in zip(
            ("y", "dx", "dkernel", "inference"),
            actual,
            (*expected, expected[0]),
            strict=True,
        ):
            assert ours.dtype == dtype
            error = abs(np.float64(ours) - theirs).max() / abs(theirs).max()
            key = f"{name} {dtype}"
            errors[key] = max(error, errors.get(key, 0))
ones = jnp.ones((1, 20, 20, 1), "bfloat16")
sums = jax_backend._forward(ones, jnp.ones((9, 9, 1, 1), "bfloat16"))
assert (sums[:, 4:-4, 4:-4] == 81).all()
for size, columns in ((3, 3), (9, 3)):
    conv = keras.layers.DepthwiseConv2D((size, columns), padding="same")
    conv.build((1, 8, 8, 1))
    x, kernel = jnp.ones((1, 8, 8, 1)), conv.kernel.value
    assert jax_backend.convolve(x, kernel, conv, True) is None
print(json.dumps(errors))
"""


def test_depthwise_convolutions_are_exact():
    errors = run(DEPTHWISE)
    assert len(errors) == 8
    for key, error in errors.items():
        assert error < (2e-6 if "float32" in key else 1.5e-2), (key, error)


EXPORT = """
import sys
import keras, numpy as np, tensorflow as tf
from convmixer_tf import ConvMixer
from tests.helpers import asymmetric_image, randomize, relative_difference

for policy, activation, data_format, tolerance in (
    ("float32", "gelu", "channels_last", 1e-6),
    ("float32", "relu", "channels_first", 1e-6),
    ("mixed_bfloat16", "gelu", "channels_first", 1e-2),
):
    keras.config.set_dtype_policy(policy)
    keras.config.set_image_data_format(data_format)
    images, shape = asymmetric_image(16, 24), (16, 24, 3)
    if data_format == "channels_first":
        images, shape = images.transpose(0, 3, 1, 2), (3, 16, 24)
    images = images.astype("float32")
    model = randomize(
        ConvMixer(8, 2, 5, 2, activation, input_shape=shape, classes=5)
    )
    folder = f"{sys.argv[1]}/{policy}_{data_format}"
    model.export(folder, verbose=False)
    module = tf.saved_model.load(folder)
    error = relative_difference(module.serve(images), model(images))
    assert error < tolerance, (folder, error)
"""


def test_an_exported_model_runs_in_tensorflow(tmp_path):
    pytest.importorskip("jax")
    pytest.importorskip("tensorflow")
    run_python(EXPORT, tmp_path, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
