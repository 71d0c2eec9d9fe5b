"""Fine-tunes a ConvMixer on your own images.

    python recipes/finetune.py --data FOLDER --model 256_8 --output runs/mine

FOLDER has a folder of images for each class, or `train/CLASS/*.jpg` and
optionally `validation` and `test`. `--data` can also be a CSV table with the
columns `path` and `label`, or the name of a data set in tensorflow-datasets.
`--model` is a variant with published weights, a `.keras` file or a run folder.
The weights of `256_8`, for images of 32 pixels, ship with this package. The
weights of the other variants, for 224 pixels, are downloaded.

First, a linear classifier is fitted to the features of the pretrained model.
Then, unless `--frozen` is passed, all weights are trained. The validation
images decide which of the two becomes `model.keras`. `finetune.json` is the
report.

Time and result: see results/finetune.json.
"""

import launch
from absl import flags

from convmixer_tf.cli import finetune

flags.adopt_module_key_flags(finetune)

if __name__ == "__main__":
    launch.run(finetune.main)
