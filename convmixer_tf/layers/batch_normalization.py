"""Batch normalisation in few passes over memory."""

import keras
from keras import layers
from keras import ops

from convmixer_tf.layers.acceleration import jax_operations
from convmixer_tf.layers.acceleration import tensorflow_cpu


@keras.saving.register_keras_serializable("convmixer_tf")
class BatchNormalization(layers.BatchNormalization):
    """Keras' `BatchNormalization`, trained in fewer passes over memory.

    Arguments, weights, their names and all numbers are Keras' own. Only in
    training, with TensorFlow on CPUs or with JAX, and for images with their
    channels last, one operation replaces a dozen, or one pass finds both mean
    and variance; not if the layer is synchronised between replicas or
    renormalises. In inference, `inference_loop` computes it
    together with what stands before and after it.

    Args:
        *args: What `keras.layers.BatchNormalization` takes.
        **kwargs: What `keras.layers.BatchNormalization` takes.

    Input shape:
        Any.

    Output shape:
        The input shape.

    Example:

    ```python
    patches = np.zeros((1, 16, 16, 64))
    BatchNormalization()(patches, training=True).shape  # (1, 16, 16, 64)
    ```
    """

    def call(self, inputs, training=None, mask=None):
        trains = training and self.trainable and mask is None
        if not (trains and self._fused(inputs)):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = self.normalize_batch(inputs)
        self.move_statistics(mean, variance)
        return outputs

    def normalize_batch(self, inputs):
        """Normalises a batch by its own statistics, and changes nothing.

        Args:
            inputs: Tensor.

        Returns:
            The normalised tensor, the batch's mean and its variance: what
            `move_statistics` takes.
        """
        fused = self._fused(inputs)
        if fused:
            outputs, mean, variance = fused.normalize_batch(
                inputs,
                ops.convert_to_tensor(self.gamma),
                ops.convert_to_tensor(self.beta),
                self.epsilon,
            )
            return ops.cast(outputs, self.compute_dtype), mean, variance
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        axes = [a for a in range(len(x.shape)) if a != self.axis % len(x.shape)]
        mean, variance = ops.moments(
            x, axes=axes, synchronized=self.synchronized
        )
        outputs = ops.batch_normalization(
            x,
            mean,
            variance,
            axis=self.axis,
            offset=ops.cast(self.beta, x.dtype),
            scale=ops.cast(self.gamma, x.dtype),
            epsilon=self.epsilon,
        )
        return ops.cast(outputs, self.compute_dtype), mean, variance

    def inference_loop(self, activation, inputs):
        """Gives inference with an activation before it, all in one loop.

        Args:
            activation: A function of a tensor, element by element.
            inputs: Tensor, what the activation takes.

        Returns:
            Function of `inputs` and of a tensor to add in the end, or `None`,
            which computes `self(activation(inputs)) + shortcut`. `None` where
            there is no faster way than one operation after the other.
        """
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        fits = self._fits(inputs) and dtype == self.compute_dtype
        fast = fits and tensorflow_cpu()
        loop = fast and fast.runs_here() and fast.activation_loop(activation)
        if not loop:
            return None
        scale, offset = self.scale_and_offset()
        return lambda x, shortcut: loop(x, scale, offset, shortcut)

    def scale_and_offset(self):
        """Gives what inference multiplies by and then adds, in float32.

        Returns:
            Two tensors, of shape (dim,).
        """
        gamma, beta, mean, variance = (
            ops.cast(weight, "float32")
            for weight in (
                self.gamma,
                self.beta,
                self.moving_mean,
                self.moving_variance,
            )
        )
        scale = gamma * ops.rsqrt(variance + self.epsilon)
        offset = beta - mean * scale
        return scale, offset

    def move_statistics(self, mean, variance):
        """Moves the running statistics towards those of a batch.

        Args:
            mean: Tensor (dim,), the batch's mean.
            variance: Tensor (dim,), the batch's biased variance.
        """
        for moving, batch in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            old = ops.cast(moving, batch.dtype)
            moving.assign(old * self.momentum + batch * (1 - self.momentum))

    def _fused(self, inputs):
        """Gives the module that has the fused operation, or a false value."""
        return (
            self._fits(inputs)
            and not self.renorm
            and not self.synchronized
            and self.variable_dtype == "float32"
            and (tensorflow_cpu() or jax_operations())
        )

    def _fits(self, inputs):
        return (
            len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.center
            and self.scale
            and keras.backend.standardize_dtype(inputs.dtype) != "float64"
        )
