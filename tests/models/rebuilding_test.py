import zipfile

import keras
import numpy as np
import pytest

from convmixer_tf.models import ConvMixer
from convmixer_tf.models import save_model
from convmixer_tf.models.additions import ImageReading
from convmixer_tf.models.additions import parse_reading
from convmixer_tf.models.additions import read_class_names
from convmixer_tf.models.additions import read_crop_fraction
from convmixer_tf.models.additions import read_orientation
from convmixer_tf.models.rebuilding import read_arguments
from tests.helpers import asymmetric_image
from tests.helpers import randomize

ARGUMENTS = {
    "dim": 8,
    "depth": 2,
    "kernel_size": 3,
    "patch_size": 4,
    "activation": "relu",
    "input_shape": (20, 24, 3),
}


@pytest.mark.parametrize(
    "options",
    [
        {"mean": (0.3, 0.4, 0.5), "std": 0.2},
        {"include_preprocessing": False},
    ],
)
def test_the_same_model_comes_back(tmp_path, options):
    path = tmp_path / "model.keras"
    model = randomize(ConvMixer(**ARGUMENTS, **options, classes=4))
    model.save(path)
    again = ConvMixer(**read_arguments(path), weights=path, classes=4)
    images = asymmetric_image(20, 24)
    np.testing.assert_allclose(again(images), model(images), rtol=1e-5)
    assert again.input_shape == model.input_shape


def test_the_body_comes_back_for_other_classes_and_sizes(tmp_path):
    path = tmp_path / "model.keras"
    body = {"include_top": False, "pooling": "avg"}
    model = randomize(ConvMixer(**ARGUMENTS, classes=4))
    model.save(path)
    arguments = {**read_arguments(path), "input_shape": (12, 12, 3)}
    again = ConvMixer(
        **arguments, weights=path, classes=7, reset_classifier=True
    )
    assert again.output_shape == (None, 7)
    images = asymmetric_image(12, 12)
    features = [
        keras.Model(m.input, m.get_layer("avg_pool").output)(images)
        for m in (again, ConvMixer(**arguments, weights=path, **body))
    ]
    np.testing.assert_allclose(*features, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"activation": "gelu"},
            "has activation='relu', and .*it, or load the file with "
            "`models.load_model`.* Received: activation='gelu'",
        ),
        (
            {"mean": None},
            r"has mean=\[0.3, 0.4, 0.5\], .*: mean=\[0.485, 0.456, 0.406\]",
        ),
        ({"std": 0.3}, r"has std=\[0.2, 0.2, 0.2\], .*: std=\[0.3, 0.3, 0.3\]"),
    ],
)
def test_weights_of_a_model_that_computes_otherwise(tmp_path, options, message):
    path = tmp_path / "model.keras"
    arguments = {**ARGUMENTS, "mean": (0.3, 0.4, 0.5), "std": 0.2}
    ConvMixer(**arguments, classes=4).save(path)
    ConvMixer(**arguments, classes=4, weights=path)
    with pytest.raises(ValueError, match=message):
        ConvMixer(**{**arguments, **options}, classes=4, weights=path)
    # Without normalization, or with other channels.
    del arguments["mean"], arguments["std"]
    ConvMixer(**arguments, include_preprocessing=False, classes=4, weights=path)
    arguments["input_shape"] = (20, 24, 1)
    ConvMixer(**arguments, adapt_channels=True, classes=4, weights=path)


def test_a_name_of_two_lines_is_an_error(tmp_path):
    path = tmp_path / "model.keras"
    model = ConvMixer(**ARGUMENTS, classes=2)
    for name in ("a\nb", "a\r", "a\u2028b"):
        with pytest.raises(ValueError, match="names of one line each"):
            save_model(model, path, ("x", name), 0.9)
    assert not path.exists()
    save_model(model, path, ("x", "a b"), 0.9)
    assert read_class_names(path) == ("x", "a b")


def test_additions_to_no_file(tmp_path):
    for read in (read_class_names, read_crop_fraction, read_orientation):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            read(tmp_path / "none.keras")


def test_what_is_not_a_convmixer_is_an_error(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model.save(tmp_path / "dense.keras")
    (tmp_path / "text.keras").write_text("no model")
    for name, message in (
        ("dense.keras", "must be a ConvMixer, with the layers `patch_embed`"),
        ("text.keras", "Cannot read a model from"),
        ("model.h5", "must end in .keras"),
    ):
        with pytest.raises(ValueError, match=message):
            read_arguments(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_arguments(tmp_path / "none.keras")


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ('{"crop_fraction": 0.5}', ImageReading(0.5)),
        ('{"orientation": "stored"}', ImageReading(None, "stored")),
        ('{"max_pixel": 1}', ImageReading(max_pixel=1)),
        ('{"crop_fraction": 1, "other": 2}', ImageReading(1)),
    ],
)
def test_what_a_file_says_of_its_images(text, reading):
    assert parse_reading(text) == reading
    assert parse_reading(reading.text()) == reading


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "no JSON",
        '{"crop_fraction": 2}',
        '{"crop_fraction": "all"}',
        '{"orientation": "upright"}',
        '{"max_pixel": 2}',
    ],
)
def test_what_a_file_can_not_say(text):
    with pytest.raises(ValueError, match="must hold a `crop_fraction` from"):
        parse_reading(text)


@pytest.mark.parametrize("names", [("a", ""), ("a", "b\nc"), ("a", "\udcdf")])
def test_names_that_are_no_lines_are_not_saved(tmp_path, names):
    with pytest.raises(ValueError, match="must hold names of one line each"):
        save_model(None, tmp_path / "model.keras", names, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_names_in_a_file_that_others_wrote(tmp_path):
    path = tmp_path / "model.keras"
    for content, names in (
        ("\ufeffa\r\nélan\r\n\r\n".encode(), ("a", "élan")),
        ("a\nélan\n".encode("latin-1"), None),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("labels.txt", content)
        if names:
            assert read_class_names(path) == names
            continue
        with pytest.raises(ValueError, match=r"Line 2 of `.*model.keras, labe"):
            read_class_names(path)
