"""Measures a classifier in a file: top-1, top-5, classes, confusion.

    python recipes/evaluate.py --model runs/mine/model.keras --data FOLDER

`--model` is a `.keras` file, a SavedModel's folder, a `.tflite` file, or the
name of a pretrained variant: 1536_20, 768_32, 1024_20. Prints the accuracy
and writes `scores.json` and `confusion.png` to `--output`.

Time: that of the forward pass; BUILD.md has images per second. Result: see
`recipes/results/`.
"""

import functools
import json
import os

import keras
import matplotlib.figure
import numpy as np
import run_flags
import tensorflow as tf
from absl import app
from absl import flags

import convmixer_tf
from convmixer_tf import data
from convmixer_tf.export import LiteRTModel
from convmixer_tf.files import replaced
from convmixer_tf.training import evaluate_function
from convmixer_tf.training import read_class_names

VARIANTS = ("1536_20", "768_32", "1024_20")

_MODEL = flags.DEFINE_string("model", None, "What to measure.", required=True)
_DATA = flags.DEFINE_string(
    "data", "imagenet2012", "Folder, or name in tensorflow-datasets."
)
_SPLIT = flags.DEFINE_string("split", "validation", "Which part of the data.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Side, in pixels.")
_CROP = flags.DEFINE_float(
    "crop_fraction", data.CROP_FRACTION, "Part of an image's side to keep."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images at a time.")
_OUTPUT = flags.DEFINE_string(
    "output", "runs/evaluation", "Folder for the figures."
)
