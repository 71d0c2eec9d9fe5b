"""Tests the report of `convmixer phone` with artificial results."""

import html.parser
import types

import numpy as np
import pytest

from convmixer_tf import ConvMixer
from convmixer_tf.cli.phone_report import Findings
from convmixer_tf.cli.phone_report import Picture
from convmixer_tf.cli.phone_report import write_report
from convmixer_tf.data import open_splits
from convmixer_tf.data import read_images
from tests.helpers import randomize
from tests.helpers import write_images

NAMES = ["ant", "<b>bee</b>", "cat"]
REPORT = types.SimpleNamespace(
    size=1_200_000,
    images=40,
    accuracy={"artifact": 0.9},
    agreement=0.975,
    agreement_interval=(0.871, 0.996),
)


def findings(**changes):
    labels = np.arange(40) % 3
    answers = np.where(np.arange(40) < 8, 2, labels)
    scores = np.full((40, 3), 0.1)
    scores[np.arange(40), answers] = np.linspace(0.5, 0.8, 40)
    image = np.zeros((8, 8, 3), np.uint8)
    mistake = Picture("photos/ant/<i>.jpg", 0, "ant", "cat", 0.5, image, image)
    run = {
        "class_names": NAMES,
        "multi_label": False,
        "model": "256_8",
        "kept": "head",
        "head_only_because": None,
        "image_size": 32,
        "images": {"train": 90, "validation": 40},
        "validation": {
            "top1": 0.85,
            "interval": [0.71, 0.93],
            "chance": 0.35,
        },
        "candidates": {
            "head": {"validation": {"top1": 0.85, "loss": 0.4}},
            "all": {"validation": {"top1": 0.8, "loss": 0.6}},
        },
    }
    values = {
        "folder": "mine",
        "run": run,
        "split": "validation",
        "probabilities": scores,
        "labels": labels,
        "counts": {
            "train": np.array([50, 10, 30]),
            "validation": np.array([14, 13, 13]),
        },
        "mistakes": [mistake],
        "examples": [],
        "reports": {"model_int8.tflite": REPORT},
        "failures": {"model_float16.tflite": "outside the limits"},
        "milliseconds": {"model_int8.tflite": 1.5},
    }
    return Findings(**{**values, **changes})


class Reader(html.parser.HTMLParser):
    """Checks the nesting of tags and collects text."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(found, path):
    found.folder = path.parent
    (path.parent / "model.keras").write_bytes(bytes(2_500_000))
    write_report(path, found)
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return "".join(reader.text)


def test_what_it_says(tmp_path):
    text = read(findings(), tmp_path / "report.html")
    assert (
        "The accuracy is 85.0% on 40 photographs that were not used for "
        "training (95 % interval 71.0% to 93.0%). Always predicting the most "
        "frequent class would give 35.0%." in text
    )
    assert "first of “<b>bee</b>”, which has 10 training" in text
    assert "classify “ant” as “cat” (3 times)" in text
    assert "22 points wide because it was measured on only 40" in text
    assert "model.keras2.50 MB85.0%--" in text
    assert "1.20 MB90.0%97.5% (87.1% to 99.6%)1.50 ms" in text
    assert "model_float16.tflite was not written. outside the limits" in text
    assert "1 of 6. The right picture of each" in text
    assert "“cat”, 50%; the label is “ant”ant/<i>.jpg" in text
    assert "pretrained features, kept85.0%0.400all weights80.0%0.600" in text


def test_the_confusions():
    found = findings()
    confusion = found.confusion()
    assert confusion.sum() == 40
    assert confusion[0, 2] == 3
    assert confusion[1, 2] == 3
    surest = found.surest()
    assert surest[0] == 39
    assert not set(surest) & {0, 1, 3, 4, 6, 7}


def test_many_classes_are_listed_by_pairs(tmp_path):
    labels = np.arange(60) % 30
    scores = np.eye(30)[np.where(labels == 3, 4, labels)]
    run = findings().run | {"class_names": [f"k{i}" for i in range(30)]}
    found = findings(
        probabilities=scores,
        labels=labels,
        run=run,
        counts={"train": np.full(30, 200)},
    )
    text = read(found, tmp_path / "report.html")
    assert "labelpredictionphotographsk3k42" in text


def test_several_labels_an_image(tmp_path):
    run = findings().run | {
        "multi_label": True,
        "validation": {"mean_average_precision": 0.7},
        "candidates": {
            "head": {"validation": {"mean_average_precision": 0.7, "loss": 1}}
        },
    }
    found = findings(run=run, labels=np.ones((40, 3), int), mistakes=[])
    text = read(found, tmp_path / "report.html")
    assert "The mean average precision is 70.0% on 40" in text
    assert "Confusion matrix" not in text


@pytest.mark.parametrize(("split", "biased"), [("test", 0), ("validation", 1)])
def test_images_for_selection_bias_the_accuracy(split, biased):
    run = findings().run | {"test": findings().run["validation"]}
    lines = findings(split=split, run=run).advice()
    assert sum("slightly too high" in line for line in lines) == biased


def test_pictures_show_the_measured_answers(tmp_path):
    write_images(tmp_path / "photos", ("blue", "green"), 10, 16)
    splits = open_splits(str(tmp_path / "photos"))
    model = randomize(ConvMixer(8, 1, 3, 4, input_shape=(16, 16, 3), classes=2))
    pixels, labels = read_images(splits.validation, 16, crop_fraction=1)
    # The model has changed since: it no longer gives these wrong answers.
    scores = np.where(labels[:, None] == [0, 1], 0.2, 0.8)
    rows = "\n".join(",".join(map(str, row)) for row in scores)
    (tmp_path / "validation.csv").write_text(f"blue,green\n{rows}\n")
    names = [str(i) for i in range(len(labels))]
    found = Findings.of(
        tmp_path,
        model,
        splits,
        {
            "class_names": ["blue", "green"],
            "crop_fraction": 1.0,
            "orientation": "exif",
        },
        (splits.validation, pixels, labels, names),
        {},
        {},
    )
    assert len(found.mistakes) == len(labels)
    for picture in found.mistakes:
        assert picture.answer != picture.truth
        assert picture.probability == pytest.approx(0.8)
