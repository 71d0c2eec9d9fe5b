"""Tests finding the ConvMixer in a checkpoint."""

import pytest

from convmixer_tf.weights.finding import find_keras
from convmixer_tf.weights.finding import find_torch
from convmixer_tf.weights.names import to_keras
from tests.weights.samples import SMALL
from tests.weights.samples import assert_same
from tests.weights.samples import flat_names
from tests.weights.samples import random_state_dict
from tests.weights.samples import random_weights

NAMINGS = {"timm": lambda name: name, "authors": flat_names().get}


def prefixed(prefix, naming="timm", seed=0):
    """A state dict with a prefix before each name."""
    state_dict = random_state_dict(seed=seed)
    return {f"{prefix}{NAMINGS[naming](n)}": v for n, v in state_dict.items()}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize(
    "prefix",
    [
        "", "module.", "model.", "_orig_mod.", "timm_model.", "backbone.",
        "encoder.", "net.0.", "model._orig_mod.module.", "a.b-c.3.",
    ],
)  # fmt: skip
def test_prefix_is_found_and_the_rest_is_named(prefix, naming):
    beside = ["criterion.weight", "n_averaged"] if prefix else []
    entries = {
        **dict.fromkeys(beside[:1]),
        **prefixed(prefix, naming),
        **dict.fromkeys(beside[1:]),
    }
    inside, outside = find_torch({"": entries})
    assert_same(to_keras(inside), random_weights())
    assert outside == beside


@pytest.mark.parametrize(
    "place", ["model_state_dict", "net", "ema", "teacher", "weights", "a.b"]
)
def test_any_place(place):
    dictionaries = {"optimizer.state.0": {"exp_avg": 0}, place: prefixed("m.")}
    inside, outside = find_torch(dictionaries)
    assert_same(to_keras(inside), random_weights())
    assert not outside


def test_order_of_timm():
    places = ["state_dict_ema", "model_ema", "state_dict", "model"]
    for first in range(4):
        dictionaries = {
            place: prefixed("module.", seed=i)
            for i, place in reversed(list(enumerate(places[first:])))
        }
        inside, outside = find_torch(dictionaries)
        assert_same(to_keras(inside), random_weights(seed=0))
        assert not outside


@pytest.mark.parametrize(
    ("dictionaries", "names"),
    [
        (
            {"": {**prefixed("student."), **prefixed("teacher.", seed=1)}},
            ("student", "teacher"),
        ),
        ({"a": prefixed(""), "b": prefixed("", seed=1)}, ("a", "b")),
        (
            {"model": prefixed("module."), "ema": prefixed("m.", seed=1)},
            ("model.module", "ema.m"),
        ),
        (
            {"state_dict": {**prefixed("net."), **prefixed("ema.", seed=1)}},
            ("state_dict.ema", "state_dict.net"),
        ),
    ],
)
def test_several_must_be_chosen_from(dictionaries, names):
    listed = r"`, `".join(names)
    how = rf"key=\"{names[0]}\".*--key={names[0]}"
    with pytest.raises(
        ValueError, match=rf"2 ConvMixers: `{listed}`\. .*{how}"
    ):
        find_torch(dictionaries)
    seeds = set()
    for name in names:
        inside, _ = find_torch(dictionaries, name)
        stem = inside[next(x for x in inside if x.endswith("stem.0.weight"))]
        for seed in (0, 1):
            if (random_state_dict(seed=seed)["stem.0.weight"] == stem).all():
                seeds.add(seed)
    assert seeds == {0, 1}
    with pytest.raises(ValueError, match=rf"`key` must .*, `{listed}`\. Rec"):
        find_torch(dictionaries, "stu")


def test_first_parts_of_a_key():
    dictionaries = {"a": prefixed("m."), "b": prefixed("m.", seed=1)}
    inside, _ = find_torch(dictionaries, "b")
    assert_same(to_keras(inside), random_weights(seed=1))


def test_two_networks_of_which_one_is_a_convmixer():
    other = {"teacher.stem.0.weight": 0, "teacher.stages.0.weight": 0}
    inside, outside = find_torch({"": {**prefixed("student."), **other}})
    assert_same(to_keras(inside), random_weights())
    assert outside == list(other)


def test_no_convmixer():
    with pytest.raises(
        ValueError,
        match=r"holds no ConvMixer\. It holds 2 tensors under `state\.0` "
        r"\(exp_avg, step\)\.$",
    ):
        find_torch({"state.0": {"exp_avg": 0, "step": 0}})


@pytest.mark.parametrize("module", ["fc", "head.1", "head.fc", "classifier"])
def test_other_names_of_the_classifier(module):
    state_dict = random_state_dict()
    for name in ("weight", "bias"):
        state_dict[f"{module}.{name}"] = state_dict.pop(f"head.{name}")
    assert_same(to_keras(state_dict), random_weights())


@pytest.mark.parametrize("also", ["head.0.weight", "fc.weight", "fc.2.bias"])
def test_two_classifiers_are_foreign(also):
    state_dict = random_state_dict()
    state_dict[also] = state_dict["head.weight"]
    with pytest.raises(ValueError, match=rf"no ConvMixer has: {also}"):
        to_keras(state_dict)


def test_keras_layers_within_another_model():
    layers = {path.rpartition("/")[0]: 0 for path in SMALL.shapes()}
    nested = {f"outer/convmixer/{layer}": 0 for layer in layers}
    inside, outside = find_keras({**nested, "dense": 1})
    assert inside == layers
    assert outside == ["dense"]
    two = {**nested, **{f"teacher/{layer}": 0 for layer in layers}}
    with pytest.raises(ValueError, match="`outer/convmixer`, `teacher`"):
        find_keras(two)
    assert find_keras(two, "teacher")[0] == layers
