"""A TF Hub module as a layer of Keras 3, to be trained further."""

import os
from typing import Any

import keras
import tensorflow as tf
from keras import layers
from keras import ops

from convmixer_tf.export.preparation import check_backend
from convmixer_tf.export.saved_model import SAVED_MODEL_FILE
from convmixer_tf.files import PathLike


@keras.saving.register_keras_serializable("convmixer_tf")
class HubLayer(layers.Layer):
    """A reusable SavedModel, such as `export_tfhub` writes, as a layer.

    What `hub.KerasLayer` is in tf_keras: the module's variables are the
    layer's weights, training moves its batch statistics, and its
    regularization losses are the layer's. If `trainable` is false it computes
    as in inference. A module that takes no argument `training` computes the
    same in both. It computes in the module's own types, whatever the policy
    is: images are cast to what it takes, such as float32 or uint8.

    A saved model that contains the layer holds its weights, not its graph: the
    folder must be where it was when the model is loaded.

    Reference: https://www.tensorflow.org/hub/reusable_saved_models

    Args:
        folder: Path of the SavedModel. `tensorflow_hub.resolve(url)`
            fetches that of a URL.
        trainable: Boolean, whether to train the module's weights.
        **kwargs: What every `keras.layers.Layer` takes: `name`.

    Input shape:
        What the module takes: (batch, height, width, channels), or a list or
        dictionary of shapes.

    Output shape:
        What the module returns: (batch, classes), (batch, dim), or a
        dictionary of such shapes.

    Raises:
        FileNotFoundError: If there is no SavedModel at `folder`.
        ValueError: If it is not a reusable one, or if Keras does not run on
            TensorFlow.

    Example:

    ```python
    images = keras.Input((224, 224, 3))
    features = HubLayer("module/saved_model")(images)
    model = keras.Model(images, layers.Dense(10)(features))
    model.compile(keras.optimizers.AdamW(1e-3), "mse")
    ```
    """

    def __init__(
        self, folder: PathLike, trainable: bool = True, **kwargs: Any
    ) -> None:
        check_backend("TF Hub modules")
        if not os.path.isfile(os.path.join(folder, SAVED_MODEL_FILE)):
            raise FileNotFoundError(
                f"There is no SavedModel at `{folder}`. It must be the folder "
                f"that holds `{SAVED_MODEL_FILE}`."
            )
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.folder = os.fspath(folder)
        self._module = tf.saved_model.load(self.folder)
        if not callable(self._module):
            raise ValueError(
                f"The SavedModel at `{folder}` can't be built upon: it has no "
                "`__call__`. `export_tfhub` writes one that has. To compute "
                "with its signatures, use keras.layers.TFSMLayer(folder, "
                f"call_endpoint=...), one of {list(self._module.signatures)}."
            )
        self._takes_training = (
            "training" in self._module.__call__.function_type.parameters
        )
        trained = {
            variable.ref()
            for variable in getattr(self._module, "trainable_variables", ())
        }
        self._module_variables = [
            _shared(variable, variable.ref() in trained)
            for variable in getattr(self._module, "variables", ())
        ]
        self.trainable = trainable  # Of the variables, too.

    def call(self, inputs, training=None):
        training = bool(training and self.trainable)
        if training:
            for loss in getattr(self._module, "regularization_losses", ()):
                self.add_loss(loss())
        mode = {"training": training} if self._takes_training else {}
        return self._module(self._cast(inputs), **mode)

    @property
    def _takes(self):
        """What the module takes, a `tf.TensorSpec` or several packed."""
        function = self._module.__call__.concrete_functions[0]
        return function.structured_input_signature[0][0]

    def _cast(self, inputs):
        """Casts what is of another type than the module takes."""
        tensors = [
            x if x.dtype == spec.dtype else ops.cast(x, spec.dtype.name)
            for x, spec in zip(
                tf.nest.flatten(inputs),
                tf.nest.flatten(self._takes),
                strict=True,
            )
        ]
        return tf.nest.pack_sequence_as(self._takes, tensors)

    def compute_output_shape(self, input_shape):
        return tf.nest.map_structure(
            lambda output: tuple(output.shape), self._trace(input_shape)
        )

    def compute_output_spec(self, inputs, training=None):
        return tf.nest.map_structure(
            lambda output: keras.KerasTensor(
                tuple(output.shape), output.dtype.name
            ),
            self._trace(tf.nest.map_structure(lambda x: x.shape, inputs)),
        )

    def _trace(self, input_shape):
        """Traces the module in inference; returns its symbolic outputs."""
        traced = tf.function(self.call, autograph=False)
        specs = keras.tree.map_structure_up_to(
            self._takes,
            lambda spec, shape: tf.TensorSpec(shape, spec.dtype),
            self._takes,
            input_shape,
        )
        return traced.get_concrete_function(specs).structured_outputs

    def get_config(self):
        return {**super().get_config(), "folder": self.folder}


def _shared(variable, trainable):
    """Makes a Keras variable that is a TensorFlow variable of the module."""
    return keras.Variable(
        variable,
        trainable=trainable,
        dtype=variable.dtype.name,
        name=variable.name.partition(":")[0].replace("/", "_"),
    )
