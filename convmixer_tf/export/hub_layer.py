"""A TF Hub module as a trainable Keras 3 layer."""

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
    """A layer from a reusable SavedModel, such as from `export_tfhub`.

    It corresponds to `hub.KerasLayer` in tf_keras. The module's variables are
    the layer's weights, training updates its batch statistics, and its
    regularization losses are the layer's losses. If `trainable` is false, it
    runs in inference mode. A module without an argument `training` computes the
    same in both modes. It computes in the module's own dtypes, independent of
    the dtype policy. Images are cast to the module's input dtype, such as
    float32 or uint8.

    A saved model that contains the layer holds its weights but not its graph.
    The folder must be at the same path when the model is loaded.

    Reference: https://www.tensorflow.org/hub/reusable_saved_models

    Args:
        folder: Path of the SavedModel. For a URL, use
            `tensorflow_hub.resolve(url)`.
        trainable: Boolean, whether to train the module's weights.
        **kwargs: The argument `name` of `keras.layers.Layer`.

    Input shape:
        The module's input shape: (batch, height, width, channels), or a list or
        dictionary of shapes.

    Output shape:
        The module's output shape: (batch, classes), (batch, dim), or a
        dictionary of such shapes.

    Raises:
        FileNotFoundError: If there is no SavedModel at `folder`.
        ValueError: If it is not a reusable SavedModel, or if Keras does not use
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
                f"There is no SavedModel at `{folder}`. Pass the folder that "
                f"contains `{SAVED_MODEL_FILE}`."
            )
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.folder = os.fspath(folder)
        self._module = tf.saved_model.load(self.folder)
        if not callable(self._module):
            raise ValueError(
                f"The SavedModel at `{folder}` is not reusable: it has no "
                "`__call__`. `export_tfhub` writes reusable ones. To use its "
                "signatures, use keras.layers.TFSMLayer(folder, "
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
        self.trainable = trainable  # Also sets it for the variables.

    def call(self, inputs, training=None):
        training = bool(training and self.trainable)
        if training:
            for loss in getattr(self._module, "regularization_losses", ()):
                self.add_loss(loss())
        mode = {"training": training} if self._takes_training else {}
        return self._module(self._cast(inputs), **mode)

    @property
    def _takes(self):
        """Returns the module's input, one `tf.TensorSpec` or a structure."""
        function = self._module.__call__.concrete_functions[0]
        return function.structured_input_signature[0][0]

    def _cast(self, inputs):
        """Casts inputs to the module's input dtypes."""
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
        """Traces the module in inference mode. Returns its symbolic outputs."""
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
    """Wraps a TensorFlow variable of the module as a Keras variable."""
    return keras.Variable(
        variable,
        trainable=trainable,
        dtype=variable.dtype.name,
        name=variable.name.partition(":")[0].replace("/", "_"),
    )
