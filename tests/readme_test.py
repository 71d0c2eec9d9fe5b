"""Runs the documents' Python code unchanged, with a local hub."""

import json
import pathlib
import re

import pytest
import tensorflow as tf
from safetensors.numpy import save

from convmixer_tf.export import export_tflite
from convmixer_tf.export.verification.limits import default_limits
from convmixer_tf.intervals import paired_interval
from convmixer_tf.models import ConvMixer256_8
from convmixer_tf.models import ConvMixer768_32
from convmixer_tf.preprocessing import CIFAR10_CLASSES
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights import read_facts
from convmixer_tf.weights import timm_state_dict
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import run_python
from tests.prose import documents
from tests.weights.hub_server import running_hub

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING = " ".join(documents.read("recipes/results/README.md").split())
EXPORT = documents.read("export/results/README.md")


@pytest.mark.large
def test_python(tmp_path):
    blocks = [
        block.text
        for name in documents.DOCUMENTS
        # Needs a server: tests/serve/tf_serving_test.py.
        if name != documents.SERVING
        for block in documents.blocks(name)
        if block.language == "python"
        and "mediapipe" not in block.text
        and "keras_hub" not in block.text  # tests/analysis/features_test.py
        and "image_dataset" not in block.text  # tests/fit_test.py
    ]
    assert len(blocks) >= 5
    photo = tf.io.encode_jpeg(asymmetric_image(300, 400)[0])
    (tmp_path / "photo.jpg").write_bytes(photo.numpy())
    model = randomize(ConvMixer768_32(weights=None))
    published = PUBLISHED_WEIGHTS["convmixer_768_32"]
    with running_hub() as hub:
        hub.files[published.repository, published.filename] = save(
            timm_state_dict(model), metadata={"format": "pt"}
        )
        printed = run_python(
            f"import os; os.chdir({str(tmp_path)!r})\n"
            + "".join(blocks)
            + "print(images.shape, labels.shape)",
            HF_ENDPOINT=hub.url,
            HF_HOME=str(tmp_path / "home"),
            NO_PROXY="127.0.0.1",
            PYTHONPATH=str(ROOT),
        )
    assert re.search(r"\[\[\('n\d{8}', '\w+', np\.float32\(", printed)
    assert re.search(r"\[\[\('\w+', np\.float32\(", printed)
    assert printed.endswith("(64, 32, 32, 3) (64, 10)\n")
    assert (tmp_path / "model_int8.tflite").stat().st_size > 500_000


@pytest.mark.peer
def test_mediapipe(tmp_path):
    pytest.importorskip("mediapipe", reason="needs mediapipe")
    (code,) = (
        block.text
        for block in documents.blocks("export/README.md")
        if "mediapipe" in block.text
    )
    photo = tf.io.encode_jpeg(asymmetric_image(300, 400)[0])
    (tmp_path / "photo.jpg").write_bytes(photo.numpy())
    model = randomize(ConvMixer256_8(weights=None))
    path = tmp_path / "mine" / "model_int8.tflite"
    path.parent.mkdir()
    export_tflite(model, path, class_names=CIFAR10_CLASSES)
    printed = run_python(f"import os; os.chdir({str(tmp_path)!r})\n{code}")
    names = [line.split()[0] for line in printed.splitlines()]
    assert len(names) == 3
    assert set(names) <= set(CIFAR10_CLASSES)


def pictures(text):
    """Lists the pictures of a document: alternative text and path."""
    html = re.findall(r'<img src="(\S+)"[^>]* alt="([^"]+)">', text)
    found = [(alt, path) for path, alt in html]
    return found + re.findall(r"^!\[([^\]]+)\]\((\S+\.png)\)$", text, re.M)


def test_readme_has_pictures():
    assert len(pictures(README)) >= 3
    assert all(len(alt) >= 20 for alt, _ in pictures(README))


def titles(path):
    """Lists the anchors of a document's headings, as on GitHub."""
    found = re.findall(r"^#+ (.+)$", documents.read(path), re.M)
    found = [re.sub(r"[^\w\- ]", "", title).lower() for title in found]
    return [title.replace(" ", "-") for title in found]


@pytest.mark.parametrize("name", [*documents.DOCUMENTS, "CHANGELOG.md"])
def test_links_lead_somewhere(name):
    folder = (ROOT / name).parent
    text = documents.read(name)
    paths = [path for _, path in pictures(text)]
    for target in [*re.findall(r"\]\(([^)]+)\)", text), *paths]:
        path, _, anchor = target.partition("#")
        if path.startswith("https://"):
            continue
        path = (folder / path).resolve() if path else ROOT / name
        assert path.exists(), target
        if anchor:
            assert anchor in titles(path.relative_to(ROOT)), target


@pytest.mark.parametrize(
    "name", [n for n, x in PUBLISHED_WEIGHTS.items() if x.repository]
)
def test_table_of_models(name):
    facts = PUBLISHED_WEIGHTS[name]
    row = next(
        line
        for line in README.splitlines()
        if line.startswith(f"| `ConvMixer{facts.dim}_{facts.depth}`")
    )
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    dim, depth, k, p = (
        facts.dim,
        facts.depth,
        facts.kernel_size,
        facts.patch_size,
    )
    block = dim * k**2 + dim**2 + 6 * dim
    parameters = 3 * p**2 * dim + 3 * dim + depth * block + 1000 * (dim + 1)
    assert cells[1] == f"{parameters:,}"
    assert cells[2] == f"{k} / {p}"
    assert cells[3].lower() == facts.activation
    patches = (224 // p) ** 2
    macs = patches * dim * (3 * p**2 + depth * (k**2 + dim)) + 1000 * dim
    assert cells[4] == f"{macs / 1e9:.2f}"
    assert cells[5] == f"{facts.top1:.3f} / {facts.top5:.3f}"


def test_the_packaged_model_is_in_the_table():
    facts = read_facts("convmixer_256_8")
    top1, top5 = 100 * facts["top1"], 100 * facts["top5"]
    assert f"| {top1:.2f} / {top5:.2f}, CIFAR-10 |" in README


def span(ratios):
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def test_the_speeds_are_those_of_the_committed_runs():
    path = ROOT / "recipes" / "results" / "benchmark.json"
    rows = json.loads(path.read_text())["summary"]
    infer, train = (
        span([x["ratio"] for x in rows if [x["step"], x["dtype"]] == kind])
        for kind in (["infer", "float32"], ["train", "float32"])
    )
    text = " ".join(README.split())
    assert f"inference takes {infer} and a training step {train} of" in text


def test_the_runtimes_are_those_of_the_committed_runs():
    ratios = {}
    table = (ROOT / "export" / "results" / "README.md").read_text()
    for path in (ROOT / "export" / "results" / "peers").glob("*.json"):
        record = json.loads(path.read_text())
        times = {
            row["artifact"]: row["wall_milliseconds"]
            for row in record["artifacts"]
        }
        base = times["Keras predict_on_batch"]
        for name, time in times.items():
            digits = 2 if base < 10 else 0
            assert f" {time:.{digits}f} | {time / base:.2f} |" in table
            ratios.setdefault(name, {})[path.stem] = time / base
    text = " ".join(README.split())
    float32 = [
        *ratios["ONNX, onnxruntime"].values(),
        *ratios["ONNX, OpenVINO"].values(),
        *ratios["TFLite float32, LiteRT"].values(),
        *ratios["PyTorch, torch.compile"].values(),
    ]
    int8 = [
        ratio
        for name, ratio in ratios["ONNX int8, OpenVINO"].items()
        if not name.startswith("256_8")
    ]
    predict = ratios["Keras predict"].values()
    assert f"take {span(float32)} of its time" in text
    assert f"with {span(int8)} " in text
    assert f"`model.predict` takes {span(predict)}," in text


def test_the_quickstart_is_that_of_the_committed_run():
    path = ROOT / "recipes" / "results" / "train_digits.json"
    record = json.loads(path.read_text())
    assert f"took {record['cpu_seconds']} seconds of processor time" in TRAINING
    for row in record["models"]:
        top1, kilobytes = 100 * row["top1"], row["bytes"] / 1e3
        assert (
            f"| {row['model']} | {top1:.2f} % | {kilobytes:.0f} |" in TRAINING
        )


def test_the_segmented_shares_are_those_of_the_committed_run():
    path = ROOT / "recipes" / "results" / "segment" / "segment.json"
    for found in json.loads(path.read_text())["recall"].values():
        assert f"| {100 * found['mean']:.1f} % |" in TRAINING


@pytest.mark.parametrize("name", ["k7", "k9", "relu7", "int4_k7", "int4_k9"])
def test_what_fine_tuning_gains_is_that_of_the_committed_runs(name):
    path = ROOT / "recipes" / "results" / f"qat_{name}.json"
    record = json.loads(path.read_text())
    assert record["images"]["test"] == 10_000
    for row in record["summary"]:
        if row["method"] in ("quantize", "float"):
            assert row["seeds"] == 3
            values = [100 * row[x] for x in ("top1", "least", "largest")]
            assert "{:.2f} ({:.2f} to {:.2f})".format(*values) in TRAINING
        if row["method"] == "quantize":
            gains = row["gain"] > row["spread"]
            assert gains == (row["quantization"] == "int4")


@pytest.mark.parametrize(
    ("method", "quantization", "text"),
    [
        ("prune", "float16", "pruning cost {0} to {1} points of top-1 for"),
        ("cluster", "float16", "clustering at most {1} points for"),
        ("prune", "int8", "pruning cost {0} to {1} points for"),
        ("cluster", "int8", "clustering {0} to {1} points for"),
    ],
)
def test_what_pruning_and_clustering_cost_is_that_of_the_committed_runs(
    method, quantization, text
):
    losses, gains = [], []
    for name in ("k9", "k7", "relu7"):
        path = ROOT / "recipes" / "results" / f"qat_{name}.json"
        files = {
            (row["method"], row["quantization"]): row
            for row in json.loads(path.read_text())["files"]
        }
        file, before = files[method, quantization], files[None, quantization]
        losses.append(100 * (before["top1"] - file["top1"]))
        gains.append(100 * (1 - file["gzip"] / before["gzip"]))
        assert 0.999 < file["bytes"] / before["bytes"] < 1.0165
        control = files.get(("float", quantization), file)["milliseconds"]
        assert file["milliseconds"] > 0.97 * control
    text = text.format(f"{min(losses):.2f}", f"{max(losses):.2f}")
    text += f" {min(gains):.0f} to {max(gains):.0f} % less"
    assert text in TRAINING


@pytest.mark.parametrize("kernel", ["k9", "k7", "k5"])
def test_what_int8_costs_is_that_of_the_committed_runs(kernel):
    path = ROOT / "export" / "results" / f"tflite_cifar10_{kernel}.json"
    files = json.loads(path.read_text())["results"]["files"]
    top1 = {(file["format"], file["plain"]): file["top1"] for file in files}
    formats = ("float32", False), ("int8", True), ("int8", False)
    row = " | ".join(f"{100 * top1[x]:.2f} %" for x in formats)
    assert f"| {row} |" in README


def test_which_loss_is_refused():
    assert "a loss of 7 is accepted, and a loss of 8 is refused" in README
    limit = default_limits("int8").max_accuracy_loss
    assert paired_interval(7, 0, 100)[0] <= limit
    assert paired_interval(8, 0, 100)[0] > limit


def test_the_artifacts_are_those_of_the_committed_run():
    path = ROOT / "export" / "results" / "artifacts.json"
    record = json.loads(path.read_text())["results"]
    assert record["images"] == 10_000
    rows = {
        "| {} | {:,.0f} | {:.2f} % | {:.2f} % | {:.2f} |".format(
            row["artifact"],
            row["bytes"] / 1e3,
            100 * row["top1"],
            100 * row["agreement"],
            row["milliseconds"],
        )
        for row in record["artifacts"]
    }
    assert rows <= set(EXPORT.splitlines())
    same = {row["artifact"]: row["agreement"] for row in record["artifacts"]}
    for name in ("SavedModel", "TF Hub module", "ONNX", "TFLite float32"):
        assert same[name] == 1
    assert f"{100 * same['TFLite float16']:.2f} % of them" in README
    assert f"{100 * same['TFLite int8']:.2f} % in int8" in README
    top1 = {row["artifact"]: row["top1"] for row in record["artifacts"]}
    loss = 100 * (top1["Keras"] - top1["TFLite int8"])
    assert f"costs the packaged model {loss:.2f} points" in README
