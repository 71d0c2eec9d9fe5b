"""Which form a layer computes: the rule, the probe's, or the user's."""

import logging

import numpy as np
import pytest

from convmixer_tf.layers import DepthwiseConv2D
from convmixer_tf.layers import depthwise_plan
from convmixer_tf.layers import set_depthwise
from convmixer_tf.layers.acceleration import plain_operations
from convmixer_tf.layers.depthwise_plan import VARIABLE
from convmixer_tf.layers.depthwise_plan import Plan
from convmixer_tf.layers.depthwise_plan import choose_plan
from tests.helpers import relative_difference
from tests.helpers import run_python
from tests.layers.depthwise_cases import data
from tests.layers.depthwise_cases import exact

tf = pytest.importorskip("tensorflow")

CASE = ((8, 4, 4, 2), (5, 5), "float32", True)
RULE = Plan(kernel_gradient="big_filter")


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    yield
    set_depthwise()


@pytest.fixture
def probed(monkeypatch):
    """Lets the probe answer without measuring; gives what it was asked."""
    asked = []

    def choose(*case):
        asked.append(case)
        return "shifted"

    monkeypatch.setattr(depthwise_plan.depthwise_probe, "choose", choose)
    return asked


def test_the_rule_measures_nothing(probed):
    assert choose_plan(*CASE) == RULE
    assert choose_plan(CASE[0], (9, 3), *CASE[2:]) == Plan()
    assert probed == []


@pytest.mark.parametrize(
    ("shape", "kernel_size", "dtype", "form"),
    [
        ((None, 16, 16, 1024), (9, 9), "float32", "flipped"),
        ((8, 32, 32, 1536), (9, 9), "bfloat16", "flipped"),
        ((8, 32, 32, 1536), (9, 9), "float32", "native"),
        ((8, 16, 16, 256), (5, 5), "bfloat16", "native"),
        ((8, 32, 32, 768), (7, 7), "float16", "native"),
        ((8, 32, 32, 768), (7, 6), "bfloat16", "native"),
        ((8, None, 32, 768), (7, 7), "bfloat16", "native"),
    ],
)
def test_the_rule_of_the_input_gradient(shape, kernel_size, dtype, form):
    plan = choose_plan(shape, kernel_size, dtype, trains=True)
    assert plan == Plan("native", form, "big_filter")


def test_one_word_is_for_every_pass_that_has_it():
    set_depthwise("toeplitz")
    assert choose_plan(*CASE) == Plan("toeplitz", "toeplitz", "toeplitz")
    set_depthwise("polyphase")
    assert choose_plan(*CASE) == Plan("polyphase", "polyphase", "big_filter")
    set_depthwise("native")
    assert choose_plan(*CASE) == Plan()
    set_depthwise("rows", "flipped", "native")
    assert choose_plan(*CASE) == Plan("rows", "flipped", "native")
    set_depthwise()
    assert choose_plan(*CASE) == RULE


def test_the_environment_counts_until_something_is_set(monkeypatch):
    monkeypatch.setenv(VARIABLE, "shifted, flipped ,native")
    assert choose_plan(*CASE) == Plan("shifted", "flipped", "native")
    set_depthwise("rule")
    assert choose_plan(*CASE) == RULE
    set_depthwise()
    assert choose_plan(*CASE).forward == "shifted"


def test_the_probe_is_asked_pass_by_pass(probed):
    set_depthwise("native", "auto", "auto")
    assert choose_plan(*CASE) == Plan("native", "shifted", "shifted")
    assert probed == [
        (name, *CASE[:3]) for name in ("input_gradient", "kernel_gradient")
    ]


@pytest.mark.parametrize("shape", [(None, 4, 4, 2), (8, None, 4, 2)])
def test_an_unknown_shape_is_left_to_the_rule(probed, shape):
    set_depthwise("auto")
    assert choose_plan(shape, *CASE[1:]).kernel_gradient == "big_filter"
    assert probed == []


def test_several_processes_are_left_to_the_rule(probed, monkeypatch):
    set_depthwise("auto")
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert choose_plan(*CASE) == RULE
    assert probed == []


def test_pytorch_is_left_to_the_rule(probed, monkeypatch):
    set_depthwise("auto")
    monkeypatch.setattr(depthwise_plan, "backend_module", lambda: None)
    assert choose_plan(*CASE) == RULE
    assert probed == []


def test_plain_operations_are_native():
    set_depthwise("shifted")
    with plain_operations():
        assert choose_plan(*CASE) == Plan()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fast",), "The forward of .* 'fast'"),
        (("flipped",), "The forward of"),
        (("native", "big_filter"), "The input gradient of .* 'big_filter'"),
        (("native", "native", "rows"), "The kernel gradient of .*toeplitz_ro"),
    ],
)
def test_unknown_words(words, message, monkeypatch):
    with pytest.raises(ValueError, match=message):
        set_depthwise(*words)
    monkeypatch.setenv(VARIABLE, ",".join(words))
    with pytest.raises(ValueError, match=message):
        choose_plan(*CASE)


def test_too_many_words(monkeypatch):
    monkeypatch.setenv(VARIABLE, "auto,auto,auto,auto")
    with pytest.raises(ValueError, match=r"up to three words.*auto,auto,auto"):
        choose_plan(*CASE)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    "words",
    [
        ("shifted", "native", "shifted"),
        ("toeplitz_tiles",),
        ("native", "polyphase", "native"),
        ("pallas",),
    ],
)
def test_a_layer_computes_the_same_by_any_plan(words, data_format, caplog):
    set_depthwise(*words)
    x, dy, kernel = data((4, 5), (9, 7))
    expected = exact(x, dy, kernel)
    layer = DepthwiseConv2D(
        (4, 5), padding="same", use_bias=False, data_format=data_format
    )
    first = data_format == "channels_first"
    to, back = ((0, 3, 1, 2), (0, 2, 3, 1)) if first else ((0, 1, 2, 3),) * 2
    x, dy = (tf.transpose(a, to) for a in (x, dy))
    layer.build(x.shape)
    layer.kernel.assign(kernel)

    @tf.function
    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, *tape.gradient(y, [x, layer.kernel.value], dy)

    with caplog.at_level(logging.WARNING):
        y, dx, dkernel = step(x, dy)
    assert ("written for JAX" in caplog.text) == (words == ("pallas",))
    actual = tf.transpose(y, back), tf.transpose(dx, back), dkernel
    for ours, theirs in zip(actual, expected, strict=True):
        assert relative_difference(ours, theirs) < 2e-6
    set_depthwise()
    np.testing.assert_allclose(layer(x), y, atol=1e-5)


def test_only_same_padding_without_strides_has_forms(probed):
    set_depthwise("auto")
    x = data((4, 5), (9, 7))[0]
    for config in ({"padding": "valid"}, {"strides": 2}):
        DepthwiseConv2D(3, **{"padding": "same", **config})(x, training=True)
    assert probed == []
    DepthwiseConv2D(3, padding="same")(x, training=False)
    assert [case[0] for case in probed] == ["forward"]


ON_JAX = """
from convmixer_tf.layers.acceleration import plain_operations
from convmixer_tf.layers.depthwise_plan import choose_plan

def show(shape, kernel_size, trains=True):
    plan = choose_plan(shape, kernel_size, "bfloat16", trains)
    print(plan.forward, plan.input_gradient, plan.kernel_gradient)

show((8, 16, 64, 2), (5, 4))
show((8, 16, 65, 2), (5, 4))
show((None, None, None, 2), (5, 4))
show((8, 16, 64, 2), (5, 4), trains=False)
show((8, 16, 64, 2), (5, 3))
with plain_operations():
    show((8, 16, 64, 2), (5, 4))
"""


@pytest.mark.peer
def test_the_rule_of_jax_on_a_cpu():
    pytest.importorskip("jax")
    printed = run_python(ON_JAX, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    assert printed.splitlines() == [
        "shifted shifted toeplitz_lines",
        "shifted shifted shifted",
        "shifted shifted shifted",
        "shifted native native",
        "native native native",
        "native native native",
    ]
