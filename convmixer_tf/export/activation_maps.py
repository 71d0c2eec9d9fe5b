"""Class activation maps as an output of a deployed classifier."""

import keras
from keras import layers

from convmixer_tf.export.construction import STOCK
from convmixer_tf.export.construction import convolve

# What the output is called, and the layer that computes it.
MAPS = "class_activation_maps"


def add_activation_maps(deployed):
    """Lets a classifier say where in the image it sees each class.

    Average pooling and the classifier are both linear, so their order does
    not matter: the classifier is applied at each position, and the mean over
    the positions is the logit. The maps cost no weights of their own.

    Args:
        deployed: What `deploy` returns for a classifier.

    Returns:
        A functional `keras.Model` of the same input and two outputs, a
        dictionary: `"predictions"`, as before, and `"class_activation_maps"`,
        of shape (batch, rows, columns, classes), in patches, whose mean over
        rows and columns are the logits.

    Raises:
        ValueError: If the model does not end in average pooling and a
            classifier.
    """
    pool, head = deployed.layers[-2:]
    if not isinstance(pool, layers.GlobalAveragePooling2D):
        raise ValueError(
            "Class activation maps are of a classifier after average pooling, "
            "such as `include_top=True` gives. Received: a model that ends in "
            f"`{pool.name}` and `{head.name}`"
        )
    kernel, bias = head.get_weights()
    maps = convolve(pool.input, kernel[None, None], bias, MAPS)
    logits = layers.GlobalAveragePooling2D(name="logits", **STOCK)(maps)
    predictions = layers.Activation(
        head.activation, dtype="float32", name="predictions"
    )(logits)
    return keras.Model(
        deployed.input,
        {"predictions": predictions, MAPS: maps},
        name=deployed.name,
    )
