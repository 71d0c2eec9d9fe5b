"""Trains a ConvMixer-256/8 on CIFAR-10 on a GPU, without TensorFlow.

    python recipes/train_cifar10_jax.py --data FOLDER --preset 25

With the settings of the presets of `train_cifar10.py` (25, 100 and 200), which
it reads from `jax_cifar10/presets.json`, but on Keras' JAX backend, and with
images augmented by NumPy and Pillow in processes of their own. It needs
`pip install keras "jax[cuda13]" pillow h5py absl-py safetensors`. FOLDER has
train/CLASS/*.png and test/CLASS/*.png (or .jpg), or is a .zip or .tar.xz of
such a folder; `--data` may be given several times.

A batch of 64 leaves a GPU idle: `--batch_size 512` scales the learning rate by
as much, unless `--learning_rate` is given. `--minutes 9` saves and stops then;
the same command goes on. It ends in what `train_cifar10.py` does.

Time: no GPU has run it yet. To augment an image takes a core 0.1 to 0.2 ms.
"""

import os

from absl import flags
from jax_cifar10 import options

flags.adopt_module_key_flags(options)

# Processes that make batches import this file too, and need nothing of this.
if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "jax")

    import launch
    from jax_cifar10 import command

    launch.run(command.main)
