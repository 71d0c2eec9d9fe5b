"""Knowledge distillation from a trained model."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from convmixer_tf.models.open_model import OpenedModel
from convmixer_tf.models.probabilities import activation_of_keras
from convmixer_tf.preprocessing import match_classes
from convmixer_tf.training.loss import cross_entropy


def build_teacher(
    opened: OpenedModel, class_names: tuple[str, ...], image_size: int
) -> keras.Model:
    """Builds a teacher that returns logits of the student's classes.

    Args:
        opened: Classifier from `models.open_model`. It must know the student's
            classes and may know others. If its images have another size, the
            student's images are resized.
        class_names: Names of the student's classes, in order.
        image_size: Side of the student's images, in pixels.

    Returns:
        A `keras.Model` of pixels in [0, 255]. It is not trainable.

    Raises:
        ValueError: If the teacher does not know the classes, or if its outputs
            are neither logits nor softmax probabilities.
    """
    model = opened.model
    count = model.output_shape[-1]
    activation = activation_of_keras(model)
    if activation not in ("linear", "softmax") or count < 2:
        raise ValueError(
            "The teacher must return logits or softmax probabilities of at "
            f"least two classes. Received: {count} outputs with the activation "
            f"{activation!r}"
        )
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] != 3:
        raise ValueError(
            "The teacher must take images of 3 channels, (batch, height, "
            f"width, 3). Received: a model of {shape}"
        )
    indices = match_classes(class_names, opened.class_names, count)
    inputs = keras.Input((image_size, image_size, 3))
    height, width = shape[1:3]
    images = inputs
    if height not in (None, image_size) or width not in (None, image_size):
        images = ops.image.resize(images, (height, width))
    logits = model(images * (opened.max_pixel / 255), training=False)
    logits = ops.cast(logits, "float32")
    if activation == "softmax":  # The logits, up to a constant.
        logits = ops.log(ops.maximum(logits, 1e-30))
    logits = ops.take(logits, np.asarray(indices), axis=-1)
    teacher = keras.Model(inputs, logits, name="teacher")
    teacher.trainable = False
    return teacher


def distillation_loss(labels, logits, teacher_logits, weight, temperature):
    """Computes the cross-entropy against labels and against a teacher.

    Reference: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural
    Network", https://arxiv.org/abs/1503.02531

    Args:
        labels: As for `cross_entropy`.
        logits: Tensor of shape (batch, classes), the student's logits.
        teacher_logits: Tensor of the same shape.
        weight: Weight of the teacher in the loss, from 0 to 1.
        temperature: Divisor of all logits in the teacher's part of the loss.
            That part is multiplied by its square, so that its gradient keeps
            its magnitude.

    Returns:
        Float32 tensor of shape (batch,).
    """
    soft = tf.nn.softmax(tf.cast(teacher_logits, tf.float32) / temperature)
    learned = cross_entropy(soft, tf.cast(logits, tf.float32) / temperature)
    given = cross_entropy(labels, logits)
    return (1 - weight) * given + weight * temperature**2 * learned
