"""A ConvMixer and images, small enough to be fine-tuned in a test."""

import numpy as np

from convmixer_tf.export.qat import TuningConfig
from convmixer_tf.models import ConvMixer
from tests.helpers import asymmetric_image
from tests.helpers import randomize

IMAGES = asymmetric_image(20, 16, batch=40)
IMAGES = np.uint8(IMAGES * np.linspace(0.1, 1, 40)[:, None, None, None])
LABELS = np.arange(40) // 8


def convmixer(activation="gelu", dim=8, kernel_size=3, **arguments):
    arguments = {"classes": 5, "input_shape": (20, 16, 3), **arguments}
    model = ConvMixer(dim, 1, kernel_size, 4, activation, **arguments)
    return randomize(model)


def config(method="quantize", **changes):
    settings = {"batch_size": 8, "threads": 1, "log_every": 50, "save_every": 3}
    return TuningConfig(method, **{**settings, **changes})
