"""What a model sees, and what it costs."""

from convmixer_tf.analysis.activation_maps import class_activation_map
from convmixer_tf.analysis.activation_maps import save_activation_maps
from convmixer_tf.analysis.costs import costs_table
from convmixer_tf.analysis.costs import layer_costs
from convmixer_tf.analysis.costs import save_costs
from convmixer_tf.analysis.dense import dense_classifier
from convmixer_tf.analysis.dense import save_label_map
from convmixer_tf.analysis.features import feature_extractor
from convmixer_tf.analysis.features import save_feature_maps
from convmixer_tf.analysis.filters import save_depthwise_filters
from convmixer_tf.analysis.filters import save_patch_filters
from convmixer_tf.analysis.macs import count_macs
from convmixer_tf.analysis.receptive_field import receptive_fields
from convmixer_tf.analysis.receptive_field import save_receptive_fields
from convmixer_tf.deprecation import renamed

__all__ = [
    "class_activation_map",
    "costs_table",
    "count_macs",
    "dense_classifier",
    "feature_extractor",
    "layer_costs",
    "receptive_fields",
    "save_activation_maps",
    "save_costs",
    "save_depthwise_filters",
    "save_feature_maps",
    "save_label_map",
    "save_patch_filters",
    "save_receptive_fields",
]

__getattr__ = renamed(
    __name__,
    {
        "ActivationMaps": "activation_maps.ActivationMaps",
        "LayerCosts": "costs.LayerCosts",
    },
)
