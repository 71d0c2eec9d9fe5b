"""The picture of the architecture has the model's own sizes."""

import matplotlib.figure
import pytest
from PIL import Image

from convmixer_tf.weights import PUBLISHED_WEIGHTS
from tests.helpers import ROOT


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("convmixer_768_32", ("ReLU", "7 x 7", "32 x 32 x 768", "32 times")),
        ("convmixer_256_8", ("GELU", "5 x 5", "16 x 16 x 256", "8 times")),
    ],
)
def test_sizes(load_recipe, name, wanted):
    recipe = load_recipe("draw_architecture")
    axes = matplotlib.figure.Figure().subplots()
    recipe.draw(axes, PUBLISHED_WEIGHTS[name])
    texts = "\n".join(text.get_text() for text in axes.texts)
    for part in (*wanted, f"{PUBLISHED_WEIGHTS[name].classes:,} classes"):
        assert part in texts
    (low, high), top = axes.get_xlim(), axes.get_ylim()[1]
    for text in axes.texts:
        x, y = text.get_position()
        assert low < x < high
        assert y < top


def test_the_committed_picture_is_wide():
    with Image.open(ROOT / "recipes/results/architecture.png") as picture:
        width, height = picture.size
    assert width > 4 * height
