"""Converts any Keras model to ONNX, operation by operation."""

import warnings

import keras
import numpy as np
import tensorflow as tf

from convmixer_tf.export.preparation import rebuilt
from convmixer_tf.layers._fast.choice import plain_operations
from convmixer_tf.models.structure import is_inactive

_SIDES = ("batch", "height", "width")  # Sizes that need not be fixed.


def import_tf2onnx():
    """Imports `tf2onnx`, or raises an error with install instructions."""
    try:
        import tf2onnx
    except ImportError as error:
        raise ImportError(
            "Exporting ONNX with plain=True needs `tf2onnx`: "
            "pip install tf2onnx."
        ) from error
    return tf2onnx


def convert_plain(model, batch_size, pixels, opset):
    """Converts a Keras model with tf2onnx.

    Args:
        model: A `keras.Model` that passes `check_image_model`.
        batch_size: Integer, or `None` for any.
        pixels: `"float32"` or `"uint8"`, the type of the input.
        opset: Integer, the version of the operators.

    Returns:
        An `onnx.ModelProto` from `image` to `predictions`.

    Raises:
        ValueError: If tf2onnx can't convert the model.
    """
    tf2onnx = import_tf2onnx()
    model = rebuilt(model, _change)
    shape = (batch_size, *model.input_shape[1:])
    spec = tf.TensorSpec(shape, pixels, "image")

    @tf.function(input_signature=[spec], autograph=False)
    def serve(image):
        image = tf.cast(image, tf.float32)
        return {"predictions": model(image, training=False)}

    with warnings.catch_warnings(), plain_operations():
        # Keras restores names of NumPy 1 that tf2onnx expects.
        warnings.filterwarnings("ignore", "In the future `np.", FutureWarning)
        try:
            content, _ = tf2onnx.convert.from_function(
                serve,
                [spec],
                opset=opset,
                custom_op_handlers={"Erfc": (_write_erfc, [])},
            )
        except Exception as error:  # tf2onnx raises many types.
            raise ValueError(
                f"tf2onnx can't convert this model: {error}"
            ) from error
    for tensor in (*content.graph.input, *content.graph.output):
        sides = tensor.type.tensor_type.shape.dim
        for side, name in zip(sides, _SIDES, strict=False):
            if not side.HasField("dim_value"):
                side.dim_param = name
    return content


def _change(layer):
    """Replaces layers that tf2onnx can't convert with equivalent ones."""
    if is_inactive(layer):
        return keras.layers.Identity(name=layer.name)
    if isinstance(layer, keras.layers.Normalization):
        # Its constants would become inputs of the file. They are image-shaped,
        # so that they do not depend on the global data format.
        mean, variance = map(np.float64, (layer.mean[0], layer.variance[0]))
        std = np.maximum(np.sqrt(variance), keras.config.epsilon())
        scale, offset = 1 / std, -mean / std
        if layer.invert:
            scale, offset = std, mean
        return keras.layers.Rescaling(
            scale.tolist(), offset.tolist(), name=layer.name
        )
    return {}


def _write_erfc(context, node, name, arguments):
    """Writes Erfc, which ONNX lacks and Keras' GELU uses, as 1 - Erf."""
    del arguments
    outputs = node.output
    shapes = [context.get_shape(outputs[0])]
    dtypes = [context.get_dtype(outputs[0])]
    context.remove_node(name)
    erf = context.make_node("Erf", node.input)
    one = context.make_const(f"{name}_one", np.float32(1.0))
    context.make_node(
        "Sub",
        [one.output[0], erf.output[0]],
        outputs=outputs,
        name=name,
        shapes=shapes,
        dtypes=dtypes,
    )
