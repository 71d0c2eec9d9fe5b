"""The probe names the fastest form that is right, once."""

import json
import re
import types

import pytest

from convmixer_tf.layers import depthwise_probe
from convmixer_tf.layers.depthwise_probe import choose
from tests.helpers import run_python

pytest.importorskip("tensorflow")

CASE = ("forward", (8, 4, 4, 2), (3, 3), "float32")


class Machine:
    """Forms, a device and a clock that only the forms advance."""

    def __init__(self, monkeypatch, folder):
        self.now, self.calls = 0.0, 0
        self.seconds = {"native": 1.0, "fast": 0.25, "slow": 5.0}
        self.name = "a card"
        self.results = {}
        clock = types.SimpleNamespace(perf_counter=lambda: self.now)
        backend = types.SimpleNamespace(
            compiled=lambda function: function,
            device=lambda: ("gpu", self.name, "1.0"),
        )
        monkeypatch.setattr(depthwise_probe, "time", clock)
        monkeypatch.setattr(depthwise_probe, "backend_module", lambda: backend)
        monkeypatch.setattr(depthwise_probe, "forms_of", self.forms)
        monkeypatch.setenv(depthwise_probe.CACHE, str(folder))
        depthwise_probe.forget()

    def forms(self, name):
        return {form: self._form(form) for form in self.seconds}

    def _form(self, form):
        def compute(x, kernel):
            self.calls += 1
            self.now += self.seconds[form]
            result = self.results.get(form, lambda x: x)(x)
            if isinstance(result, Exception):
                raise result
            return result

        return compute


@pytest.fixture
def machine(monkeypatch, tmp_path):
    yield Machine(monkeypatch, tmp_path / "cache")
    depthwise_probe.forget()


def entry():
    (only,) = depthwise_probe.read_cache().values()
    return only


def test_the_fastest_is_chosen_and_kept(machine):
    assert choose(*CASE) == "fast"
    kept = entry()
    assert kept["form"] == "fast"
    assert kept["ms"] == {"native": 1000, "fast": 250, "slow": 5000}
    assert kept["seconds"] == machine.now
    # Two calls each, to compile and to compare; rounds of the contenders, of
    # which the one that is far too slow is none.
    assert machine.calls == 2 * 3 + 2 * depthwise_probe.ROUNDS


def test_what_is_known_is_not_measured_again(machine):
    choose(*CASE)
    calls = machine.calls
    assert choose(*CASE) == "fast"
    depthwise_probe.forget()  # as in another process
    machine.seconds["fast"] = 9.0
    assert choose(*CASE) == "fast"
    assert machine.calls == calls


@pytest.mark.parametrize(
    "other",
    [
        ("input_gradient", *CASE[1:]),
        ("forward", (8, 4, 4, 3), *CASE[2:]),
        ("forward", CASE[1], (5, 5), "float32"),
        ("forward", CASE[1], CASE[2], "bfloat16"),
    ],
)
def test_every_question_is_measured_by_itself(machine, other):
    choose(*CASE)
    machine.seconds["fast"] = 9.0
    assert choose(*other) == "native"
    assert len(depthwise_probe.read_cache()) == 2


def test_another_device_is_measured_by_itself(machine):
    choose(*CASE)
    machine.name, machine.seconds["fast"] = "another card", 9.0
    assert choose(*CASE) == "native"


def test_batches_of_similar_size_share_a_measurement(machine):
    choose(*CASE)
    calls = machine.calls
    assert choose("forward", (15, 4, 4, 2), *CASE[2:]) == "fast"
    assert machine.calls == calls


def test_a_huge_batch_is_measured_in_part(machine, monkeypatch):
    monkeypatch.setattr(depthwise_probe, "LARGEST", 4 * 4 * 2 * 5)
    choose("forward", (2**30, 4, 4, 2), *CASE[2:])
    (key,) = depthwise_probe.read_cache()
    assert "4x4x4x2" in key


def test_a_little_faster_is_not_worth_it(machine):
    machine.seconds["fast"] = 0.97
    assert choose(*CASE) == "native"


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (lambda x: RuntimeError("out of memory\nand more"), "out of memory$"),
        (lambda x: NotImplementedError("none here"), "none here"),
        (lambda x: x * 1.01, "differs from native by 0.01"),
        (lambda x: x * float("nan"), "differs from native by nan"),
    ],
)
def test_what_fails_or_is_wrong_is_left_out(machine, result, reason):
    machine.results["fast"] = result
    assert choose(*CASE) == "native"
    assert re.search(reason, entry()["left_out"]["fast"])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 3}', "\x00"])
def test_a_broken_file_is_replaced(machine, content):
    path = depthwise_probe.cache_path()
    path.parent.mkdir()
    path.write_text(content)
    assert choose(*CASE) == "fast"
    assert entry()["form"] == "fast"


def test_a_form_of_another_version_is_measured_anew(machine):
    choose(*CASE)
    del machine.seconds["fast"]
    depthwise_probe.forget()
    assert choose(*CASE) == "native"
    assert entry()["form"] == "native"


def test_a_folder_that_can_not_be_written(machine, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(depthwise_probe.CACHE, str(tmp_path / "file/folder"))
    assert choose(*CASE) == choose(*CASE) == "fast"
    calls = machine.calls
    choose(*CASE)
    assert machine.calls == calls


def test_what_another_process_kept_stays(machine):
    choose(*CASE)
    path = depthwise_probe.cache_path()
    others = {"theirs": {"form": "slow"}}
    path.write_text(json.dumps(others))
    choose("forward", CASE[1], (5, 5), "float32")
    kept = depthwise_probe.read_cache()
    assert kept["theirs"] == others["theirs"]
    assert len(kept) == 2


MEASURED = """
import json, sys
import keras, numpy as np
from convmixer_tf.layers import DepthwiseConv2D, depthwise_probe, set_depthwise
from tests.helpers import relative_difference

every = depthwise_probe.forms_of
few = ("native", "shifted", "toeplitz")
depthwise_probe.forms_of = lambda name: {f: every(name)[f] for f in few}
x = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype("float32")
model = keras.Sequential(
    [keras.Input((6, 5, 3)), DepthwiseConv2D(4, padding="same")]
)
model.compile("sgd", "mse")
initial = model.get_weights()
results = {}
for how in ("native", "auto"):
    set_depthwise(how)
    model.set_weights(initial)
    model.compile("sgd", "mse")  # Forgets what is compiled.
    predicted = model.predict(x, batch_size=2, verbose=0)
    model.fit(x, x, batch_size=2, verbose=0)
    results[how] = [predicted, *model.get_weights()]
for auto, native in zip(results["auto"], results["native"], strict=True):
    assert relative_difference(auto, native) < 1e-5
entries = depthwise_probe.read_cache()
print(json.dumps({key: e["ms"] for key, e in entries.items()}))
"""


@pytest.mark.parametrize(
    "backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.peer)]
)
def test_a_model_measures_while_it_is_compiled(backend, tmp_path):
    pytest.importorskip(backend)
    printed = run_python(
        MEASURED,
        KERAS_BACKEND=backend,
        **{depthwise_probe.CACHE: str(tmp_path)},
    )
    entries = json.loads(printed.splitlines()[-1])
    keys = [key.split(", ") for key in entries]
    assert all(key[1].startswith(backend) for key in keys)
    shapes = {(key[2], *key[3:]) for key in keys}
    every = ("2x6x5x3", "4x4", "float32")
    assert shapes == {
        ("forward", *every),
        ("input_gradient", *every),
        ("kernel_gradient", *every),
    }
    for measured in entries.values():
        assert set(measured) == {"native", "shifted", "toeplitz"}
