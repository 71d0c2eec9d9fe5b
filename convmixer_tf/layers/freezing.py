"""Lists frozen sublayers, so that a layer's config can store them."""


def frozen_names(layer, *names):
    """Lists the frozen sublayers of a trainable layer.

    Args:
        layer: A layer with the attribute `frozen`, the names it was built with.
        *names: Names of the layer's attributes that hold sublayers. An
            attribute and its sublayer have the same name.

    Returns:
        List of names.
    """
    if not layer.built:
        return list(layer.frozen)
    if not layer.trainable:  # Then no sublayer is trainable.
        return []
    return [name for name in names if not getattr(layer, name).trainable]
