"""Old names of layers that Keras provides, for saved files and imports.

Deprecated: the next release removes them.
"""

import keras
from keras.layers import BatchNormalization
from keras.layers import DepthwiseConv2D

for _layer in (BatchNormalization, DepthwiseConv2D):
    _name = f"convmixer_tf>{_layer.__name__}"
    keras.saving.get_custom_objects()[_name] = _layer
