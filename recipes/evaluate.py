"""Measures a classifier in a file: top-1, top-5, classes, confusion.

    python recipes/evaluate.py --model runs/mine/model.keras --data FOLDER

`--model` is a `.keras` or `.tflite` file, the folder of a SavedModel, a TF Hub
module or a run, or the name of a pretrained variant: 1536_20, 768_32, 1024_20,
512_16, 256_8. Prints the accuracy and writes `scores.json` and `confusion.png`,
beside the model unless `--output` names another folder.

Time: that of the forward pass; recipes/results/README.md has times an image.
"""

import launch
from absl import flags

from convmixer_tf.cli import evaluate

flags.adopt_module_key_flags(evaluate)

if __name__ == "__main__":
    launch.run(evaluate.main)
