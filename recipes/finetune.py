"""Fine-tunes a ConvMixer on images of one's own.

    python recipes/finetune.py --data FOLDER --model 256_8 --output runs/mine

FOLDER has a folder of images for each class, or `train/CLASS/*.jpg` and, if
there are, `validation` and `test`. `--data` may also be a table (CSV) with the
columns `path` and `label`, or the name of a data set in tensorflow-datasets.
`--model` is a variant with its published weights, or a `.keras` file or the
folder of a run. The weights of `256_8`, for images of 32 pixels, are in this
package; those of the others, for 224, are downloaded.

A linear classifier is fitted to the features of the model as it is; then,
unless `--frozen`, all weights are trained from there. The validation images
decide which of the two becomes `model.keras`. `finetune.json` is the report.

Time and result: see results/finetune.json.
"""

import launch
from absl import flags

from convmixer_tf.cli import finetune

flags.adopt_module_key_flags(finetune)

if __name__ == "__main__":
    launch.run(finetune.main)
