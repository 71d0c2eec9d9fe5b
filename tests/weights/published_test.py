"""Tests the table of published weights."""

from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights.checking import Architecture
from convmixer_tf.weights.published import PublishedFile

# Facts of the published models: trainable parameters, repository, activation.
EXPECTED = {
    "convmixer_1536_20": (
        51_625_960,
        "timm/convmixer_1536_20.in1k",
        "gelu",
        (81.382, 95.618),
    ),
    "convmixer_768_32": (
        21_110_248,
        "timm/convmixer_768_32.in1k",
        "relu",
        (80.158, 95.070),
    ),
    "convmixer_1024_20": (
        24_383_464,
        "timm/convmixer_1024_20_ks9_p14.in1k",
        "gelu",
        (76.944, 93.364),
    ),
    "convmixer_512_16": (5_357_544, None, "gelu", (74.38, None)),
    "convmixer_256_8": (594_186, None, "gelu", (None, None)),
}


def test_every_entry_is_as_published():
    actual = {
        name: (
            trainable_parameters(entry),
            entry.repository,
            entry.activation,
            (entry.top1, entry.top5),
        )
        for name, entry in PUBLISHED_WEIGHTS.items()
    }
    assert actual == EXPECTED


def test_file_and_license():
    assert {
        (entry.filename, entry.license) for entry in PUBLISHED_WEIGHTS.values()
    } == {
        ("model.safetensors", "MIT"),
        ("classification-v0.h5", "Apache-2.0"),
        ("convmixer_256_8.safetensors", "MIT"),
    }


def test_files_on_the_web_have_a_hash():
    """URLs and hashes as in keras-cv 0.9.0."""
    entry = PUBLISHED_WEIGHTS["convmixer_512_16"]
    base = "https://storage.googleapis.com/keras-cv/models/convmixer_512_16"
    assert entry.file == PublishedFile(
        f"{base}/imagenet/classification-v0.h5",
        "861f3080dc383f7936d3df89691aadea05eee6acaa4a0b60aa70dd657df915ee",
    )
    assert entry.file_without_top == PublishedFile(
        f"{base}/imagenet/classification-v0-notop.h5",
        "aa08c7fa9ca6ec045c4783e1248198dbe1bc141e2ae788e712de471c0370822c",
    )
    others = {x.file for x in PUBLISHED_WEIGHTS.values() if x is not entry}
    assert others == {None}


def trainable_parameters(entry):
    architecture = Architecture(
        entry.dim,
        entry.depth,
        entry.kernel_size,
        entry.patch_size,
        channels=3,
        classes=entry.classes,
    )
    total = 0
    for path, shape in architecture.shapes().items():
        if "moving" not in path:
            size = 1
            for side in shape:
                size *= side
            total += size
    return total
