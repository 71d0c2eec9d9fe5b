"""Compares feature maps with the layers run one after the other."""

import numpy as np
import pytest
from keras import layers
from keras import ops

from convmixer_tf.analysis import feature_extractor
from convmixer_tf.analysis.features import save_feature_maps
from tests.prose import documents


@pytest.mark.parametrize("top", [True, False])
def test_maps_are_the_inner_tensors(build, top):
    model, images = build(include_top=top)
    expected, x = {}, images
    for layer in model.layers[1:]:
        x = layer(x, training=False)
        expected[layer.name] = ops.convert_to_numpy(x)
    extractor = feature_extractor(model, ["patch_embed", 0, "block_1", -1])
    maps = extractor(images, training=False)
    assert set(maps) == {"patch_embed", "block_0", "block_1", "block_2"}
    for name, values in maps.items():
        assert values.shape == (2, 7, 5, 6)
        np.testing.assert_array_equal(values, expected[name])
        info = extractor.feature_info[name]
        assert info["channels"] == 6
        assert images.shape[1] // info["stride"] == 7


def test_all_blocks_by_default_on_the_same_weights(build):
    model, _ = build()
    extractor = feature_extractor(model)
    assert list(extractor.output) == ["block_0", "block_1", "block_2"]
    ours = {id(weight) for weight in model.weights}
    assert {id(weight) for weight in extractor.weights} <= ours


@pytest.mark.parametrize(
    ("block", "name"),
    [(-1, "block_2"), (np.int64(1), "block_1"), ("patch_embed",) * 2],
)
def test_a_single_block(build, block, name):
    model, _ = build()
    for blocks in (block, [block]):
        assert list(feature_extractor(model, blocks).output) == [name]


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([3], r"numbers of blocks, from -3 to 2, or names.*Received: 3"),
        ([-4], "Received: -4"),
        (3, r"Received: 3 in \[3\]"),
        (["block_9"], "Received: 'block_9'"),
        (["avg_pool"], "Received: 'avg_pool'"),
        ([], "at least one block"),
    ],
)
def test_unknown_blocks_are_an_error(build, blocks, message):
    model, _ = build()
    with pytest.raises(ValueError, match=message):
        feature_extractor(model, blocks)


@pytest.mark.peer
def test_keras_hub_takes_it_as_a_backbone():
    """The code in recipes/README.md, and a step of training."""
    pytest.importorskip("keras_hub", reason="needs KerasHub")
    (block,) = (
        block.text
        for block in documents.blocks("recipes/README.md")
        if "keras_hub" in block.text
    )
    names = {}
    exec(block, names)
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3))
    masks = np.eye(2)[images[..., 0] % 2]
    for model, labels in (
        (names["classifier"], np.arange(2)),
        (names["segmenter"], masks),
    ):
        backbone = names["backbone"].get_layer("block_0").get_weights()[0]
        model.compile()
        assert np.isfinite(model.train_on_batch(images, labels)).all()
        after = names["backbone"].get_layer("block_0").get_weights()[0]
        assert not np.array_equal(after, backbone)


def test_other_models_are_an_error():
    with pytest.raises(ValueError, match="must be a ConvMixer, with the lay"):
        feature_extractor(layers.Dense(3))


def test_picture(tmp_path, read_png):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 32, 3))
    maps = {name: rng.normal(size=(8, 8, 5)) for name in ("a", "b", "c")}
    save_feature_maps(tmp_path / "maps.png", image, maps, columns=4)
    # Two columns for the image and one for each channel.
    assert read_png(tmp_path / "maps.png").shape == (486, 900, 3)
    with pytest.raises(ValueError, match=r"of one image, .*'a' of shape"):
        save_feature_maps(tmp_path / "x.png", image, {"a": np.zeros((1, 8))})
    with pytest.raises(ValueError, match="`columns` must be a positive"):
        save_feature_maps(tmp_path / "x.png", image, maps, columns=0)
