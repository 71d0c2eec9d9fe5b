"""Our steps in TensorFlow: graphs, or what XLA makes of them."""

import functools

import tensorflow as tf


def set_up(threads, tf32):
    """Settles how the backend computes.

    Args:
        threads: Integer, or `None` for the backend's own choice.
        tf32: Boolean, whether a GPU may multiply float32 in TensorFloat-32.
    """
    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.experimental.enable_tensor_float_32_execution(tf32)


def describe():
    """Names the device and the versions."""
    facts = {"tensorflow": tf.__version__}
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return {**facts, "kind": "cpu", "device": "cpu"}
    details = tf.config.experimental.get_device_details(gpus[0])
    build = tf.sysconfig.get_build_info()
    return {
        **facts,
        "kind": "gpu",
        "device": details.get("device_name"),
        "cuda": build.get("cuda_version"),
        "cudnn": build.get("cudnn_version"),
    }


def wait(x):
    """Waits until a tensor is computed."""
    tf.reshape(x, [-1])[0].numpy()  # All of it would be copied to the host.


def free_memory():
    """Gives back what no tensor uses: TensorFlow does not."""


def infer(model, images, compiled):
    """Builds a forward pass, as `model.predict` runs it.

    Args:
        model: A `keras.Model`.
        images: Tensor, what it takes.
        compiled: Boolean, whether XLA compiles it; elsewhere ignored.

    Returns:
        Function without arguments that gives logits.
    """
    run = tf.distribute.get_strategy().run  # Else layers fuse nothing.
    forward = tf.function(
        functools.partial(run, model, kwargs={"training": False}),
        jit_compile=compiled,
    )
    return lambda: forward((images,))


def train(model, optimizer, loss_of, images, labels, compiled):
    """Builds a training step.

    Args:
        model: A `keras.Model`.
        optimizer: A Keras optimizer, built.
        loss_of: Function of labels and logits.
        images: Tensor, what the model takes.
        labels: Tensor (batch,) of integers.
        compiled: As in `infer`.

    Returns:
        Function without arguments that gives the loss.
    """
    variables = model.trainable_variables

    @functools.partial(tf.function, jit_compile=compiled)
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return lambda: step(images, labels)
