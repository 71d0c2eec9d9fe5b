"""Averages of a model's weights over time and over replicas."""

import keras
import tensorflow as tf

from convmixer_tf.training.optimizer import raw
from convmixer_tf.training.strategy import on_replicas


class MovingAverage(tf.Module):
    """The running mean of all floating-point variables of a model.

    It starts as a copy. Like timm's `ModelEmaV2`, it includes the statistics of
    the batch normalizations.

    Args:
        model: A `keras.Model`.
        decay: Decay of the mean, per update.
    """

    def __init__(self, model, decay):
        super().__init__()
        self.decay = decay
        self.targets = [
            raw(variable)
            for variable in model.variables
            if variable.dtype == "float32"
        ]
        self.means = [
            tf.Variable(target.read_value(), trainable=False)
            for target in self.targets
        ]

    def apply(self, strategy):
        """Updates the mean. For a cross-replica context (`merge_call`)."""
        for mean, target in zip(self.means, self.targets, strict=True):
            strategy.extended.update(
                mean,
                lambda mean, value: mean.assign_add(
                    (value - mean) * (1 - self.decay)
                ),
                args=(target,),
                group=False,
            )

    def swap(self):
        """Swaps the model's variables and their means."""
        for mean, target in zip(self.means, self.targets, strict=True):
            value = target.numpy()
            target.assign(mean.numpy())
            mean.assign(value)


def averaging_over_replicas(strategy, variables):
    """Builds a function that averages variables over replicas.

    Args:
        strategy: A `tf.distribute.Strategy`.
        variables: List of variables, such as the running statistics of batch
            normalizations.

    Returns:
        Function without arguments that replaces each replica's copy of each
        variable with the mean of all copies.
    """
    variables = [raw(variable) for variable in variables]
    if not variables or strategy.num_replicas_in_sync == 1:
        return lambda: None

    def average():
        context = tf.distribute.get_replica_context()
        values = [variable.read_value() for variable in variables]
        values = context.all_reduce(tf.distribute.ReduceOp.MEAN, values)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    return on_replicas(strategy, average)


def batch_norms(layer):
    """Lists the batch normalizations within a layer or a model."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return [layer]
    inner = (
        layer.layers
        if isinstance(layer, keras.Model)
        else [
            value
            for value in vars(layer).values()
            if isinstance(value, keras.layers.Layer)
        ]
    )
    return [norm for part in inner for norm in batch_norms(part)]
