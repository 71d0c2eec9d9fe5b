"""Tests the common flags of the export scripts for model and images."""

import functools
import importlib
import re

import keras
import pytest
from absl import flags
from absl.testing import flagsaver

from convmixer_tf.models import ConvMixer
from tests.helpers import read_images_once
from tests.helpers import script_forgotten


@pytest.fixture
def answer(monkeypatch):
    """Returns the output for a line of flags, as one or more lines.

    Each model is loaded once, and so are the images of each folder.
    """
    with script_forgotten("export/to_tflite.py"):
        calibration_flags = importlib.import_module(
            "convmixer_tf.cli.calibration_flags"
        )
        export_flags = importlib.import_module("convmixer_tf.cli.export_flags")
        once = functools.cache(export_flags.open_model)
        monkeypatch.setattr(export_flags, "open_model", once)
        read_images_once(monkeypatch, {})

        def run(*arguments):
            flags.FLAGS(["script", *arguments])
            model, names = export_flags.load_model()
            images, labels = export_flags.load_images(model, names)
            yield " ".join(map(str, [len(images), *labels]))
            if any(x.startswith("--calibration=") for x in arguments):
                found = calibration_flags.load_images(model, (images, labels))
                yield f"{len(found)} to calibrate with"

        def answer(*arguments):
            lines = []
            with flagsaver.flagsaver():
                try:
                    lines.extend(run(*arguments))
                except (OSError, ValueError) as error:
                    text = " ".join(str(error).split())
                    lines.append(f"{type(error).__name__} {text}")
            return lines

        yield answer


@pytest.mark.slow
def test_models_and_images(answer, folder, model, tmp_path):
    images = f"--images={folder / 'images'}"
    flat = f"--images={folder / 'images' / 'test' / 'red'}"
    twelve = (images, "--split=test", "--limit=12")
    (tmp_path / "two.txt").write_text("blue\nred\n")
    (tmp_path / "pink.txt").write_text("blue\ngreen\npink\n")
    (tmp_path / "swapped.txt").write_text("red\ngreen\nblue\n")
    (tmp_path / "broken.keras").write_text("not a model")
    (tmp_path / "empty").mkdir()
    weights = tmp_path / "toy.weights.h5"
    copied = keras.saving.load_model(folder / "model.keras", compile=False)
    copied.save_weights(weights)
    body = ConvMixer(4, 1, 3, 4, include_top=False, input_shape=(16, 16, 3))
    body.save(tmp_path / "body.keras")
    paths = sorted((folder / "images" / "test").rglob("*.*"))[:12]
    several = tmp_path / "several.csv"
    lines = ["path,label,split", *(f"{x},red;blue,test" for x in paths)]
    several.write_text("\n".join(lines))
    known = "ValueError The model has 3 outputs, but there are "
    calibration = f"--calibration={folder / 'calibration'}"
    same = f"--calibration={folder / 'images'}"
    cases = {
        (model, *twelve): "12 0 0 0 0 1 .* 2 2$",
        (model, images, "--split=test", "--limit=9"): "ValueError "
        "Verifying needs at least 10 images. Received: 9",
        (
            *(model, *twelve, f"--labels={tmp_path / 'swapped.txt'}"),
        ): "12 2 2 2 2 1 .* 0 0$",
        (model, flat): "12( -1){12}$",
        (model, f"--images={several}", "--split=test"): "12( -1){12}$",
        ("--model=512_20", images): "FileNotFoundError The model must be",
        (
            f"--model={tmp_path / 'broken.keras'}",
            images,
        ): "ValueError Cannot read a model from `.*broken.keras`",
        (model, images, f"--labels={tmp_path / 'two.txt'}"): f"{known}2",
        (model, images, "--labels=imagenet"): f"{known}1000",
        (
            *(model, images, "--split=test"),
            f"--labels={tmp_path / 'pink.txt'}",
        ): "ValueError The model does not know the classes red of the data",
        (model,): "ValueError Verifying needs real images: pass --images",
        (model, images): "ValueError There is no folder",
        (
            model,
            f"--images={tmp_path / 'empty'}",
        ): "ValueError There is no folder .* It contains nothing. Add images",
        (model, images, "--image_size=32"): "ValueError The model takes "
        "images of 16 x 16 pixels. Received: --image_size=32",
        (f"--model={weights}", *twelve): "ValueError The file "
        "`.*toy.weights.h5` has no activation of its ConvMixer",
        (
            *(f"--model={weights}", "--activation=gelu"),
            *("--image_size=16", *twelve),
        ): "12 0 0 0 0 1 .* 2 2$",
        (f"--model={tmp_path / 'body.keras'}", *twelve): "12( -1){12}$",
        (model, *twelve, calibration): ("12 .*", "18 to calibrate with"),
        (*(model, *twelve, calibration, "--calibration_limit=9"),): (
            "12 .*",
            "ValueError .* at least 10 different images. Re",
        ),
        (model, *twelve, same, "--calibration_split=test"): (
            "12 .*",
            "ValueError 12 of the 36 images of --calibration are also in",
        ),
        (model, *twelve, "--calibration="): (
            "12 .*",
            "ValueError int8 needs --calibration, a folder",
        ),
    }
    for arguments, expected in cases.items():
        patterns = [expected] if isinstance(expected, str) else expected
        for line, pattern in zip(answer(*arguments), patterns, strict=True):
            assert re.match(pattern, line), (pattern, line)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "1024_20",
            "Weights: timm/convmixer_1024_20_ks9_p14.in1k on the Hugging Face "
            "hub. Published ImageNet accuracy (timm's table, 224 x 224, crop "
            "0.96; not measured with this file): top-1 76.944 %, top-5 93.364 "
            "%.",
        ),
        (
            "512_16",
            "Weights: https://storage.googleapis.com/keras-cv/models/"
            "convmixer_512_16/imagenet/classification-v0.h5. Published "
            "ImageNet accuracy (keras-cv's pull request 1325, 224 x 224, crop "
            "1.0; not measured with this file): top-1 74.38 %.",
        ),
    ],
)
def test_what_a_card_says_of_fetched_weights(name, text):
    with script_forgotten("export/to_tflite.py"):
        export_flags = importlib.import_module("convmixer_tf.cli.export_flags")
        with flagsaver.flagsaver():
            flags.FLAGS(["script", f"--model={name}"])
            assert " ".join(export_flags.published_accuracy().split()) == text
