"""Freezes batch normalization while the rest of a model trains."""

import keras


def freeze_batch_norm(model: keras.Model) -> int:
    """Freezes all batch normalizations of a model, including nested ones.

    A ConvMixer's batch normalizations are inside its blocks, where a loop over
    `model.layers` does not find them. A frozen one normalizes with its stored
    mean and variance. These, its scale and its offset do not change, so a small
    data set or small batches can't degrade them. Saved files and copies of the
    model stay frozen. Setting `model.trainable` to `False` and then to `True`
    unfreezes the layers; call this function again afterwards.

    Args:
        model: A built `keras.Model` or layer. Nested models are searched, too.
            Compile the model afterwards, as after every change of `trainable`.

    Returns:
        Integer, the number of layers found.

    Raises:
        ValueError: If there are none, or if the model is not built.

    Example:

    ```python
    model = ConvMixer(
        256, 8, 5, 2, input_shape=(32, 32, 3), weights="cifar10", classes=10
    )
    freeze_batch_norm(model)  # 17
    model.compile("adamw", "sparse_categorical_crossentropy")
    ```
    """
    found = [
        layer
        for layer in _layers_in(model, set())
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not found or not getattr(model, "built", False):
        raise ValueError(
            "Argument `model` must be a built model with batch normalization "
            f"in it. Received: {model!r}, with {len(found)} such layers"
        )
    for layer in found:
        layer.trainable = False
    return len(found)


def _layers_in(value, seen):
    """Yields each layer in a layer, a list or a dictionary once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, keras.Layer):
        yield value
        value = [*vars(value).values(), *getattr(value, "layers", ())]
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _layers_in(inner, seen)
