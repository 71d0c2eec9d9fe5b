"""A small run in a separate process that can kill itself.

python -m tests.training.worker FOLDER [--strategy S] [--kill_at STEP] ...
"""

import argparse
import os
import pathlib
import signal

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
from absl import logging

from convmixer_tf import ConvMixer
from convmixer_tf import data
from convmixer_tf.training import make_strategy
from convmixer_tf.training import train
from convmixer_tf.training import train_classifier
from convmixer_tf.training import trainer
from tests.training import tiny


def die_after(run_class, name, step, number=signal.SIGKILL):
    """Makes the process send itself a signal in a method, from a step on."""
    method = getattr(run_class, name)

    def dying(self, *args):
        result = method(self, *args)
        if self.step == step:
            os.kill(os.getpid(), number)
        return result

    setattr(run_class, name, dying)


def train_digits(folder, strategy):
    """On real images, with the authors' full augmentation."""
    model, _ = train_classifier(
        tiny.config(epochs=3, ema_decay=0.9),
        lambda activation: ConvMixer(
            8,
            1,
            3,
            4,
            input_shape=(16, 16, 3),
            classes=10,
            classifier_activation=activation,
            dropout=0.2,
        ),
        data.open_dataset("digits", "train"),
        data.open_dataset("digits", "test"),
        data.get_augmentation("imagenet"),
        16,
        folder,
        strategy,
    )
    np.savez(folder / "weights.npz", **tiny.weights_of(model))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--strategy", default="one")
    parser.add_argument("--kill_at", type=int)
    parser.add_argument("--kill_in", default="update")
    parser.add_argument("--signal", type=int, default=signal.SIGKILL)
    parser.add_argument("--sync", action="store_true")
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--deterministic", action="store_true")
    options = parser.parse_args()
    logging.set_verbosity(logging.INFO)
    if options.kill_at is not None:
        die_after(trainer.Run, options.kill_in, options.kill_at, options.signal)
    strategy = make_strategy(
        options.strategy, deterministic=options.deterministic
    )
    if options.digits:
        train_digits(options.folder, strategy)
        return
    model, _ = train(
        tiny.config(
            epochs=3,
            ema_decay=0.9,
            clip_norm=0.3,
            sync_batch_norm=options.sync,
        ),
        lambda: tiny.build_model(dropout=0.0 if options.sync else 0.2),
        tiny.train_batches(),
        tiny.eval_batches(),
        options.folder,
        strategy,
    )
    if trainer.is_chief(strategy):
        np.savez(options.folder / "weights.npz", **tiny.weights_of(model))


if __name__ == "__main__":
    main()
