"""Evaluates a classifier: top-1, top-5, per-class accuracy, confusion.

    python recipes/evaluate.py --model runs/mine/model.keras --data FOLDER

`--model` is a `.keras` or `.tflite` file, a SavedModel, TF Hub module or run
folder, or the name of a pretrained variant: 1536_20, 768_32, 1024_20, 512_16,
256_8. The script prints the accuracy and writes `scores.json` and
`confusion.png` beside the model, or to the folder in `--output`.

Time: the forward pass. recipes/results/README.md has times per image.
"""

import launch
from absl import flags

from convmixer_tf.cli import evaluate

flags.adopt_module_key_flags(evaluate)

if __name__ == "__main__":
    launch.run(evaluate.main)
