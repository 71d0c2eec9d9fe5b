"""A model and data that a test can train in seconds."""

import numpy as np
import tensorflow as tf

from convmixer_tf import ConvMixer
from convmixer_tf.training import TrainConfig

CLASSES = 10
EXAMPLES = 128


def config(**changes):
    settings = {
        "epochs": 2,
        "steps_per_epoch": 4,
        "batch_size": 16,
        "log_every": 3,
        "save_every": 3,
        "tensorboard": False,
    }
    return TrainConfig(**{**settings, **changes})


def build_model(dropout=0.0, frozen_norms=False):
    model = ConvMixer(
        8,
        1,
        3,
        4,
        input_shape=(16, 16, 3),
        classes=CLASSES,
        classifier_activation=None,
        dropout=dropout,
    )
    if frozen_norms:
        from convmixer_tf.training.averages import batch_norms

        for norm in batch_norms(model):
            norm.trainable = False
    return model


def examples():
    """Noisy images of one color per class, which can be learned."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, EXAMPLES).astype(np.int32)
    colors = rng.uniform(50, 200, (CLASSES, 1, 1, 3))
    noise = rng.uniform(-50, 50, (EXAMPLES, 16, 16, 3))
    return (colors[labels] + noise).astype(np.float32), labels


def train_batches(batch_size=16, augment=True, seed=0):
    """Returns data that depends only on the epoch and the first batch."""
    images, labels = examples()

    def batches(epoch, first_batch, context):
        workers = context.num_input_pipelines
        order = np.random.default_rng((seed, epoch)).permutation(EXAMPLES)
        order = order[first_batch * batch_size :]
        order = order[context.input_pipeline_id :: workers].astype(np.int64)

        def example(i):
            image = tf.gather(images, i)
            if augment:
                noise = tf.random.stateless_normal([16, 16, 3], [epoch, i])
                image += 20 * noise
            return image, tf.gather(labels, i)

        data = tf.data.Dataset.from_tensor_slices(order).map(example)
        return data.batch(batch_size // workers, drop_remainder=True)

    return batches


def eval_batches(count=61, batch_size=16):
    """Every image once: 61 is no multiple of the batch or the replicas."""
    images, labels = (x[:count] for x in examples())
    missing = -count % batch_size
    images = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
    labels = np.pad(labels, (0, missing))
    weights = np.float32(np.arange(count + missing) < count)

    def batches(context):
        workers = context.num_input_pipelines
        data = tf.data.Dataset.from_tensor_slices((images, labels, weights))
        data = data.shard(workers, context.input_pipeline_id)
        return data.batch(batch_size // workers, drop_remainder=True)

    return batches


def weights_of(model):
    return {
        f"{i} {variable.name}": variable.numpy()
        for i, variable in enumerate(model.variables)
    }


def worst_difference(left, right):
    """Returns the largest difference relative to a tensor's largest value."""
    assert left.keys() == right.keys()
    return max(
        np.max(np.abs(left[name] - right[name]))
        / max(np.max(np.abs(left[name])), 1e-12)
        for name in left
        if left[name].dtype.kind == "f"
    )
