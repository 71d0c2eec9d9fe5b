import keras
import numpy as np
import pytest

from convmixer_tf.models import ConvMixer
from convmixer_tf.models import read_arguments
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
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_arguments(tmp_path / "none.keras")
