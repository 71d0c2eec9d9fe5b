"""Which batches are timed, in which order, and what failures leave."""

import itertools
import time
import types

import pytest


@pytest.fixture
def rounds(load_recipe):
    return load_recipe("speed.rounds")


@pytest.fixture
def cases(load_recipe):
    case = load_recipe("speed.cases").Case
    return [
        case(*names)
        for names in itertools.product(
            ("16_2", "256_8"), ("infer", "train"), ("float32", "bfloat16")
        )
    ]


class FakeWorkers:
    """Contestants that take the seconds they are told to, by batch size.

    Of a list, the first; an exception is raised instead.
    """

    def __init__(self, seconds):
        self.seconds = seconds
        self.log = []

    def get(self, name, framework):
        def ask(limit, method, *arguments):
            if method == "prepare":
                worker.batch_size = arguments[2]
                self.log.append((name, worker.batch_size))
            else:
                self.log.append(name)
            seconds = self.seconds[name][worker.batch_size]
            if isinstance(seconds, list):
                seconds = 5.0 if method == "prepare" else seconds.pop(0)
            if isinstance(seconds, Exception):
                raise seconds
            return seconds

        worker = types.SimpleNamespace(ask=ask)
        return worker


@pytest.fixture
def run(rounds, cases):
    """Times a case; returns the entries, and what was asked of whom."""

    def run(times, entries=(), **plan):
        plan = {"device": "cpu", "together": True, "rounds": 3} | plan
        workers, reported = FakeWorkers(times), []
        store = rounds.Store(list(entries))
        rounds.measure(
            cases[0],
            list(times),
            rounds.Plan(**plan),
            workers,
            store,
            lambda entry, name: reported.append((name, entry["batch_size"])),
        )
        assert reported == [one for one in workers.log if len(one) == 2]
        return store.entries, workers.log

    return run


def test_contestants_take_turns(run):
    times = {"ours": {8: [1.0, 3.0, 2.0]}, "timm NCHW": {8: [4.0, 4.0, 8.0]}}
    (entry,), log = run(times)
    assert log == [("ours", 8), ("timm NCHW", 8)] + ["ours", "timm NCHW"] * 3
    assert entry == {
        "model": "16_2",
        "step": "infer",
        "dtype": "float32",
        "batch_size": 8,
        "ms_per_image": {"ours": 250, "timm NCHW": 500},
        "all_ms_per_image": {
            "ours": [125, 375, 250],
            "timm NCHW": [500, 500, 1000],
        },
        "first_step_s": {"ours": 5.0, "timm NCHW": 5.0},
        "failed": {},
    }


def test_batches_are_doubled_while_that_gains(rounds, run):
    # Per image: 1, 0.6, 0.59 s; and 1, 0.9, 0.8, 0.7, 0.7 s.
    times = {
        "ours": {4: 4.0, 8: 4.8, 16: 9.44},
        "timm NCHW": {4: 4.0, 8: 7.2, 16: 12.8, 32: 22.4, 64: 44.8},
    }
    entries, _ = run(times, batch_sizes=(2, 4), search=True)
    sizes = [entry["batch_size"] for entry in entries]
    assert sizes == [4, 8, 16, 32, 64]
    assert list(entries[2]["ms_per_image"]) == ["ours", "timm NCHW"]
    assert list(entries[3]["ms_per_image"]) == ["timm NCHW"]


def test_given_batches_are_all_timed(run):
    times = {"ours": {2: 1.0, 4: 9.0, 8: 99.0}}
    entries, _ = run(times, batch_sizes=(8, 2, 4))
    assert [entry["batch_size"] for entry in entries] == [2, 4, 8]


def test_lack_of_memory_ends_one_and_not_the_others(rounds, run):
    full = rounds.ContestantError("out of memory")
    times = {
        "ours": {2: 1.0, 4: 1.0, 8: 1.0},
        "timm NCHW": {2: 1.0, 4: full},
        "timm NHWC": {2: [1.0, full]},
    }
    entries, _ = run(times, batch_sizes=(2, 4, 8))
    assert [list(entry["ms_per_image"]) for entry in entries] == [
        ["ours", "timm NCHW"],
        ["ours"],
        ["ours"],
    ]
    assert [entry["failed"] for entry in entries] == [
        {"timm NHWC": "out of memory"},
        {"timm NCHW": "out of memory"},
        {},
    ]


def test_search_ends_where_memory_does(rounds, run):
    full = rounds.ContestantError("out of memory")
    entries, _ = run({"ours": {8: 1.0, 16: full}}, search=True)
    assert [entry["failed"] for entry in entries] == [
        {},
        {"ours": "out of memory"},
    ]


def test_what_is_known_is_not_timed_again(rounds, run):
    full = rounds.ContestantError("out of memory")
    times = {"ours": {8: 8.0, 16: full}}
    entries, _ = run(times, search=True)
    again, log = run(times, entries, search=True)
    assert log == []
    assert again == entries
    # An interrupted search goes on.
    entries, log = run({"ours": {16: 8.0, 32: 16.0}}, entries[:1], search=True)
    assert [one for one in log if len(one) == 2] == [("ours", 16), ("ours", 32)]
    assert len(entries) == 3


def test_what_failed_otherwise_is_tried_again(rounds, run):
    full = rounds.ContestantError("out of memory")
    slow = rounds.ContestantError("no answer within 3 s")
    times = {"ours": {8: slow}, "timm NCHW": {8: full}}
    entries, _ = run(times)
    (entry,), log = run({"ours": {8: 8.0}, "timm NCHW": {8: 8.0}}, entries)
    assert log == [("ours", 8)] + ["ours"] * 3
    assert entry["failed"] == {"timm NCHW": "out of memory"}
    assert list(entry["ms_per_image"]) == ["ours"]


def test_no_answer_is_awaited_beyond_the_deadline(rounds):
    now = time.monotonic()
    assert rounds.Plan("gpu", False, seconds=9.0).limit() == 9
    assert 7 < rounds.Plan("gpu", False, deadline=now + 8).limit() <= 8
    assert rounds.Plan("gpu", False, deadline=now - 1).limit() == 0


def test_another_contestant_joins_what_is_known(run):
    entries, _ = run({"ours": {8: 8.0}}, together=False)
    entries, log = run({"timm NCHW": {8: 8.0}}, entries, together=False)
    assert log[0] == ("timm NCHW", 8)
    (entry,) = entries
    assert list(entry["ms_per_image"]) == ["ours", "timm NCHW"]


def test_after_the_deadline_nothing_begins(rounds, run):
    entries, _ = run({"ours": {8: 8.0}})
    past = time.monotonic() - 1
    with pytest.raises(rounds.OutOfTimeError):
        run({"ours": {8: 8.0, 16: 8.0}}, entries, search=True, deadline=past)
    run({"ours": {8: 8.0}}, entries, deadline=past)


def test_few_rounds_must_do_if_seconds_are_over(run):
    (entry,), _ = run({"ours": {8: 8.0}}, rounds=9, seconds=-1.0)
    assert len(entry["all_ms_per_image"]["ours"]) == 3


def test_entries_are_saved_one_by_one(rounds, cases):
    saved = []
    store = rounds.Store([], lambda: saved.append(len(store.entries)))
    store.put(store.find(cases[0], 8))
    store.put(store.find(cases[0], 8))
    store.put(store.find(cases[1], 8))
    assert saved == [1, 1, 2]


def test_on_a_cpu_all_are_timed_at_once(rounds, cases):
    names = ["ours", "ours pure", "timm NCHW", "ours compiled"]
    plan = list(rounds.schedule(cases, names, "jax", True))
    assert [case for case, _ in plan] == cases
    assert plan[0][1] == plan[2][1] == plan[3][1] == ["ours", "timm NCHW"]
    assert plan[1][1] == ["ours", "ours pure", "timm NCHW"]
    (_, first), *_ = rounds.schedule(cases, names, "tensorflow", True)
    assert first == ["ours", "timm NCHW", "ours compiled"]


def test_names_say_who_it_is(load_recipe):
    cases = load_recipe("speed.cases")
    find, who = cases.find_contestant, cases.Contestant
    assert find("timm NCHW pure") == who("torch", False, pure=True)
    assert find("timm NHWC compiled pure") == who("torch", True, True, True)
    assert find("ours auto pure") == who("keras", pure=True, depthwise="auto")
    assert find("ours") == who("keras")
    for name in ("", "timm", "timm pure", "ours a b", "theirs"):
        with pytest.raises(ValueError, match=f"Received: '{name}'"):
            find(name)


def test_on_a_gpu_a_framework_has_it_for_a_model(rounds, cases):
    names = ["timm NHWC", "ours", "timm NCHW"]
    plan = list(rounds.schedule(cases, names, "jax", False))
    assert [names for _, names in plan[:12]] == [
        *[["timm NHWC"], ["timm NCHW"]] * 4,
        *[["ours"]] * 4,
    ]
    assert [case for case, _ in plan[8:12]] == cases[:4]
    assert {case.model for case, _ in plan[12:]} == {"256_8"}
