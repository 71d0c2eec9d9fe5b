"""Names of release 0.1 that still work."""

import importlib

import pytest

from convmixer_tf import data

# Public before, by package; they are where they were.
NO_LONGER_PUBLIC = {
    "analysis": "costs_table save_activation_maps save_costs "
    "save_depthwise_filters save_feature_maps save_patch_filters "
    "save_receptive_fields",
    "data": "CROP_FRACTION",
    "export": "Report TFLiteMetadata write_metadata",
    "export.qat": "METHODS",
    "export.verification": "MIN_IMAGES RUNTIMES",
    "inference": "Classifier Prediction classify load_classifier",
    "models": "VARIANTS read_arguments read_class_names",
    "preprocessing": "class_names imagenet_classes",
    "training": "Scores",
    "weights": "infer_architecture",
}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Recipe", "Augmentation"),
        ("get_recipe", "get_augmentation"),
        ("open_unlabelled", "open_unlabeled"),
    ],
)
def test_old_names(old, new):
    with pytest.warns(FutureWarning, match=rf"{old} is deprecated.*{new}\."):
        assert getattr(data, old) is getattr(data, new)


@pytest.mark.parametrize("room", NO_LONGER_PUBLIC)
def test_names_that_are_no_longer_public(room):
    package = importlib.import_module(f"convmixer_tf.{room}")
    for name in NO_LONGER_PUBLIC[room].split():
        assert name not in package.__all__
        with pytest.warns(FutureWarning, match=rf"\.{name} is deprecated"):
            getattr(package, name)


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        data.nothing  # noqa: B018
