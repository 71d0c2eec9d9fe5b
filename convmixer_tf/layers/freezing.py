"""Which layers within a layer are not trained, so that files can say it."""


def frozen_names(layer, *names):
    """Lists the layers within a layer that are not trained although it is.

    Args:
        layer: A layer with the attribute `frozen`, as it was built with.
        *names: Names of its attributes that are layers, as these are called.

    Returns:
        List of names.
    """
    if not layer.built:
        return list(layer.frozen)
    if not layer.trainable:  # Then none is.
        return []
    return [name for name in names if not getattr(layer, name).trainable]
