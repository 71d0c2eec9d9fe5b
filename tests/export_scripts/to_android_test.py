"""Tests export/to_android.py."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from PIL import ImageOps

from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.export import export_android
from convmixer_tf.export import export_tflite
from convmixer_tf.export.metadata import TFLiteMetadata
from convmixer_tf.export.metadata import write_metadata
from convmixer_tf.export.verification.runtimes import open_runtime
from convmixer_tf.export.verification.runtimes import predict
from convmixer_tf.models import ConvMixer
from convmixer_tf.models import load_model
from tests.export_scripts.conftest import CLASSES
from tests.helpers import asymmetric_image
from tests.helpers import call_script

FILES = {
    "golden.json",
    "golden.png",
    "golden_pixels.png",
    "model.json",
    "model.tflite",
    "model.tflite.md",
}


@pytest.fixture(scope="module")
def tflite(folder):
    path = folder / "android.tflite"
    model = load_model(folder / "model.keras")
    export_tflite(
        *(model, path),
        class_names=CLASSES,
        description="Colors.",
        crop_fraction=0.8,
        orientation="exif",
    )
    (folder / "android.tflite.md").write_text("# Card")
    return path


@pytest.fixture(scope="module")
def photo(folder):
    return folder / "images" / "test" / "red" / "0.png"


def test_what_is_in_the_folder(tflite, photo, tmp_path):
    path = tmp_path / "assets"
    flags = (f"--model={tflite}", f"--image={photo}", f"--output={path}")
    result = call_script("export/to_android.py", *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    assert {file.name for file in path.iterdir()} == FILES
    assert (path / "model.tflite").read_bytes() == tflite.read_bytes()
    assert (path / "model.tflite.md").read_text() == "# Card"
    assert json.loads((path / "model.json").read_text()) == {
        "name": "toy",
        "description": "Colors.",
        "image_size": 16,
        "crop_fraction": 0.8,
        "orientation": "exif",
    }
    golden = json.loads((path / "golden.json").read_text())
    best, *others = golden["top"]
    assert (best["class"], best["index"]) == ("red", 2)
    assert f"| red | {best['score']:.4f} | ± 0.01 | ± 0.05 |" in result.stdout
    assert len(others) == 2  # It has no more classes.
    image = np.array(Image.open(photo))
    with Image.open(path / "golden.png") as golden_image:
        assert golden_image.getexif()[0x0112] == 6
        upright = ImageOps.exif_transpose(golden_image)
    assert np.array_equal(upright, image)
    pixels = resize_and_center_crop(image, 16, 0.8)
    assert np.array_equal(Image.open(path / "golden_pixels.png"), pixels)

    again = call_script("export/to_android.py", *flags)
    assert again.returncode == 1
    assert "Error: " in again.stderr
    assert "exists. To replace it" in again.stderr


@pytest.fixture
def half_red(folder, tmp_path):
    """A photograph: red above blue if upright, else side by side."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :45, 0] = 200
    pixels[:, 45:, 2] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "lying.png", exif=exif)
    return tmp_path / "lying.png"


@pytest.mark.slow
@pytest.mark.parametrize("said", [None, "exif", "stored"])
def test_images_are_turned_as_the_file_says(folder, half_red, tmp_path, said):
    path, assets = tmp_path / "model.tflite", tmp_path / "assets"
    model = load_model(folder / "model.keras")
    export_tflite(model, path, class_names=CLASSES, orientation=said)
    stored = np.array(Image.open(half_red))
    upright = np.array(ImageOps.exif_transpose(Image.open(half_red)))
    for argument in (None, "exif", "stored"):
        export_android(
            *(path, assets, half_red), orientation=argument, overwrite=True
        )
        known = json.loads((assets / "model.json").read_text())
        expected = argument or said or "exif"
        assert known["orientation"] == expected
        image = upright if expected == "exif" else stored
        # The pixels that the app reads, with or without rotation.
        with Image.open(assets / "golden.png") as golden:
            assert golden.getexif()[0x0112] == 6
            read = ImageOps.exif_transpose(golden)
            read = read if expected == "exif" else golden
            np.testing.assert_array_equal(read, image)
        np.testing.assert_array_equal(
            Image.open(assets / "golden_pixels.png"),
            resize_and_center_crop(image, 16, 0.96),
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["red", "other"])
def test_a_single_output_is_a_class_and_its_opposite(tmp_path, photo, name):
    model = ConvMixer(
        *(4, 1, 3, 4),
        input_shape=(8, 8, 3),
        classes=1,
        classifier_activation="sigmoid",
    )
    kernel, bias = model.get_layer("predictions").weights
    kernel.assign(0 * kernel)
    bias.assign([2 if name == "red" else -2])
    export_tflite(model, tmp_path / "model.tflite", class_names=(name,))
    golden = export_android(
        *(tmp_path / "model.tflite", tmp_path / "assets", photo)
    )
    best, other = golden["top"]
    assert best["score"] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-4)
    assert best["score"] + other["score"] == pytest.approx(1)
    names = {best["class"]: best["index"], other["class"]: other["index"]}
    assert names == {f"not {name}": 0, name: 1}
    assert best["class"] == ("red" if name == "red" else "not other")


def test_large_images_are_made_smaller(tflite, tmp_path):
    image = np.zeros((20, 3000, 3), np.uint8)
    image[..., 0] = 180
    Image.fromarray(image).save(tmp_path / "wide.png")
    export_android(tflite, tmp_path / "assets", tmp_path / "wide.png", top=1)
    with Image.open(tmp_path / "assets" / "golden.png") as smaller:
        assert ImageOps.exif_transpose(smaller).size == (1024, 7)


# Keras agrees.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are using a softmax")
def test_models_that_the_app_can_not_take(photo, tmp_path):
    path = tmp_path / "other.tflite"
    for shape, activation, maps, names, message in (
        ((8, 12, 3), "softmax", False, "ab", "square images with three chan"),
        ((8, 8, 3), "softmax", True, "ab", "are for the web page"),
        ((8, 8, 3), None, False, "ab", "returns logits"),
        ((8, 8, 3), "softmax", False, "a", "softmax of a single output"),
        ((8, 8, 3), "softmax", False, "ab", "classifies confidently"),
    ):
        model = ConvMixer(
            *(4, 1, 3, 4, "swish"),  # Its sigmoid is also in the file.
            input_shape=shape,
            classes=len(names),
            classifier_activation=activation,
        )
        # Both classes have the same probability for any image.
        for weight in model.get_layer("predictions").weights:
            weight.assign(0 * weight)
        export_tflite(
            *(model, path),
            class_names=tuple(names),
            class_activation_maps=maps,
            overwrite=True,
        )
        with pytest.raises(ValueError, match=message):
            export_android(path, tmp_path / "assets", photo, top=1)
    assert not (tmp_path / "assets").exists()


def test_files_that_the_app_can_not_take(tflite, photo, tmp_path):
    path, assets = tmp_path / "other.tflite", tmp_path / "assets"
    content = tflite.read_bytes()
    for metadata, message in (
        (TFLiteMetadata("x"), "has no names of the classes"),
        (
            TFLiteMetadata("x", class_names=CLASSES, mean=(127.5,)),
            r"pixels in \[0, 255\]",
        ),
    ):
        path.write_bytes(content)
        write_metadata(path, metadata)
        with pytest.raises(ValueError, match=message):
            export_android(path, assets, photo)
    path.write_bytes(content)
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(path, "a") as archive,
    ):
        archive.writestr("labels.txt", "blue\ngreen\n")
    with pytest.raises(ValueError, match="3 outputs, but 2 class names"):
        export_android(path, assets, photo)
    for changed, message in (
        (
            content.replace(b"TFLITE_METADATA", b"ANOTHER_PROGRAM"),
            "no metadata",
        ),
        (b"no such thing", "not a complete TFLite file"),
    ):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=message):
            export_android(path, assets, photo)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        export_android(tmp_path / "none.tflite", assets, photo)
    assert not assets.exists()


def test_bad_images_and_arguments(tflite, photo, tmp_path):
    assets = tmp_path / "assets"
    (tmp_path / "text.jpg").write_text("no image")
    for image, arguments, message in (
        (tmp_path / "text.jpg", {}, "can't be read. Expected a JPEG"),
        (photo, {"crop_fraction": 0}, "crop_fraction"),
        (photo, {"orientation": "upright"}, "`orientation` must be one of"),
        (photo, {"top": 0}, "`top` must be a positive integer"),
    ):
        with pytest.raises(ValueError, match=message):
            export_android(tflite, assets, image, **arguments)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        export_android(tflite, assets, tmp_path / "none.png")
    assert not assets.exists()
    (assets / "mine").mkdir(parents=True)
    with pytest.raises(FileExistsError, match=r"has no `model\.json`"):
        export_android(tflite, assets, photo, overwrite=True)


@pytest.mark.peer
@pytest.mark.parametrize(
    "quantization", ["float32", "float16", "dynamic", "int8"]
)
def test_mediapipe_finds_what_the_self_test_expects(
    folder, photo, quantization, tmp_path
):
    """Runs the app's library in Python on the app's pixels."""
    model = load_model(folder / "model.keras")
    images = asymmetric_image(16, 16, batch=20)
    path = tmp_path / "file.tflite"
    export_tflite(
        *(model, path),
        quantization=quantization,
        class_names=CLASSES,
        calibration_images=images if quantization == "int8" else None,
    )
    golden = export_android(path, tmp_path / "assets", photo)
    pixels = np.array(Image.open(tmp_path / "assets" / "golden_pixels.png"))
    with open_runtime(path, runtime="mediapipe") as runtime:
        (scores,) = predict(runtime, pixels[None])
    for entry in golden["top"]:
        difference = abs(scores[entry["index"]] - entry["score"])
        assert difference < golden["tolerances"]["cpu"] / 2
