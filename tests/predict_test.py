"""Tests `python -m convmixer_tf.predict`."""

import csv
import io
import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from convmixer_tf import command_line
from convmixer_tf import predict
from convmixer_tf.data import pillow
from convmixer_tf.inference.formats import FORMATS
from convmixer_tf.models import ConvMixer
from convmixer_tf.models import ConvMixer256_8
from convmixer_tf.models import save_model
from convmixer_tf.models.variants import VARIANTS
from tests.helpers import ROOT
from tests.helpers import randomize
from tests.helpers import write_images
from tests.helpers import write_packaged

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def model():
    """Classifies the brightest of the three channels."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    dense = keras.layers.Dense(3, "softmax")
    model = keras.Model(inputs, dense(x))
    dense.set_weights([np.eye(3)[::-1] / 10, np.zeros(3)])
    return model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """Has `images/CLASS/*.png`, `model.keras` and `plain.keras`."""
    folder = tmp_path_factory.mktemp("predict")
    write_images(folder / "images", CLASSES, 4, 24)
    save_model(model, folder / "model.keras", CLASSES, 1.0)
    model.save(folder / "plain.keras")
    return folder


@pytest.fixture
def run(folder, capsys):
    """Runs it in this process; returns exit status, stdout and stderr."""

    def run(*arguments, model="model.keras"):
        arguments = [*arguments, "--model", folder / model]
        status = predict.main(list(map(str, arguments)))
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def images(folder):
    return folder / "images"


def test_table(run, images):
    status, printed, _ = run(images, "--top", "2", "--batch_size", "5")
    assert status == 0
    lines = printed.splitlines()
    assert len(lines) == 12
    for line in lines:
        true = re.search(r"images/(\w+)/", line)[1]
        assert re.search(rf"  {true} \d+\.\d%, \w+ \d+\.\d%$", line), line


def test_json(run, images, tmp_path):
    output = tmp_path / "predictions.json"
    arguments = (images, "--format", "json", "--output", output)
    status, printed, _ = run(*arguments)
    assert (status, printed) == (0, "")
    found = json.loads(output.read_text())
    assert len(found) == 12
    for entry in found:
        best, *others = entry["predictions"]
        assert f"/{best['class']}/" in entry["image"]
        assert CLASSES[best["index"]] == best["class"]
        total = best["probability"] + sum(x["probability"] for x in others)
        assert total == pytest.approx(1)
    status, _, message = run(*arguments)
    assert status == 2
    assert "exists. To replace it, pass `--overwrite`" in message
    assert run(*arguments, "--overwrite")[0] == 0


def test_csv(run, images):
    red = images / "red"
    _, printed, _ = run(red, "--format", "csv", "--top", "9")
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 4
    assert {row["class"] for row in rows[::3]} == {"red"}
    assert {row["index"] for row in rows[::3]} == {"2"}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["table", "json", "csv"])
def test_a_corrupt_image_does_not_stop_it(run, images, tmp_path, format):
    whole = (images / "red" / "0.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole)
    (tmp_path / "b.png").write_bytes(whole[:100])
    (tmp_path / "c.jpg").write_text("no image")
    (tmp_path / "d.png").write_bytes(whole)
    arguments = (tmp_path, "--format", format, "--batch_size", "2")
    status, printed, messages = run(*arguments)
    assert status == 1
    whys = [
        "unreadable: it is a truncated PNG. Copy it again.",
        "unreadable: it is not an image; JPEG, PNG, WebP, GIF and BMP are "
        "supported. It starts with b'no image'.",
    ]
    for name, why in zip(("b.png", "c.jpg"), whys, strict=True):
        assert f"`{tmp_path / name}` is {why}\n" in messages
    assert "2 of 4 images have no prediction." in messages
    assert "Skipped" not in messages  # Reported only once.
    if format == "json":
        errors = [entry.get("error") for entry in json.loads(printed)]
        assert errors == [None, *whys, None]
    elif format == "csv":
        rows = list(csv.DictReader(io.StringIO(printed)))
        assert len(rows) == 2 * 3 + 2
        wrong = [row for row in rows if row["error"]]
        names = [str(tmp_path / name) for name in ("b.png", "c.jpg")]
        assert [row["image"] for row in wrong] == names
        assert [row["error"] for row in wrong] == whys
        assert {row["class"] for row in wrong} == {""}
    else:
        assert printed.count("unreadable") == 2
        assert printed.count("  red ") == 2


@pytest.mark.slow
def test_a_missing_image_does_not_stop_it(run, images, tmp_path):
    missing = tmp_path / "nothere.jpg"
    status, printed, messages = run(images / "red", missing)
    assert status == 1
    assert len(printed.splitlines()) == 5
    why = "unreadable: the file does not exist."
    assert printed.endswith(f"{missing}  {why}\n")
    assert f"`{missing}` is {why}" in messages
    status, printed, _ = run(missing, "--format", "json")
    assert status == 1
    assert json.loads(printed) == [{"image": str(missing), "error": why}]


def test_what_is_skipped_in_a_folder(run, images, tmp_path, monkeypatch):
    with Image.open(images / "red" / "0.png") as image:
        image.save(tmp_path / "a.webp", lossless=True)
    for name in ("b.txt", "c.TXT", "d.svg", "e", ".hidden"):
        (tmp_path / name).touch()
    status, printed, messages = run(tmp_path)
    assert status == 0
    assert "a.webp  red " in printed
    assert "4 files skipped: 2 .txt, 1 .svg, 1 without suffix" in messages
    (tmp_path / "a.webp").unlink()
    (tmp_path / "f.heic").write_bytes(b"\0\0\0\x18ftypheic")
    monkeypatch.setattr(pillow, "_readable", tuple)
    status, _, messages = run(tmp_path)
    assert status == 2
    assert "5 files skipped" in messages
    assert "f.heic': It is a HEIC photograph" in messages
    assert "There are no images in" in messages


@pytest.mark.slow
def test_names_of_classes(run, images, tmp_path):
    image = images / "red" / "0.png"
    _, printed, _ = run(image, model="plain.keras")
    assert "  class 2 " in printed
    labels = tmp_path / "labels.txt"
    labels.write_text("bleu\nvert\nrouge\n")
    _, printed, _ = run(image, "--labels", labels)
    assert "  rouge " in printed
    labels.write_text("bleu\n")
    status, _, message = run(image, "--labels", labels)
    assert status == 2
    assert "has 3 classes, but there are 1 class names. (`--labels " in message


@pytest.mark.slow
def test_lists(run, images, tmp_path, monkeypatch):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{images / 'red' / '0.png'}\n\n{images / 'blue'}\n")
    _, printed, _ = run("--list", listed)
    assert len(printed.splitlines()) == 5
    content = io.BytesIO(b"\xef\xbb\xbf" + images.as_uri().encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    _, printed, _ = run("--list", "-")
    assert len(printed.splitlines()) == 12


@pytest.mark.slow
def test_text_files_of_other_editors(run, images, tmp_path):
    image, text = images / "red" / "0.png", tmp_path / "text.txt"
    text.write_bytes("\ufeffbleu\r\nvert\r\nrouge\r\n\r\n".encode())
    _, printed, _ = run(image, "--labels", text, "--top", "9")
    assert {"bleu", "vert", "rouge"} == set(re.findall(r"(\w+) \d", printed))
    text.write_bytes(f"\ufeff{image}\r\n\r\n".encode())
    status, printed, _ = run("--list", text)
    assert (status, len(printed.splitlines())) == (0, 1)
    for content, flag, why in (
        ("bleu\nvert\nrouge\n".encode("utf-16"), "--labels", "UTF-16"),
        ("bleu\nvert\nröd\n".encode("latin-1"), "--labels", "Line 3"),
        (b"", "--labels", "is empty"),
        (b"bleu\n\nvert\nrouge\n", "--labels", "Line 2"),
        (f"{image}\n".encode("utf-16"), "--list", "UTF-16"),
        ("/röd.png\n".encode("latin-1"), "--list", "Line 1"),
        (b"\n", "--list", "is empty"),
    ):
        text.write_bytes(content)
        arguments = [flag, text] + [image] * (flag == "--labels")
        status, printed, message = run(*arguments)
        assert (status, printed) == (2, "")
        assert f"`{text}`" in message
        assert why in message


@pytest.mark.parametrize("format", ["table", "json", "csv"])
@pytest.mark.parametrize("to_file", [False, True])
def test_names_that_are_not_utf8(run, images, tmp_path, format, to_file):
    """Checks that all images are classified and the output is valid."""
    whole = (images / "red" / "0.png").read_bytes()
    folder = tmp_path / os.fsdecode(b"stra\xdfe")
    folder.mkdir()
    for name in (b"\xff.png", b"good.png", b'line\nend\x1b[31m".png'):
        (folder / os.fsdecode(name)).write_bytes(whole)
    (folder / os.fsdecode(b"bad\xe4.png")).write_bytes(whole[:99])
    output = tmp_path / "output"
    arguments = ["--output", output] if to_file else []
    status, printed, messages = run(folder, "--format", format, *arguments)
    assert status == 1
    assert "stra\\xdfe/bad\\xe4.png` is unreadable" in messages
    if to_file:
        printed = output.read_bytes().decode("utf-8")
    named = [r"bad\xe4.png", "good.png", 'line\nend\x1b[31m".png', r"\xff.png"]
    if format == "table":
        assert len(printed.splitlines()) == 4
        assert r'line\nend\x1b[31m".png  red ' in printed
        assert printed.count("  red ") == 3
        return
    if format == "json":
        found = [entry["image"] for entry in json.loads(printed)]
    else:
        rows = list(csv.DictReader(io.StringIO(printed, newline="")))
        found = list(dict.fromkeys(row["image"] for row in rows))
    assert found == [f"{tmp_path}/stra\\xdfe/{name}" for name in named]


def test_a_list_of_names_that_are_not_utf8(run, images, tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"\xff.png")
    with open(path, "wb") as file:
        file.write((images / "red" / "0.png").read_bytes())
    (tmp_path / "list").write_bytes(path + b"\n")
    status, printed, _ = run("--list", tmp_path / "list")
    assert status == 0
    assert "/\\xff.png  red " in printed


@pytest.mark.parametrize("format", ["table", "json", "csv"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_no_numbers(run, folder, images, model, format, value):
    weights = model.get_weights()
    model.set_weights([np.full_like(weights[0], value), weights[1]])
    try:
        save_model(model, folder / "nan.keras", CLASSES, 1.0)
    finally:
        model.set_weights(weights)
    arguments = (images / "red", "--format", format)
    status, printed, messages = run(*arguments, model="nan.keras")
    assert status == 1
    why = "not classified: the model's outputs are NaN or infinite"
    assert messages.count(why) == printed.count(why) == 4
    assert "4 of 4 images have no prediction." in messages
    if format == "json":
        assert all(set(x) == {"image", "error"} for x in json.loads(printed))


@pytest.mark.slow
def test_one_logit(run, folder, images):
    """The model returns the redness of an image as a logit."""
    image = keras.Input((16, 16, 3))
    dense = keras.layers.Dense(1)
    x = keras.layers.GlobalAveragePooling2D()(image)
    binary = keras.Model(image, dense(x))
    dense.set_weights([np.array([[0.1], [-0.05], [-0.05]]), np.zeros(1)])
    binary.save(folder / "binary.keras")
    _, printed, _ = run(images / "red", model="binary.keras")
    assert printed.count("  class 1 ") == 4
    _, printed, _ = run(images / "blue", model="binary.keras")
    assert printed.count("  class 0 ") == 4
    assert "100.0%" not in printed
    labels = folder / "binary.txt"
    labels.write_text("red\n")
    arguments = (images / "blue", "--labels", labels, "--top", "1")
    _, printed, _ = run(*arguments, model="binary.keras")
    assert printed.count("  not red ") == 4


@pytest.mark.slow
def test_the_crop_is_the_models(run, images, tmp_path):
    """A frame of another color is kept or cropped."""
    pixels = np.full((100, 100, 3), (0, 0, 255), np.uint8)
    pixels[30:70, 30:70] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "framed.png")
    path = tmp_path / "framed.png"
    assert "  blue " in run(path, "--top", "1")[1]
    assert "  red " in run(path, "--top", "1", "--crop_fraction", "0.4")[1]


@pytest.mark.slow
def test_progress(run, images, monkeypatch):
    monkeypatch.setattr(predict, "_SECONDS_BETWEEN_LINES", 0)
    _, _, messages = run(images, "--batch_size", "4")
    assert re.search(r"^8 of 12 images, [\d,]+ images/s$", messages, re.M)
    assert re.search(r"^12 of 12 images, [\d,]+ images/s$", messages, re.M)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "No image. Name files or folders, or pass --list."),
        (["https://example.org/cat.jpg"], "Download other files first"),
        (["--list", "/no/list"], "/no/list"),
        (["{images}", "--crop_fraction", "0"], "`crop_fraction` must be from"),
        (
            ["{images}", "--image_size", "9"],
            "The model takes images of 16",
        ),
        (["{images}", "--labels", "/no/labels"], "/no/labels"),
        (
            ["{images}", "--output", "/no/where/x"],
            "The directory `/no/where` does not exist",
        ),
    ],
)
def test_errors(run, images, arguments, message):
    arguments = [x.format(images=images) for x in arguments]
    status, printed, messages = run(*arguments)
    assert (status, printed) == (2, "")
    assert messages.startswith("Error: ")
    assert message in messages


@pytest.mark.parametrize("top", ["0", "-1", "many"])
def test_wrong_numbers(run, images, capsys, top):
    with pytest.raises(SystemExit) as error:
        run(images, "--top", top)
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert f"must be a whole number, 1 or more. Received: {top}" in message


def test_no_model(run, images):
    status, _, message = run(images, model="gone.keras")
    assert status == 2
    assert "or one of 1536_20, 768_32, 1024_20, 512_16, 256_8" in message


@pytest.mark.large
def test_needs_core_dependencies_only(images, tmp_path):
    """Runs the packaged model in a process without extras."""
    write_packaged(randomize(ConvMixer256_8(weights=None)), tmp_path)
    extras = ["PIL", "matplotlib", "sklearn", "tensorboard", "tqdm", "torch"]
    extras += ["tensorflow_datasets", "ai_edge_litert", "litert_quantizer"]
    extras += ["onnx", "onnxruntime", "tf2onnx", "convmixer_tf.export"]
    code = (
        "import pathlib, runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({extras!r}))\n"
        "from convmixer_tf.weights import packaged\n"
        f"packaged.FOLDER = pathlib.Path({str(tmp_path)!r})\n"
        "runpy.run_module('convmixer_tf.predict', run_name='__main__')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, images / "red"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 4
    assert re.search(r"0\.png  \w+ \d+\.\d%, ", result.stdout)


@pytest.mark.large
def test_jax(images, tmp_path, capsys):
    pytest.importorskip("jax")
    model = ConvMixer(8, 1, 3, 4, input_shape=(16, 16, 3), classes=3)
    save_model(randomize(model), tmp_path / "model.keras", CLASSES, 1.0)
    arguments = [images / "red", "--model", tmp_path / "model.keras"]
    arguments = list(map(str, [*arguments, "--format", "csv"]))
    result = subprocess.run(
        [sys.executable, "-m", "convmixer_tf.predict", *arguments],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    assert predict.main(arguments) == 0
    rows, expected = (
        list(csv.DictReader(io.StringIO(text)))
        for text in (result.stdout, capsys.readouterr().out)
    )
    for row, other in zip(rows, expected, strict=True):
        assert row["class"] == other["class"]
        share = float(other["probability"])
        assert float(row["probability"]) == pytest.approx(share, abs=1e-5)


@pytest.mark.large
def test_a_reader_that_has_seen_enough(folder, images):
    command = [sys.executable, "-m", "convmixer_tf.predict"]
    command += [images, "--model", folder / "model.keras"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        process.stdout.close()
        messages = process.stderr.read().decode()
    assert "Traceback" not in messages
    assert "Broken pipe" not in messages


def test_the_command_line_knows_what_there_is():
    assert set(command_line.FORMATS) == set(FORMATS)
    assert set(command_line.VARIANTS) == set(VARIANTS)


def test_help_costs_no_import_of_tensorflow():
    command = [sys.executable, "-X", "importtime", "-m", "convmixer_tf.predict"]
    result = subprocess.run(
        [*command, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0
    assert result.stdout.startswith("usage: python -m convmixer_tf.predict")
    heavy = re.compile(r"\| +(tensorflow|keras)$", re.M)
    assert re.search(r"\| +argparse$", result.stderr, re.M)
    assert not heavy.search(result.stderr)
    result = subprocess.run(
        [*command, "--top", "0"], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 2
    assert not heavy.search(result.stderr)


@pytest.mark.large
def test_the_first_prediction_says_nothing_else(folder, images, tmp_path):
    """TensorFlow and the JPEG library write no messages."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    broken = bytearray(file.getvalue())
    broken[600:650] = bytes(50)
    path = tmp_path / "broken.jpg"
    path.write_bytes(broken)
    environment = dict(os.environ)
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    command = [sys.executable, "-m", "convmixer_tf.predict"]
    command += [images / "red" / "0.png", path]
    command += ["--model", folder / "model.keras"]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert result.returncode == 1
    assert "0.png  red " in result.stdout
    lines = result.stderr.splitlines()
    assert lines[-2:] == [
        f"`{path}` is unreadable: it is a damaged JPEG. Save it again as PNG.",
        "1 of 2 images have no prediction.",
    ]
    # A slow machine may print progress lines.
    assert all(re.match(r"\d+ s: ", line) for line in lines[:-2])
