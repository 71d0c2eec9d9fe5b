"""Computes the effective float weights of quantized and LoRA layers.

After `model.quantize`, Keras stores a layer's kernel as integers with scales.
After `enable_lora`, it stores the update in two more matrices. In both cases
`layer.kernel` differs from the weights that the layer computes with.
"""

import ml_dtypes
import numpy as np

_FLOAT8_MAX = float(ml_dtypes.finfo("float8_e4m3fn").max)


def is_plain(layer):
    """Returns whether `layer` computes with its variables unchanged."""
    lora = getattr(layer, "lora_enabled", False)
    return not lora and getattr(layer, "quantization_mode", None) is None


def effective_weights(layer):
    """Computes the weights that a convolution or dense layer computes with.

    A quantized kernel is dequantized. A LoRA update is added to its kernel. In
    `float8`, kernel and bias are rounded as the layer rounds them. `int8` and
    `float8` also round a layer's inputs; that is not part of the weights and is
    not included.

    Args:
        layer: A built Keras layer with a kernel: `Dense`, `Conv2D` or
            `DepthwiseConv2D`, quantized in any mode of Keras or not at all.

    Returns:
        Tuple of two NumPy arrays: the kernel in its shape before quantization,
        and the bias or `None`. They are in float32, or in the dtype of the
        variables if the layer is not quantized and has no LoRA.

    Raises:
        ValueError: If the layer has no kernel or another quantization mode.

    Example:

    ```python
    model.quantize("int8")
    kernel, bias = effective_weights(model.get_layer("predictions"))
    kernel.dtype  # float32
    ```
    """
    values = _values_by_name(layer)
    mode = getattr(layer, "quantization_mode", None)
    if "kernel" not in values:
        raise ValueError(
            "Argument `layer` must be a built layer with a kernel. "
            f"Received: layer={layer!r}"
        )
    if is_plain(layer):
        return values["kernel"], values.get("bias")
    uncalibrated = mode in ("gptq", "awq") and not getattr(
        layer, f"is_{mode}_calibrated"
    )
    if mode is None or uncalibrated:
        kernel = values["kernel"].astype("float32")
    else:
        kernel = dequantize(mode, values, getattr(layer, "units", None))
    if getattr(layer, "lora_enabled", False):
        update = values["lora_kernel_a"] @ values["lora_kernel_b"]
        kernel = kernel + layer.lora_alpha / layer.lora_rank * update
    bias = values.get("bias")
    if bias is not None:
        bias = bias.astype("float32")
        if mode == "float8" and layer.compute_dtype == "float32":
            bias = round_bfloat16(bias)
    return kernel.astype("float32"), bias


def dequantize(mode, values, units):
    """Computes the kernel of a quantized `Dense` layer.

    Args:
        mode: Quantization mode of Keras: `"int8"`, `"int4"`, `"float8"`,
            `"gptq"` or `"awq"`.
        values: Dictionary from the names of the layer's variables to arrays.
        units: Number of outputs.

    Returns:
        Array of shape (inputs, units), in float32.

    Raises:
        ValueError: If the mode is not one of these.
    """
    kernel = values["kernel"]
    scale = values["kernel_scale"].astype("float32")
    zero = values.get("kernel_zero")
    if mode == "float8":
        rounded = np.clip(
            kernel.astype("float32") / scale, -_FLOAT8_MAX, _FLOAT8_MAX
        ).astype(ml_dtypes.float8_e4m3fn)
        return rounded.astype("float32") * scale
    if mode == "int4":
        kernel = _unpack(kernel, units)
    elif mode in ("gptq", "awq"):
        # (outputs, inputs). 4-bit values are packed along the outputs.
        kernel, scale, zero = kernel.T, scale.T, zero.T
        if kernel.shape[1] != units:
            kernel = _unpack(kernel, units)
    elif mode != "int8":
        raise ValueError(
            "Quantization mode must be int8, int4, float8, gptq or awq. "
            f"Received: {mode!r}"
        )
    if zero is None:
        return kernel.astype("float32") / scale
    groups = values["g_idx"].astype("int32")
    kernel = kernel.astype("float32") - zero.astype("float32")[groups]
    kernel = kernel * scale[groups]
    if mode == "awq":
        kernel = kernel / values["awq_scales"].astype("float32")[:, None]
    return kernel


def round_bfloat16(bias):
    """Rounds a bias to bfloat16, as a `float8` layer does."""
    return bias.astype(ml_dtypes.bfloat16).astype("float32")


def _values_by_name(layer):
    """Maps names to a layer's variables. Its own variables take precedence."""
    values = {}
    calibrated = getattr(layer, "is_gptq_calibrated", False) or getattr(
        layer, "is_awq_calibrated", False
    )
    for variable in layer.variables:
        # Before calibration, a layer has its old kernel and an empty one.
        empty = variable.dtype == "uint8" and variable.name == "kernel"
        if not empty or calibrated:
            values[variable.name] = np.asarray(variable.numpy())
    return values


def _unpack(packed, units):
    """Unpacks two 4-bit integers from each byte of the last axis."""
    pairs = np.stack([packed & 15, packed >> 4 & 15], axis=-1)
    unpacked = pairs.reshape(*packed.shape[:-1], -1)[..., :units]
    if packed.dtype == np.int8:
        return (unpacked ^ 8) - 8
    return unpacked
