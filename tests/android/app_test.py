"""The Android app in `export/android`: `pytest -m android`.

There is no Android SDK here. All Kotlin files of the app, including its tests
and build files, are compiled against the declarations in `stubs`, with warnings
as errors. Code that needs no Android runs on Java. It needs Java 17, and

    pip install --no-deps kotlin-jupyter-kernel==0.19.0.944
    apt-get install junit4 libandroid-json-java aapt android-framework-res

The first installs a Kotlin 2.4 compiler, which is set to Kotlin 2.2. The second
installs JUnit, Android's JSON library, and a resource compiler with the
resources of Android 10.
"""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from PIL import ImageOps

from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import android
from convmixer_tf.export import export_android
from convmixer_tf.export import export_tflite
from convmixer_tf.models import ConvMixer
from tests.helpers import ROOT
from tests.helpers import asymmetric_image
from tests.helpers import randomize

APP = ROOT / "export" / "android"
MAIN = APP / "app" / "src" / "main"
RESOURCES = MAIN / "res"
HERE = pathlib.Path(__file__).parent
PACKAGE = "com.example.convmixer"
JAVA = pathlib.Path("/usr/share/java")
LIBRARIES = ("junit4.jar", "hamcrest-core.jar", "com.android.json.jar")
FRAMEWORK = "/usr/share/android-framework-res/framework-res.apk"
GRADLE = ("settings.gradle.kts", "build.gradle.kts", "app/build.gradle.kts")
ANDROID = "{http://schemas.android.com/apk/res/android}"

pytestmark = pytest.mark.android


def read(name):
    return (APP / name).read_text(encoding="utf-8")


def run(*command):
    result = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-6000:]
    return output


def find_jars():
    """Finds the Kotlin compiler, its library and the tests' libraries."""
    if not shutil.which("java"):
        pytest.skip("the Android app's tests need Java 17: `java`")
    spec = importlib.util.find_spec("run_kotlin_kernel")
    if spec is None:
        pytest.skip("the Android app's tests need kotlin-jupyter-kernel (pip)")
    jars = pathlib.Path(*spec.submodule_search_locations) / "jars"
    (compiler,) = jars.glob("kotlin-jupyter-kernel-*-all.jar")
    (library,) = jars.glob("kotlin-stdlib-*.jar")
    others = [JAVA / name for name in LIBRARIES]
    for path in others:
        if not path.exists():
            pytest.skip(f"the Android app's tests need {path} (apt)")
    return compiler, [library, *others]


def write_resource_numbers(path):
    """Writes the class R, like the Android plugin from the resources."""
    names = {}
    for file in RESOURCES.rglob("*.xml"):
        kind = file.parent.name.split("-")[0]
        if kind == "values":
            for entry in ET.parse(file).getroot():
                names.setdefault(entry.tag, set()).add(entry.get("name"))
        else:
            names.setdefault(kind, set()).add(file.stem)
        ids = re.findall(r'"@\+id/(\w+)"', file.read_text("utf-8"))
        names.setdefault("id", set()).update(ids)
    lines = [f"package {PACKAGE}", "object R {"]
    for kind, entries in names.items():
        constants = [
            f"const val {name} = {i}" for i, name in enumerate(entries)
        ]
        lines += [f"object {kind} {{", *constants, "}"]
    path.write_text("\n".join([*lines, "}"]))


def write_build_files(folder):
    """Converts the Gradle files, which are Kotlin scripts, to functions."""
    for i, name in enumerate(GRADLE):
        lines = read(name).splitlines()
        imports = [line for line in lines if line.startswith("import ")]
        others = [line for line in lines if not line.startswith("import ")]
        body = [*imports, f"fun build{i}() {{", *others, "}"]
        (folder / f"build{i}.kt").write_text("\n".join(body))


@pytest.fixture(scope="module")
def classpath(tmp_path_factory):
    """Compiles everything."""
    compiler, libraries = find_jars()
    folder = tmp_path_factory.mktemp("kotlin")
    write_resource_numbers(folder / "R.kt")
    write_build_files(folder)
    libraries = os.pathsep.join(map(str, libraries))
    run(
        *("java", "-Xmx1g", "-XX:TieredStopAtLevel=1"),
        *("-cp", f"{compiler}{os.pathsep}{libraries}"),
        "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler",
        *("-no-stdlib", "-no-reflect", "-cp", libraries),
        *("-language-version", "2.2", "-api-version", "2.2"),
        *("-jvm-target", "17", "-Wextra", "-Werror", "-d", folder / "classes"),
        *(APP / "app" / "src", HERE, *folder.glob("*.kt")),
    )
    return f"{folder / 'classes'}{os.pathsep}{libraries}"


@pytest.fixture(scope="module")
def harness(classpath):
    """Runs `Harness.kt`."""
    return lambda *arguments: run(
        "java", "-cp", classpath, f"{PACKAGE}.HarnessKt", *arguments
    )


def test_the_apps_own_tests(classpath):
    files = sorted((APP / "app" / "src" / "test").rglob("*Test.kt"))
    tests = sum(file.read_text("utf-8").count("@Test") for file in files)
    names = [f"{PACKAGE}.{file.stem}" for file in files]
    printed = run(
        "java", "-cp", classpath, "org.junit.runner.JUnitCore", *names
    )
    assert f"OK ({tests} tests)" in printed
    assert tests > 20


def write_cases(folder):
    """Writes images of all shapes and orientations with expected results."""
    expected = {}
    lines = []
    sides = ((45, 31), (31, 45), (300, 401), (33, 640), (32, 32), (9, 7))
    wanted = ((16, 0.96), (32, 1.0), (32, 0.875), (24, 0.96))
    for i in range(24):
        orientation = i % 8 + 1
        height, width = sides[i % len(sides)]
        size, crop = wanted[i // 6]
        pixels = asymmetric_image(height, width, seed=i)[0]
        # Hard edges make the filter overshoot, so that values are clipped.
        pixels[: height // 3, width // 2 :] = 255
        pixels[height // 2 :, : width // 4] = 0
        opaque = np.dstack([pixels, np.full((height, width), 255, np.uint8)])
        (folder / f"{i}.rgba").write_bytes(opaque.tobytes())
        image = Image.fromarray(pixels)
        image.getexif()[0x0112] = orientation
        turned = np.array(ImageOps.exif_transpose(image))
        expected[i] = resize_and_center_crop(turned, size, crop).numpy()
        lines.append(f"{i} {width} {height} {orientation} {size} {crop}")
    (folder / "cases.txt").write_text("\n".join(lines))
    return expected


def test_pixels_are_those_of_the_evaluation_transform(harness, tmp_path):
    expected = write_cases(tmp_path)
    harness("transform", tmp_path)
    differences = []
    for i, pixels in expected.items():
        found = np.fromfile(tmp_path / f"{i}.rgb", np.uint8)
        found = found.reshape(pixels.shape).astype(int)
        differences.append(np.abs(found - pixels).ravel())
    differences = np.concatenate(differences)
    assert differences.max() <= 1
    assert np.mean(differences > 0) < 1e-3


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """The assets from `export_android` for a confident model."""
    folder = tmp_path_factory.mktemp("assets")
    model = randomize(
        ConvMixer(16, 1, 3, 4, input_shape=(24, 24, 3), classes=4)
    )
    head = model.get_layer("predictions")
    head.kernel.assign(20 * head.kernel)
    names = ("ant", "bee", "c\u0103t", "dog")
    export_tflite(model, folder / "file.tflite", class_names=names)
    photo = asymmetric_image(80, 61)[0]
    Image.fromarray(photo).save(folder / "photo.png")
    export_android(
        *(folder / "file.tflite", folder / "assets", folder / "photo.png"),
        crop_fraction=0.9,
    )
    return folder / "assets"


def test_the_self_test_on_real_assets(harness, assets, tmp_path):
    """Tests everything except Android's decoder and MediaPipe."""
    pixels, scores = tmp_path / "pixels", tmp_path / "scores"
    harness("prepare", assets, pixels)
    image = np.fromfile(pixels, np.uint8).reshape(1, 24, 24, 3)
    (found,) = LiteRTModel(assets / "model.tflite").predict(image)

    def judge(values):
        names = ("ant", "bee", "c\u0103t", "dog")
        rows = [f"{names[i]}\t{i}\t{x}" for i, x in enumerate(values)]
        scores.write_text("\n".join(rows), encoding="utf-8")
        return harness("judge", assets, pixels, scores).split()

    passed, pixel_difference, score_difference = judge(found)
    assert passed == "true"
    assert int(pixel_difference) <= 1
    assert float(score_difference) < 0.01
    assert judge(found[::-1])[0] == "false"
    np.roll(image, 1, axis=1).tofile(pixels)
    assert judge(found)[0] == "false"


def test_resources_and_manifest_compile(tmp_path):
    if not shutil.which("aapt") or not pathlib.Path(FRAMEWORK).exists():
        pytest.skip("needs aapt and android-framework-res (apt)")
    # Gradle inserts these two.
    text = (MAIN / "AndroidManifest.xml").read_text("utf-8")
    text = text.replace("<manifest", f'<manifest package="{PACKAGE}"')
    text = text.replace("${applicationId}", PACKAGE)
    (tmp_path / "AndroidManifest.xml").write_text(text, "utf-8")
    run(
        *("aapt", "package", "-M", tmp_path / "AndroidManifest.xml"),
        *("-S", RESOURCES, "-I", FRAMEWORK, "-F", tmp_path / "resources.apk"),
        *("--min-sdk-version", "24", "--target-sdk-version", "29"),
    )
    assert (tmp_path / "resources.apk").stat().st_size > 2000


def app_code():
    return "".join(file.read_text("utf-8") for file in MAIN.rglob("*.kt"))


def version(pattern, text):
    return tuple(map(int, re.search(pattern, text).group(1).split(".")))


def test_versions_fit_together():
    plugin = version(
        r'"com.android.application"\) version "([\d.]+)"', read(GRADLE[1])
    )
    kotlin = version(r'kotlin.android"\) version "([\d.]+)"', read(GRADLE[1]))
    gradle = version(
        r"gradle-([\d.]+)-bin", read("gradle/wrapper/gradle-wrapper.properties")
    )
    # developer.android.com: plugin 8.10 needs Gradle 8.11.1 and knows API
    # level 36; Kotlin 2.2 needs plugin 8.10.
    assert plugin[:2] == (8, 10)
    assert gradle >= (8, 11, 1)
    assert kotlin[:2] == (2, 2)
    build = read(GRADLE[2])
    levels = {
        name: int(re.search(rf"{name} = (\d+)", build).group(1))
        for name in ("minSdk", "targetSdk", "compileSdk")
    }
    # MediaPipe 1.2 needs level 28; stores take apps of level 36.
    assert version(r"tasks-vision:([\d.]+)", build)[:2] == (1, 2)
    assert levels["minSdk"] == 28
    assert levels["targetSdk"] == levels["compileSdk"] == 36
    assert f'namespace = "{PACKAGE}"' in build
    for name in re.findall(r'id\("([\w.]+)"\)', build):
        assert f'id("{name}")' in read(GRADLE[1])


def test_what_the_files_say_of_each_other():
    code = app_code()
    for name in (
        android.MODEL_FILE,
        android.DESCRIPTION_FILE,
        android.GOLDEN_FILE,
        android.GOLDEN_IMAGE,
        android.GOLDEN_PIXELS,
    ):
        assert f'"{name}"' in code
    manifest = ET.parse(MAIN / "AndroidManifest.xml").getroot()
    (activity,) = manifest.iter("activity")
    assert f"class {activity.get(f'{ANDROID}name')[1:]} :" in code
    (provider,) = manifest.iter("provider")
    suffix = provider.get(f"{ANDROID}authorities").split("}")[1]
    assert f'"$packageName{suffix}"' in code
    (path,) = ET.parse(RESOURCES / "xml" / "files.xml").getroot()
    assert path.tag == "cache-path"
    assert f'File(cacheDir, "{path.get("path")[:-1]}")' in code


def test_every_library_that_is_used_is_a_dependency():
    """Android's own ExifInterface does not read PNG and WebP everywhere."""
    used = set(re.findall(r"^import androidx\.(\w+)", app_code(), re.MULTILINE))
    listed = set(
        re.findall(r'implementation\("androidx\.(\w+):', read(GRADLE[2]))
    )
    assert used == listed
    assert "exifinterface" in used


def test_the_app_asks_for_no_permission():
    """MediaPipe's libraries request two permissions that must be removed."""
    manifest = ET.parse(MAIN / "AndroidManifest.xml").getroot()
    tools = "{http://schemas.android.com/tools}"
    permissions = {
        entry.get(f"{ANDROID}name").split(".")[-1]: entry.get(f"{tools}node")
        for entry in manifest.iter("uses-permission")
    }
    assert permissions == {
        "INTERNET": "remove",
        "ACCESS_NETWORK_STATE": "remove",
    }


def test_texts_get_as_many_values_as_they_show():
    code = app_code()
    everything = code + "".join(
        file.read_text("utf-8") for file in MAIN.rglob("*.xml")
    )
    calls = 0
    for entry in ET.parse(RESOURCES / "values" / "strings.xml").getroot():
        name = entry.get("name")
        assert re.search(rf"(R\.|@)string[./]{name}\b", everything), name
        shown = len(set(re.findall(r"%(\d)\$", entry.text)))
        call = rf"getString\(\s*R\.string\.{name}\b((?:[^()]|\([^()]*\))*)\)"
        for rest in re.findall(call, code):
            values = [part for part in rest.split(",") if part.strip()]
            assert len(values) == shown, name
            calls += 1
    assert calls > 7
