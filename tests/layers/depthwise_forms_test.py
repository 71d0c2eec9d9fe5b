"""Every form of the depthwise convolution must compute the same."""

import json

import numpy as np
import pytest

from convmixer_tf.layers import depthwise_toeplitz
from convmixer_tf.layers.depthwise_passes import PASSES
from convmixer_tf.layers.depthwise_passes import forms_of
from tests.helpers import relative_difference
from tests.helpers import run_python
from tests.layers.depthwise_cases import CASES
from tests.layers.depthwise_cases import TOLERANCES
from tests.layers.depthwise_cases import check
from tests.layers.depthwise_cases import compute
from tests.layers.depthwise_cases import data
from tests.layers.depthwise_cases import errors
from tests.layers.depthwise_cases import exact

tf = pytest.importorskip("tensorflow")

NOT_ON_A_CPU = {"channels_first", "pallas", "pallas_toeplitz"}
HERE = [
    (name, form)
    for name in PASSES
    for form in forms_of(name)
    if form not in NOT_ON_A_CPU
]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("name", "form"), HERE)
def test_every_form_is_exact(name, form, dtype):
    # Each call of a grouped convolution compiles it anew.
    check(name, form, dtype, CASES[1::4] if form == "grouped" else CASES)


@pytest.mark.parametrize(
    ("name", "form"),
    [(n, f) for n in PASSES for f in forms_of(n) if f in NOT_ON_A_CPU],
)
def test_what_there_is_none_of_says_so(name, form):
    with pytest.raises(NotImplementedError, match=r"on a CPU|for JAX"):
        compute(name, form, *data((3, 3), (4, 4)))


@pytest.mark.parametrize(
    ("name", "form"),
    [(n, f) for n, f in HERE if "toeplitz" not in f and f != "grouped"],
)
def test_unknown_sizes(name, form):
    anything = tf.TensorSpec((None, None, None, 5))
    kernel = tf.TensorSpec((6, 5, 5, 1))

    @tf.function(input_signature=[anything, anything, kernel])
    def computed(x, dy, kernel):
        return compute(name, form, x, dy, kernel)

    arguments = data((6, 5), (7, 9))
    expected = exact(*arguments)[PASSES.index(name)]
    assert relative_difference(computed(*arguments), expected) < 2e-6


@pytest.mark.parametrize("name", PASSES)
def test_toeplitz_needs_a_known_size(name):
    anything = tf.TensorSpec((3, None, 9, 5))
    function = tf.function(lambda x, dy: compute(name, "toeplitz", x, dy, k))
    k = data((3, 3), (9, 9))[2]
    with pytest.raises(NotImplementedError, match="known height"):
        function.get_concrete_function(anything, anything)


def test_toeplitz_makes_no_matrices_that_are_too_large(monkeypatch):
    monkeypatch.setattr(depthwise_toeplitz, "LARGEST", 81 * 81 * 5 - 1)
    with pytest.raises(NotImplementedError, match=f"{81 * 81 * 5} values"):
        compute("forward", "toeplitz", *data((3, 3), (9, 9)))
    compute("forward", "toeplitz_rows", *data((3, 3), (9, 6)))


def test_errors_are_reported():
    found = errors(CASES[1:2])
    assert found["forward shifted float32"] < TOLERANCES["float32"]
    assert 1e-5 < found["forward shifted bfloat16"] < TOLERANCES["bfloat16"]
    assert "written for JAX" in found["kernel_gradient pallas float32"]
    assert len(found) == 2 * sum(len(forms_of(name)) for name in PASSES)


@pytest.mark.parametrize("form", ["polyphase", "shifted", "toeplitz_rows"])
def test_half_precision_adds_up_in_single(form):
    ones = [tf.ones_like(a) for a in data((9, 9), (20, 20), "bfloat16")]
    y = compute("forward", form, *ones)
    np.testing.assert_array_equal(y[:, 4:-4, 4:-4], 81)


ON_OTHER_BACKENDS = """
import json, sys
import keras
from tests.layers import depthwise_cases as cases

assert keras.backend.backend() == sys.argv[1]
compiled = lambda function: function
if sys.argv[1] == "jax":
    import jax

    compiled = jax.jit  # Op by op, JAX compiles thousands of them.
few = [cases.CASES[i] for i in map(int, sys.argv[2:])]
print(json.dumps(cases.check_all(compiled, few)))
"""


@pytest.mark.peer
@pytest.mark.parametrize(
    ("backend", "missing"),
    [
        ("jax", {"grouped", "pallas", "pallas_toeplitz"}),
        ("torch", {"pallas", "pallas_toeplitz"}),
    ],
)
def test_every_form_is_exact_on_other_backends(backend, missing):
    pytest.importorskip(backend)
    numbers = (3, 9) if backend == "jax" else range(len(CASES))
    printed = run_python(
        ON_OTHER_BACKENDS, backend, *numbers, KERAS_BACKEND=backend
    )
    reasons = json.loads(printed.splitlines()[-1])
    assert {key.split()[1] for key in reasons} == missing
