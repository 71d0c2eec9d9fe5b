"""Pictures of what a model sees, and its costs."""

from convmixer_tf.analysis.activation_maps import class_activation_map
from convmixer_tf.analysis.costs import layer_costs
from convmixer_tf.analysis.dense import dense_classifier
from convmixer_tf.analysis.dense import save_label_map
from convmixer_tf.analysis.features import feature_extractor
from convmixer_tf.analysis.look_inside import look_inside
from convmixer_tf.analysis.macs import count_macs
from convmixer_tf.analysis.receptive_field import receptive_fields
from convmixer_tf.deprecation import renamed

__all__ = [
    "class_activation_map",
    "count_macs",
    "dense_classifier",
    "feature_extractor",
    "layer_costs",
    "look_inside",
    "receptive_fields",
    "save_label_map",
]

__getattr__ = renamed(
    __name__,
    {
        "costs_table": "costs.costs_table",
        "save_activation_maps": "activation_maps.save_activation_maps",
        "save_costs": "costs.save_costs",
        "save_depthwise_filters": "filters.save_depthwise_filters",
        "save_feature_maps": "features.save_feature_maps",
        "save_patch_filters": "filters.save_patch_filters",
        "save_receptive_fields": "receptive_field.save_receptive_fields",
        "ActivationMaps": "activation_maps.ActivationMaps",
        "LayerCosts": "costs.LayerCosts",
    },
)
