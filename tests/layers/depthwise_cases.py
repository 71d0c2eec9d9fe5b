"""Depthwise convolutions by definition, and every form against them.

    KERAS_BACKEND=jax JAX_DEFAULT_MATMUL_PRECISION=highest \
        python -m tests.layers.depthwise_cases

prints, as JSON, how far each form is from float64 on the device at hand, or
why it can't be had. It needs no TensorFlow.
"""

import json

import keras
import numpy as np
from keras import ops

from convmixer_tf.layers.depthwise_passes import PASSES
from convmixer_tf.layers.depthwise_passes import backend_module
from convmixer_tf.layers.depthwise_passes import forms_of

# Kernel size, and the map's, smaller than the kernel for some.
CASES = [
    ((1, 1), (8, 8)),
    ((2, 2), (5, 6)),
    ((3, 3), (1, 7)),
    ((4, 4), (3, 2)),
    ((5, 5), (16, 8)),
    ((6, 6), (11, 6)),
    ((7, 7), (1, 1)),
    ((8, 8), (9, 17)),
    ((9, 9), (5, 12)),
    ((6, 5), (7, 9)),
    ((3, 8), (20, 4)),
]
TOLERANCES = {"float32": 2e-6, "bfloat16": 1.5e-2}


def exact(x, dy, kernel):
    """Output, and gradients of input and kernel, in float64."""
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
    return y, dpadded[:, above : above + height, left : left + width], dkernel


def data(kernel_size, size, dtype="float32", batch=3, dim=5):
    """Random input, gradient of the output, and kernel, rounded to `dtype`."""
    rng = np.random.default_rng(0)
    shapes = (batch, *size, dim), (batch, *size, dim), (*kernel_size, dim, 1)
    return [
        ops.cast(rng.normal(size=s).astype("float32"), dtype) for s in shapes
    ]


def to_numpy(x):
    return np.array(ops.convert_to_numpy(ops.cast(x, "float32")))


def compute(name, form, x, dy, kernel):
    """Runs one form of one pass."""
    function = forms_of(name)[form]
    if name == "kernel_gradient":
        return function(x, dy, tuple(kernel.shape[:2]))
    return function(x if name == "forward" else dy, kernel)


def check(name, form, dtype, cases=CASES):
    """Compares a form with the definition, in all cases, one or three images.

    Raises:
        NotImplementedError: As the form does.
    """
    for number, (kernel_size, size) in enumerate(cases):
        arguments = data(kernel_size, size, dtype, (1, 3)[number % 2])
        expected = exact(*map(to_numpy, arguments))[PASSES.index(name)]
        _compare(compute(name, form, *arguments), expected, dtype)


def _compare(actual, expected, dtype):
    assert keras.backend.standardize_dtype(actual.dtype) == dtype
    assert _error(actual, expected) < TOLERANCES[dtype]


def _error(actual, expected):
    difference = np.abs(np.float64(to_numpy(actual)) - expected)
    return difference.max() / np.abs(expected).max()


def check_all(compiled, cases):
    """Checks every form, all of one case compiled at once.

    Args:
        compiled: Function of a function, that compiles it.
        cases: As `CASES`.

    Returns:
        Dictionary from passes and forms that can't be had to the reasons.
    """
    reasons = {}

    def everything(x, dy, kernel):
        results = {name: {} for name in PASSES}
        for name, of_pass in results.items():
            for form in forms_of(name):
                try:
                    of_pass[form] = compute(name, form, x, dy, kernel)
                except NotImplementedError as error:
                    reasons[f"{name} {form}"] = str(error)
        return results

    for kernel_size, size in cases:
        for dtype in TOLERANCES:
            arguments = data(kernel_size, size, dtype)
            expected = exact(*map(to_numpy, arguments))
            results = compiled(everything)(*arguments)
            assert all(results.values())
            for name, exactly in zip(PASSES, expected, strict=True):
                for actual in results[name].values():
                    _compare(actual, exactly, dtype)
    return reasons


def errors(cases):
    """Measures the largest error of every form, each compiled by itself.

    Args:
        cases: As `CASES`.

    Returns:
        Dictionary from passes, forms and dtypes to errors, as fractions of
        the largest value, or to what was raised.
    """
    found = {}
    for name in PASSES:
        for form in forms_of(name):
            for dtype in TOLERANCES:
                key = f"{name} {form} {dtype}"
                try:
                    found[key] = max(_errors(name, form, dtype, cases))
                except Exception as error:  # Whatever a compiler raises.
                    found[key] = f"{type(error).__name__}: {error}"[:200]
    return found


def _errors(name, form, dtype, cases):
    def computed(*arguments):
        return compute(name, form, *arguments)

    for kernel_size, size in cases:
        arguments = data(kernel_size, size, dtype)
        expected = exact(*map(to_numpy, arguments))[PASSES.index(name)]
        yield _error(backend_module().compiled(computed)(*arguments), expected)


if __name__ == "__main__":
    print(json.dumps(errors([CASES[3], CASES[8], CASES[9]]), indent=1))
