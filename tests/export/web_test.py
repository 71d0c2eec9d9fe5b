"""Tests the model folder of the web page."""

import json

import pytest

from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import export_web
from convmixer_tf.export import read_metadata
from convmixer_tf.models import ConvMixer
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference

NAMES = ("ant", "bee", "狐")


def convmixer(shape=(16, 16, 3), **arguments):
    arguments = {"classes": 3, **arguments}
    return ConvMixer(8, 1, 3, 4, input_shape=shape, **arguments)


@pytest.mark.slow
def test_what_is_in_the_folder(tmp_path):
    model, folder = randomize(convmixer(name="tiny")), tmp_path / "model"
    export_web(model, folder, NAMES, description="Three.", crop_fraction=0.5)
    assert {p.name for p in folder.iterdir()} == {"model.json", "model.tflite"}
    assert json.loads((folder / "model.json").read_text("utf-8")) == {
        "name": "tiny",
        "description": "Three.",
        "image_size": 16,
        "crop_fraction": 0.5,
        "orientation": "exif",
        "class_names": list(NAMES),
    }
    images = asymmetric_image(16, 16)
    outputs = LiteRTModel(folder / "model.tflite").predict(images)
    assert relative_difference(outputs, model(images)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("names", [("cat",), ("not cat", "cat")])
def test_a_single_output_has_two_names(tmp_path, names):
    model = convmixer(classes=1, classifier_activation="sigmoid")
    export_web(model, tmp_path / "model", names)
    known = json.loads((tmp_path / "model" / "model.json").read_text("utf-8"))
    assert known["class_names"] == ["not cat", "cat"]
    metadata = read_metadata(tmp_path / "model" / "model.tflite")
    assert metadata.class_names == ("cat",)


@pytest.mark.slow
def test_the_orientation_is_written(tmp_path):
    model, folder = convmixer(), tmp_path / "model"
    export_web(model, folder, NAMES, orientation="stored")
    known = json.loads((folder / "model.json").read_text("utf-8"))
    assert known["orientation"] == "stored"


def test_errors_leave_no_folder(tmp_path):
    folder = tmp_path / "model"
    for arguments, message in (
        ((convmixer((16, 12, 3)), NAMES), "square images of a static size"),
        ((convmixer((None, None, 3)), NAMES), "square images of a static size"),
        ((convmixer((16, 16, 1)), NAMES), "square images of a static size"),
        ((convmixer(), None), "needs the names of the classes"),
        ((convmixer(), NAMES[:2]), "must be 3 class names"),
        ((convmixer(), "abc"), "must be 3 class names"),
        ((convmixer(), [0, 1, 2]), "must be 3 class names"),
        (
            (convmixer(classifier_activation=None), NAMES),
            "needs probabilities, but the model returns logits",
        ),
        ((convmixer(classes=1), NAMES[:1]), "softmax of a single output"),
        (
            (convmixer(include_preprocessing=False), NAMES),
            r"must take pixels in \[0, 255\]",
        ),
    ):
        model, names = arguments
        with pytest.raises(ValueError, match=message):
            export_web(model, folder, names)
    with pytest.raises(ValueError, match="crop_fraction"):
        export_web(convmixer(), folder, NAMES, crop_fraction=0)
    with pytest.raises(ValueError, match="`orientation` must be one of"):
        export_web(convmixer(), folder, NAMES, orientation="upright")
    assert list(tmp_path.iterdir()) == []
    (folder / "mine").mkdir(parents=True)
    with pytest.raises(FileExistsError, match=r"has no `model\.json`"):
        export_web(convmixer(), folder, NAMES, overwrite=True)
