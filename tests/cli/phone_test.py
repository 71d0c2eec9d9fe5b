"""Tests `convmixer phone`, from photographs to files and a report."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest

from convmixer_tf.cli import main
from convmixer_tf.cli import phone
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import read_metadata
from tests.cli.conftest import CLASSES
from tests.helpers import write_images

pytestmark = pytest.mark.slow

FILES = {
    "finetune.json",
    "images.csv",
    "labels.txt",
    "model.keras",
    "model_float16.tflite",
    "model_float16.tflite.json",
    "model_float16.tflite.md",
    "model_int8.tflite",
    "model_int8.tflite.json",
    "model_int8.tflite.md",
    "phone.json",
    "report.html",
    "validation.csv",
}


@pytest.fixture(scope="module")
def arguments(photos, start):
    return ["phone", str(photos), f"--model={start}", "--frozen"]


@pytest.fixture(scope="module")
def mine(arguments, tmp_path_factory):
    """The result of an uninterrupted run, with app assets and page."""
    folder = tmp_path_factory.mktemp("mine") / "new"
    more = [f"--output={folder}", "--android", "--web"]
    assert main([*arguments, *more]) == 0
    return folder


def test_all_is_there(mine):
    found = {path.name for path in mine.iterdir()}
    others = {"model.md", "settings.json", "training"}
    others |= {"android", "web", "web_model.json", "web_model.md"}
    assert found >= FILES
    assert found - FILES <= others
    assert (mine / "android" / "golden.json").is_file()
    assert (mine / "web" / "model.json").is_file()
    assert (mine / "labels.txt").read_text() == "blue\ngreen\nred\n"


@pytest.mark.parametrize("quantization", phone.QUANTIZATIONS)
def test_files_are_verified_and_have_labels(mine, quantization):
    path = mine / f"model_{quantization}.tflite"
    assert read_metadata(path).class_names == CLASSES
    assert LiteRTModel(path).input_shape == (16, 16, 3)
    report = json.loads((mine / f"{path.name}.json").read_text())
    assert report["passed"]
    assert report["quantization"] == quantization
    assert report["images"] >= 10
    # The final head also learned from the validation images.
    assert report["accuracy"] is None


def test_the_report_stands_alone(mine):
    text = (mine / "report.html").read_text(encoding="utf-8")
    assert re.search(r"[\d.]+% on 12 photographs that were not used", text)
    assert "(95 % interval " in text
    assert "Always predicting the most frequent class" in text
    for title in (
        "What to do next",
        "Files",
        "Confusion matrix",
        "Most confident mistakes",
        "Training",
        "Photographs",
    ):
        assert f"<h2>{title}</h2>" in text
    assert "model_int8.tflite" in text
    assert text.count('src="data:image/jpeg;base64,') >= 4
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "<script" not in text


def test_the_same_command_does_not_learn_again(mine, arguments, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("learned again")

    monkeypatch.setattr(phone, "finetune", refuse)
    before = (mine / "model.keras").read_bytes()
    assert main([*arguments, f"--output={mine}"]) == 0
    assert (mine / "model.keras").read_bytes() == before


@pytest.mark.parametrize("number", [0, 1])
def test_after_a_stop_it_goes_on_to_the_same(
    number, mine, arguments, tmp_path, monkeypatch, capsys
):
    calls = []

    def stop(*args, **kwargs):
        calls.append(args)
        if len(calls) > number:
            raise KeyboardInterrupt
        return export(*args, **kwargs)

    export = phone.export_tflite
    output = f"--output={tmp_path / 'mine'}"
    with monkeypatch.context() as patch:
        patch.setattr(phone, "export_tflite", stop)
        assert main([*arguments, output]) == 130
    assert "Run the same command to resume" in capsys.readouterr().err
    assert not (tmp_path / "mine" / "report.html").exists()
    assert main([*arguments, output]) == 0
    for quantization in phone.QUANTIZATIONS:
        name = f"model_{quantization}.tflite"
        same = (mine / name).read_bytes()
        assert (tmp_path / "mine" / name).read_bytes() == same


@pytest.mark.large
def test_killed_while_it_learns_and_while_it_writes(start, tmp_path):
    write_images(tmp_path / "photos", CLASSES, 60, 24)
    command = ["phone", str(tmp_path / "photos"), f"--model={start}"]
    for sign in ("training/checkpoints/*", "model_float16.tflite"):
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "convmixer_tf", *command),
                f"--output={tmp_path / 'killed'}",
            ]
        )
        while not [*(tmp_path / "killed").glob(sign)]:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "killed" / "report.html").exists()
    for name in ("killed", "undisturbed"):
        assert main([*command, f"--output={tmp_path / name}"]) == 0
    report = tmp_path / "undisturbed" / "finetune.json"
    assert "all" in json.loads(report.read_text())["candidates"]
    for name in ("validation.csv", "model_float16.tflite", "model_int8.tflite"):
        same = (tmp_path / "undisturbed" / name).read_bytes()
        assert (tmp_path / "killed" / name).read_bytes() == same, name


def test_another_result_is_not_replaced(mine, arguments, capsys, tmp_path):
    write_images(tmp_path / "others", ("left", "right"), 20, 24)
    others = ["phone", str(tmp_path / "others"), *arguments[2:]]
    assert main([*others, f"--output={mine}"]) == 2
    assert "for other photographs or options" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    assert main([*arguments, f"--output={tmp_path / 'full'}"]) == 2
    assert "has other content" in capsys.readouterr().err
    assert [x.name for x in (tmp_path / "full").iterdir()] == ["letter.txt"]


def test_a_file_that_is_not_right_is_reported(
    arguments, tmp_path, monkeypatch, capsys
):
    def damage(*args, quantization, **kwargs):
        if quantization == "int8":
            raise ValueError("outside the limits: min_agreement")
        return export(*args, quantization=quantization, **kwargs)

    def refuse(*args, **kwargs):
        raise ValueError("the page is out")

    export = phone.export_tflite
    monkeypatch.setattr(phone, "export_tflite", damage)
    monkeypatch.setattr(phone, "export_web", refuse)
    assert main([*arguments, f"--output={tmp_path / 'mine'}", "--web"]) == 1
    printed = capsys.readouterr().out
    assert "model_int8.tflite was not written: outside the limits" in printed
    text = (tmp_path / "mine" / "report.html").read_text(encoding="utf-8")
    assert "model_int8.tflite was not written" in text
    assert "web was not written. the page is out" in text


@pytest.mark.parametrize(
    ("classes", "count", "message"),
    [
        (("one",), 20, "at least two classes"),
        (("left", "right"), 5, "at least 10 training photographs"),
    ],
)
def test_too_little_is_said_before_learning(
    classes, count, message, tmp_path, start, capsys
):
    write_images(tmp_path / "few", classes, count, 24)
    output = tmp_path / "mine"
    arguments = [str(tmp_path / "few"), f"--model={start}"]
    assert main(["phone", *arguments, f"--output={output}"]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()
