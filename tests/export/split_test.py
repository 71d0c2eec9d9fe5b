"""Tests the splits of depthwise kernels and channels."""

import itertools
import json
import pathlib

import pytest

from convmixer_tf.export.split import choose_groups
from convmixer_tf.export.split import choose_parts
from convmixer_tf.export.split import offsets
from convmixer_tf.export.split import split_taps

RESULTS = pathlib.Path(__file__).parents[2] / "export/results/split.json"
TARGETS = {"float32": "litert", "int8": "litert_int8"}


def measured():
    return json.loads(RESULTS.read_text())["results"]


@pytest.mark.parametrize("case", measured(), ids=lambda c: str(c["side"]))
def test_the_fastest_split_that_was_measured(case):
    milliseconds = case["milliseconds"]
    parts = choose_parts(TARGETS[case["precision"]], case["kernel_size"])
    steps = [
        taps[1] - taps[0] if len(taps) < case["kernel_size"] else 1
        for taps in (parts[0].rows, parts[0].columns)
    ]
    prefix = "phases_{}x{},".format(*steps)
    times = [t for name, t in milliseconds.items() if name.startswith(prefix)]
    assert min(times) < 1.05 * min(milliseconds.values())


@pytest.mark.parametrize("target", ["litert", "litert_int8"])
@pytest.mark.parametrize("size", range(6, 33))
def test_every_large_kernel_is_split_into_small_ones(size, target):
    parts = choose_parts(target, size)
    assert len(parts) > 1
    for part in parts:
        assert len(part.rows) * len(part.columns) <= 25
        # No shifted copies: each part has taps on both sides.
        for taps in (part.rows, part.columns):
            assert taps[0] <= 0 <= taps[-1]


@pytest.mark.parametrize("size", range(1, 17))
def test_every_tap_is_in_one_part(size):
    whole = sorted(itertools.product(offsets(size), repeat=2))
    steps = range(1, min(3, (size + 1) // 2) + 1)
    for rows, columns in itertools.product(steps, repeat=2):
        parts = split_taps(size, rows, columns)
        assert len(parts) == rows * columns
        taps = [
            tap
            for part in parts
            for tap in itertools.product(part.rows, part.columns)
        ]
        assert sorted(taps) == whole


def test_even_kernels_look_further_ahead():
    assert offsets(4) == (-1, 0, 1, 2)
    assert offsets(5) == (-2, -1, 0, 1, 2)


@pytest.mark.parametrize(
    ("target", "size"),
    [("litert", 5), ("litert_int8", 5), ("float", 9), ("litert_dynamic", 5)],
)
def test_others_stay_whole(target, size):
    assert len(choose_parts(target, size)) == 1


def test_groups_of_channels():
    assert choose_groups("litert", 9, (16, 16), 1024) == (256,) * 4
    assert choose_groups("litert", 7, (32, 32), 768) == (128,) * 6
    assert choose_groups("litert", 7, (None, None), 768) == (256,) * 3
    assert choose_groups("litert", 7, (8, 8), 300) == (150, 150)
    assert choose_groups("litert", 5, (32, 32), 768) == (768,)
    assert choose_groups("float", 9, (16, 16), 1024) == (1024,)
    assert choose_groups("litert_int8", 9, (16, 16), 70) == (17, 18, 17, 18)
    assert choose_groups("litert_int8", 5, (16, 16), 70) == (35, 35)
    extreme = choose_groups("litert_int8", 5, (16, 16), 64, extreme=True)
    assert extreme == (16,) * 4
    assert choose_groups("litert_int8", 9, (16, 16), 15) == (15,)
