"""Best batches, ratios, shares, tables and the picture."""

import pytest
from PIL import Image


@pytest.fixture
def report(load_recipe):
    return load_recipe("speed.report")


def entry(batch_size, **times):
    return {
        "model": "16_2",
        "step": "train",
        "dtype": "float32",
        "batch_size": batch_size,
        "ms_per_image": {
            name.replace("_", " "): sorted(many)[len(many) // 2]
            for name, many in times.items()
        },
        "all_ms_per_image": {
            name.replace("_", " "): many for name, many in times.items()
        },
        "first_step_s": {name.replace("_", " "): 4.0 for name in times},
        "failed": {},
    }


@pytest.fixture
def small():
    return entry(
        2,
        ours=[1.0, 2.0, 9.0, 2.0, 2.0],
        timm_NCHW=[5.0, 8.0, 6.0, 8.0, 8.0],
        timm_NHWC=[4.0, 4.0, 3.0, 5.0, 4.0],
    )


@pytest.fixture
def large():
    return entry(4, ours=[1.0] * 5, timm_NCHW=[9.0] * 5) | {
        "failed": {"timm NHWC": "out of memory"}
    }


def test_ratio_is_that_of_medians_with_timms_best(report, small):
    (summary,) = report.summarise([small])
    assert (summary["ours"], summary["timm"]) == ("ours", "timm NHWC")
    assert summary["ratio"] == 2 / 4
    # Round by round: 0.25, 0.4, 0.5, 0.5, 3.
    assert summary["ratio_quartiles"] == pytest.approx([0.4, 0.5])
    assert summary["predicted_ms_per_image"] is None


def test_each_has_the_batch_that_suits_it(report, small, large):
    (summary,) = report.summarise([small, large])
    batches = {name: b["batch_size"] for name, b in summary["best"].items()}
    assert batches == {"ours": 4, "timm NCHW": 2, "timm NHWC": 2}
    assert summary["ratio"] == 1 / 4
    # Not of the same rounds: all pairs of 1 with 3, 4, 4, 4, 5.
    assert summary["ratio_quartiles"] == pytest.approx([1 / 4, 1 / 4])


def test_rounds_that_were_not_neighbours_are_not_paired(report, small):
    (summary,) = report.summarise([small], together=False)
    # All 25 pairs: 1, 2, 2, 2 or 9 over 3, 4, 4, 4 or 5.
    assert summary["ratio_quartiles"] == pytest.approx([0.4, 2 / 3])


def test_share_is_of_all_multiplications(report, small):
    limits = {"float32": 1e9, "copy": 1e9}
    (summary,) = report.summarise([small], limits)
    best = summary["best"]["ours"]
    assert best["images_per_s"] == 500
    # Stem, two blocks of 3 x 3 and 1 x 1, classifier; three times for a step.
    macs = 3 * (64 * 16 * 48 + 2 * 64 * 16 * (9 + 16) + 16 * 10)
    assert best["tflop_per_s"] == pytest.approx(2 * macs * 500 / 1e12)
    assert best["share"] == pytest.approx(2 * macs * 500 / 1e9)
    # Maps that the stem, two blocks and the classifier read or write: see
    # costs_test.
    image, values, classes = 3 * 32 * 32, 64 * 16, 10
    stem = 3 * image + 7 * values
    moved = stem + 2 * 2 * 10 * values + 3 * values + 7 * classes
    assert best["copy_share"] == pytest.approx(4 * moved * 500 / 1e9)


def test_alone_there_is_no_ratio(report):
    alone = entry(2, ours=[1.0] * 3)
    (summary,) = report.summarise([alone])
    assert "ratio" not in summary
    assert summary["timm"] is None
    row = "| 16_2 | train | float32 | 1 (x2) | - | - | - | 1,000 | - | - | - |"
    assert report.table([summary]).splitlines()[-1] == row


def test_nothing_is_left_if_all_failed(report):
    failed = entry(2) | {"failed": {"ours": "out of memory"}}
    (summary,) = report.summarise([failed])
    assert summary["best"] == {}
    assert report.table([summary]).endswith("| - | - | - | - | - | - | - | - |")


def test_table_has_a_line_for_each_case(report, small, large):
    predicted = {"model": "16_2", "step": "train", "dtype": "float32"}
    summaries = report.summarise(
        [small, large],
        {"float32": 1.2e9, "copy": 2e9},
        [{**predicted, "dtype": "x"}, {**predicted, "unfused": 0.51234}],
    )
    lines = report.table([*summaries, *summaries]).splitlines()
    assert len(lines) == 4
    assert lines[3] == (
        "| 16_2 | train | float32 | 1 (x4) | 4 (NHWC x2) | 0.25 "
        "| 0.25 to 0.25 | 1,000 | 50% | 12% | 0.512 |"
    )


def test_progress_says_what_was_measured_and_what_failed(report, large):
    assert report.line(large, "timm NHWC") == (
        "16_2 train float32 x4 timm NHWC: out of memory"
    )
    line = report.line(large, "ours", {"float32": 1.2e9})
    assert line == (
        "16_2 train float32 x4 ours: 1 ms/image, 1000 images/s, "
        "0.000603 TFLOP/s, 50%, spread 0%, first step 4.0 s"
    )


def test_picture_has_a_panel_for_each_case(report, small, tmp_path):
    other = {**small, "model": "256_8", "dtype": "bfloat16"}
    failed = entry(2) | {"model": "768_32", "failed": {"ours": "no"}}
    summaries = report.summarise([small, other, failed])
    path = tmp_path / "plot.png"
    report.save_plot(path, summaries, "title")
    with Image.open(path) as image:
        pixels = image.convert("RGB")
    ours, timm = (
        tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))
        for color in report._COLORS.values()
    )
    third, half = pixels.width // 3, pixels.height // 2
    for column, row, drawn in [(0, 0, 1), (1, 1, 1), (0, 1, 0), (2, 0, 0)]:
        left, top = column * third, row * half
        panel = pixels.crop((left, top, left + third, top + half))
        colors = {color for _, color in panel.getcolors(1 << 20)}
        assert ({ours, timm} <= colors) == bool(drawn)
