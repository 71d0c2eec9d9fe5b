"""What a run begins with: limits, and that it goes on as it began."""

import json

import pytest


@pytest.fixture
def device(load_recipe):
    return load_recipe("speed.device")


class FakeWorker:
    def __init__(self, **description):
        self.description = description
        self.asked = []

    def ask(self, seconds, *message):
        self.asked.append(message)
        return [0.5, 0.25, 0.125]


class FakeWorkers:
    def __init__(self, settings):
        self.settings = settings
        self.worker = FakeWorker(backend="jax", device="fake")

    def get(self, name, framework):
        return self.worker


@pytest.fixture
def workers(load_recipe):
    return FakeWorkers(load_recipe("speed.workers").Settings("cpu", 1))


@pytest.fixture
def begin(device, load_recipe, workers):
    plan = load_recipe("speed.rounds").Plan

    def begin(content, together=True, name="ours", dtypes=("float32",)):
        return device.begin(
            content, plan("cpu", together), workers, [name], dtypes
        )

    return begin


def test_limits_are_those_of_the_device(device, begin):
    content = begin({}, dtypes=("float32", "bfloat16"))
    limits = content["ceilings"]["keras"]
    side, size = device.MATRIX_SIDE["cpu"], device.COPY_BYTES["cpu"]
    rate = 2 * side**3 / 0.25
    assert limits["matrix"] == {"float32": rate, "bfloat16": rate}
    assert limits["copy"] == 2 * size / 0.25  # read and written
    other = {"matrix": {"float32": 2 * rate}, "copy": 1.0}
    assert device.highest({"torch": other, "keras": limits}) == {
        "float32": 2 * rate,
        "bfloat16": rate,
        "copy": 8 * size,
    }


def test_resumed_runs_measure_what_they_lack(begin, workers):
    content = json.loads(json.dumps(begin({}, dtypes=["bfloat16"])))
    content["results"].append("kept")
    workers.worker.asked.clear()
    again = begin(content, dtypes=["bfloat16", "float32"])
    (asked,) = workers.worker.asked
    assert asked[:3] == ("ceiling", "matrix", "float32")
    assert again["results"] == ["kept"]
    assert len(again["commands"]) == 2


def test_a_limit_that_is_not_measured_is_left_out(
    device, begin, workers, monkeypatch, capsys
):
    def ask(seconds, what, kind, *arguments):
        if kind == "copy":
            raise device.ContestantError("no answer within 1 s")
        return [0.5]

    monkeypatch.setattr(workers.worker, "ask", ask)
    content = begin({})
    assert "limits, keras: no answer within 1 s" in capsys.readouterr().out
    assert list(device.highest(content["ceilings"])) == ["float32"]


def test_a_run_goes_on_as_it_began(begin, workers):
    content = begin({})
    with pytest.raises(ValueError, match=r"began with, settings: .*together"):
        begin(content, together=False)
    workers.worker.description = {"device": "another"}
    with pytest.raises(ValueError, match=r"began with, keras: .*'another'"):
        begin(content)


def test_a_contestant_that_is_not_installed_is_named(
    device, begin, workers, monkeypatch
):
    def get(name, framework):
        raise device.ContestantError("ModuleNotFoundError: No timm")

    monkeypatch.setattr(workers, "get", get)
    message = "'timm NCHW' can't start: .*It needs torch and timm"
    with pytest.raises(device.ContestantError, match=message):
        begin({}, name="timm NCHW")
