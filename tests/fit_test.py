"""A ConvMixer in `compile` and `fit`, as users of keras.applications do it."""

import keras
import numpy as np
import pytest
from PIL import Image

# The README's example, of images of three classes in `photos`.
EXAMPLE = """
import keras
from convmixer_tf import ConvMixer256_8
from convmixer_tf.models import freeze_batch_norm

train, validation = keras.utils.image_dataset_from_directory(
    "photos", validation_split=0.2, subset="both", seed=0, image_size=(32, 32), crop_to_aspect_ratio=True
)
body = ConvMixer256_8(include_top=False, pooling="avg", weights="cifar10", input_shape=(32, 32, 3))
model = keras.Sequential([keras.layers.RandomFlip("horizontal"), body, keras.layers.Dense(3, "softmax")])
for trainable, rate, epochs in ((False, 1e-2, 10), (True, 1e-5, 3)):  # The head; then all weights.
    body.trainable = trainable
    if trainable:
        freeze_batch_norm(body)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train, validation_data=validation, epochs=epochs)
model.save("mine.keras")
"""  # noqa: E501  As a README's reader copies it.


# Keras says so of any `tf.data.Dataset`, as `shuffle` is true by default.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
def test_the_example_learns_and_leaves_a_model(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for label, name in enumerate(("blue", "green", "red")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 120, (40, 48, 3), np.uint8)
            pixels[..., 2 - label] += 120
            path = tmp_path / "photos" / name / f"{i}.png"
            Image.fromarray(pixels).save(path)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(EXAMPLE, found)
    model = keras.saving.load_model("mine.keras")
    _, accuracy = model.evaluate(found["validation"], verbose=0)
    assert accuracy == 1
    norms = found["body"].get_layer("block_0").pointwise_norm
    source = found["ConvMixer256_8"](weights="cifar10")
    before = source.get_layer("block_0").pointwise_norm
    np.testing.assert_array_equal(norms.moving_mean, before.moving_mean)
