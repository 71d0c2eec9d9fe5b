"""Tests the web page in headless Chromium: `pytest -m web`.

Needs Node.js, npm, the npm registry and Chromium, whose path may be in the
environment's CHROMIUM. The page's pictures go to the folder in SCREENSHOTS.
"""

import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from PIL import ImageOps
from sklearn.datasets import load_sample_images

from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.data.orientation import read_orientation
from convmixer_tf.export import export_web
from convmixer_tf.models import ConvMixer
from tests.helpers import OTHER_TAG
from tests.helpers import ROOT
from tests.helpers import exif
from tests.helpers import jpeg
from tests.helpers import oriented
from tests.helpers import randomize
from tests.web.comparison import compare

PAGE = ROOT / "export" / "web"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")
SIZE = 32

pytestmark = pytest.mark.web


def run(*command, **environment):
    result = subprocess.run(
        command,
        cwd=PAGE,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr
    return result.stdout


@pytest.fixture(scope="module", autouse=True)
def _page():
    """Builds the page from the locked packages."""
    for program in ("node", "npm", CHROMIUM):
        if not shutil.which(program):
            pytest.skip(f"the web page's tests need {program}")
    run("npm", "ci", "--no-audit", "--no-fund")
    run("npm", "run", "build")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """20 tiles of the model's size, and 20 JPEG files of other sizes."""
    folder = tmp_path_factory.mktemp("photos")
    for kind in ("tiles", "jpeg"):
        (folder / kind).mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        photo = Image.fromarray(load_sample_images().images[i % 2])
        side = int(rng.integers(100, 400))
        left, top = rng.integers(0, 640 - side), rng.integers(0, 427 - side)
        tile = photo.crop((left, top, left + side, top + side))
        tile.resize((SIZE, SIZE)).save(folder / "tiles" / f"{i:02}.png")
        width, height = rng.integers(40, 420, 2)
        part = photo.crop((left // 2, top // 2, left // 2 + width, height))
        part.save(folder / "jpeg" / f"{i:02}.jpg", quality=60 + 2 * i)
    return folder


@pytest.fixture(scope="module")
def models(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    model = ConvMixer(32, 2, 5, 2, input_shape=(SIZE, SIZE, 3), classes=6)
    randomize(model)
    images = [Image.open(path) for path in (photos / "tiles").iterdir()]
    for quantization in ("float32", "int8"):
        export_web(
            model,
            folder / str(quantization),
            NAMES,
            quantization=quantization,
            calibration_images=np.stack(images)
            if quantization == "int8"
            else None,
            crop_fraction=0.96 if quantization == "int8" else 1.0,
            description="Random weights, for a test.",
        )
    model = ConvMixer(
        *(16, 1, 5, 2),
        input_shape=(SIZE, SIZE, 3),
        classes=1,
        classifier_activation="sigmoid",
    )
    export_web(randomize(model), folder / "binary", NAMES[:1])
    return folder


@pytest.mark.parametrize(
    ("quantization", "bound"), [("float32", 1e-5), ("int8", 0.03)]
)
def test_it_finds_what_litert_finds(models, photos, quantization, bound):
    for kind in ("tiles", "jpeg"):
        paths = sorted((photos / kind).iterdir())
        report = compare(models / str(quantization), paths)
        exact = kind == "tiles" and quantization == "float32"
        assert report["images"] == 20
        assert report["same_pixels_difference"] < bound
        assert report["map_difference"] < bound
        assert report["agreement"] == 1
        assert report["pixel_difference_max"] <= (0 if exact else 1)
        assert report["pixels_that_differ"] < 1e-3


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """A photograph in all orientations, in three formats."""
    folder = tmp_path_factory.mktemp("turned")
    photo = Image.fromarray(load_sample_images().images[1][:61, :97])
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for name, options in (
            ("jpg", {"quality": 95}),
            ("png", {}),
            ("webp", {"lossless": True}),
        ):
            path = folder / f"{orientation}.{name}"
            photo.save(path, exif=exif, **options)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("orientation", ["exif", "stored"])
def test_photos_are_turned_as_in_python(models, turned, tmp_path, orientation):
    model = tmp_path / "model"
    shutil.copytree(models / "float32", model)
    known = json.loads((model / "model.json").read_text("utf-8"))
    assert known["orientation"] == "exif"
    known["orientation"] = orientation
    (model / "model.json").write_text(json.dumps(known), "utf-8")
    results = tmp_path / "results.json"
    run("node", "test/classify.js", str(model), str(results), *map(str, turned))
    found = json.loads(results.read_text("utf-8"))
    assert len(found) == len(turned) == 24
    for path, page in zip(turned, found, strict=True):
        image = Image.open(path)
        if orientation == "exif":
            image = ImageOps.exif_transpose(image)
        expected = resize_and_center_crop(np.array(image), SIZE, 1.0).numpy()
        pixels = np.array(page["pixels"]).reshape(expected.shape)
        assert np.abs(pixels - expected).max() <= 1, path.name


def unusual_files():
    """Yields files with unusual, malformed, truncated or damaged EXIF."""
    tag = (0x0112, 3, 1, 6)
    for content in (
        *(b"", exif(OTHER_TAG), exif((0x0112, 3, 1, 0)), exif(tag, tag)),
        *(exif((0x0112, 3, 1, 9)), exif((0x0112, 4, 1, 6))),
        *(exif((0x0112, 3, 2, 6)), exif(tag, start=2**32 - 1)),
        *(exif(tag, start=30), exif(tag).replace(b"II", b"MM")),
        *(exif(tag).replace(b"Exif", b"exif"), b"Exif\0\0II*\0"),
    ):
        yield jpeg(content)
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP"):
        for order in "<>":
            yield oriented(6, order, kind)
        whole = oriented(6, kind=kind)
        end = whole.index(b"II*\0") + len(exif(OTHER_TAG, OTHER_TAG)) - 6
        for length in range(0, end + 1, 3):
            yield whole[:length]
        for _ in range(100):
            damaged = bytearray(whole[: end + 20])
            for position in rng.integers(2, len(damaged), 3):
                damaged[position] = rng.integers(256)
            yield bytes(damaged)
    photo = oriented(8)
    for before in (b"\xff\xff", *(n * b"\xff\xe2\0\5abc" for n in (3, 63, 64))):
        yield photo[:2] + before + photo[2:]


def test_unusual_exif_is_read_as_in_python(tmp_path):
    paths, expected = [], []
    for i, content in enumerate(unusual_files()):
        paths.append(tmp_path / str(i))
        paths[-1].write_bytes(content)
        expected.append(int(read_orientation(content)))
    found = run("node", "test/orientations.js", *map(str, paths)).split()
    assert [*map(int, found)] == expected
    assert {1, 6, 8} <= {*expected}


def test_the_page(models, tmp_path):
    screenshots = pathlib.Path(os.environ.get("SCREENSHOTS", tmp_path))
    printed = run(
        *("npm", "test"),
        MODEL=os.environ.get("WEB_MODEL", str(models / "int8")),
        BINARY_MODEL=str(models / "binary"),
        PHOTO=os.environ.get("WEB_PHOTO", load_sample_images().filenames[0]),
        SCREENSHOTS=str(screenshots),
    )
    assert "fail 0" in printed
    assert "skipped 0" in printed
    for name in ("light", "dark", "phone", "empty"):
        assert (screenshots / f"{name}.png").stat().st_size > 10_000


def test_the_picture_in_the_readme_can_be_taken_again(models, tmp_path):
    picture = tmp_path / "page.png"
    photo = load_sample_images().filenames[0]
    run("npm", "run", "screenshot", "--", str(models / "int8"), photo, picture)
    committed = ROOT / "export" / "results" / "web_page.png"
    with Image.open(picture) as taken, Image.open(committed) as shown:
        assert taken.width == shown.width
    assert picture.stat().st_size > 100_000
