"""Tests old layer names in files. They are now Keras' layers."""

import json
import zipfile

import keras
import numpy as np
import pytest

from convmixer_tf import layers


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("DepthwiseConv2D", {"kernel_size": 5, "padding": "same"}),
        ("BatchNormalization", {"epsilon": 1e-5}),
    ],
)
def test_models_with_layers_of_before_open(name, config, tmp_path):
    cls = getattr(layers, name)
    assert cls is getattr(keras.layers, name)
    model = keras.Sequential([keras.Input((7, 6, 3)), cls(**config)])
    new, old = tmp_path / "new.keras", tmp_path / "old.keras"
    model.save(new)
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        for file in source.namelist():
            content = source.read(file)
            if file == "config.json":
                content = json.loads(content)
                (layer,) = [
                    layer
                    for layer in content["config"]["layers"]
                    if layer["class_name"] == name
                ]
                layer["module"] = f"convmixer_tf.layers.{name.lower()}"
                layer["registered_name"] = f"convmixer_tf>{name}"
                content = json.dumps(content)
            target.writestr(file, content)
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3))
    opened = keras.saving.load_model(old)
    assert type(opened.layers[0]) is cls
    np.testing.assert_array_equal(opened(x), model(x))
