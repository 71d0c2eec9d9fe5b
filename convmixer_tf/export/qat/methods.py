"""What fine-tuning does to the layers, one class for each method.

In the worker's process only. Each has `wrap`, for `build_twin`; `prepare`,
called with the twin before the training; `before_step`; and `weights`, called
after the training, which gives a list of arrays for each layer.
"""

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

from convmixer_tf.export.qat.quantizers import Outputs
from convmixer_tf.export.qat.quantizers import RoundedLayer

_BATCH_SIZE = 64
# The ramp of the sparsity: in so many steps, if the training has enough.
_PRUNINGS = 20
_KERNELS = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel"}


class Float:
    """Trains the twin as it is."""

    def wrap(self, node, layer):
        """Leaves the layer as it is."""
        return layer

    def prepare(self, twin):
        """Keeps the twin at hand."""
        self.twin = twin

    def before_step(self):
        """Does nothing."""

    def weights(self):
        """Reads the weights off the variables."""
        return {
            name: [variable.numpy() for variable in variables]
            for name, variables in self.twin.variables.items()
        }


class Quantize(Float):
    """Rounds what `quantization.quantize` rounds in the file.

    Args:
        nodes: What `graph.describe` returns.
        scheme: `"int8"`, `"dynamic"` or `"int4"`.
        ranges: Dictionary from layers' names to the least and the largest
            value that they give. For `"int8"`.
    """

    def __init__(self, nodes, scheme, ranges=None):
        self._plan = plan_rounding(nodes, scheme)
        self._bits = 4 if scheme == "int4" else 8
        self._ranges = ranges
        self._outputs = {}

    def wrap(self, node, layer):
        """Wraps the layers that the file rounds something of."""
        name = node["name"]
        kernel, rounds_outputs = self._plan[name]
        if rounds_outputs:
            self._outputs[name] = Outputs()
        elif kernel is None:
            return layer
        config = RoundedLayer(kernel, self._bits, self._outputs.get(name))
        return tfmot.quantization.keras.QuantizeWrapperV2(layer, config)

    def prepare(self, twin):
        """Sets the ranges, which are far off at first."""
        super().prepare(twin)
        for name, outputs in self._outputs.items():
            outputs.set_range(*self._ranges[name])


def plan_rounding(nodes, scheme):
    """Decides what to round, as `quantization.quantize` does for the file.

    In "dynamic" and "int4", the kernels of the 1 x 1 convolutions. The
    rounding of what they are given depends on the image and is left out.

    In "int8" all, with exceptions. The stem and what scales its output first
    compute in float, as pooling and the classifier do. A ReLU becomes one
    operator with the layer before it. What is concatenated shares the range of
    the whole.

    Args:
        nodes: What `graph.describe` returns.
        scheme: `"int8"`, `"dynamic"` or `"int4"`.

    Returns:
        Dictionary from layers' names to pairs: the name of the kernel to
        round, or `None`; and whether to round the layer's output.
    """
    if scheme != "int8":
        return {
            node["name"]: ("kernel" if _is_pointwise(node) else None, False)
            for node in nodes
        }
    consumers = {node["name"]: [] for node in nodes}
    for node in nodes:
        for source in node["inputs"]:
            consumers[source].append(node)
    plan = {}
    for node in nodes:
        name, kind = node["name"], node["kind"]
        is_stem = name == "image" or name.startswith("patch_embed")
        is_affine = name.startswith("block_0_affine")
        kernel = None if is_stem or is_affine else _KERNELS.get(kind)
        passed_on = consumers[name] and all(
            consumer["kind"] == "Concatenate"
            or consumer["arguments"].get("activation") == "relu"
            for consumer in consumers[name]
        )
        rounds_outputs = (
            kind in ("Activation", "Add", "Concatenate", *_KERNELS)
            and not is_stem
            and not passed_on
        )
        plan[name] = (kernel, rounds_outputs)
    return plan


def measure_ranges(twin, images):
    """Finds the least and largest value of what each layer gives.

    Args:
        twin: A `Twin` without wrappers.
        images: uint8 array of pixels.

    Returns:
        Dictionary from layers' names to pairs of floats.
    """
    layers = twin.model.layers[1:]
    every = tf_keras.Model(twin.model.input, [x.output for x in layers])
    lows, highs = [], []
    for start in range(0, len(images), _BATCH_SIZE):
        outputs = every(np.float32(images[start : start + _BATCH_SIZE]))
        lows.append([np.min(x) for x in outputs])
        highs.append([np.max(x) for x in outputs])
    lows, highs = np.min(lows, axis=0), np.max(highs, axis=0)
    return {
        layer.name: (float(low), float(high))
        for layer, low, high in zip(layers, lows, highs, strict=True)
    }


def _is_pointwise(node):
    return (
        node["kind"] == "Conv2D"
        and not node["name"].startswith("patch_embed")
        and tuple(node["arguments"]["kernel_size"]) == (1, 1)
    )


class Prune(Float):
    """Sets more and more of the 1 x 1 convolutions' weights to 0.

    Args:
        sparsity: Fraction of them in the end.
        steps: Integer, updates of the whole training.
    """

    def __init__(self, sparsity, steps):
        prunings = max(1, min(_PRUNINGS, steps // 2))
        every = max(1, steps // (2 * prunings))
        self._schedule = tfmot.sparsity.keras.PolynomialDecay(
            initial_sparsity=0.0,
            final_sparsity=sparsity,
            begin_step=0,
            end_step=prunings * every,
            frequency=every,
        )
        self._callback = tfmot.sparsity.keras.UpdatePruningStep()

    def wrap(self, node, layer):
        """Wraps the 1 x 1 convolutions."""
        if not _is_pointwise(node):
            return layer
        return tfmot.sparsity.keras.prune_low_magnitude(layer, self._schedule)

    def prepare(self, twin):
        """Starts to count the updates."""
        super().prepare(twin)
        self._callback.set_model(twin.model)
        self._callback.on_train_begin()

    def before_step(self):
        """Tells the wrappers the number of the update."""
        self._callback.on_train_batch_begin(0)

    def weights(self):
        """Reads the weights, after what the last update undid is undone."""
        self._callback.on_epoch_end(0)
        return super().weights()


class Cluster(Float):
    """Lets each kernel of a 1 x 1 convolution have few different values.

    Args:
        clusters: Integer, how many.
    """

    def __init__(self, clusters):
        self._clusters = clusters
        self._names = []

    def wrap(self, node, layer):
        """Wraps the 1 x 1 convolutions."""
        if not _is_pointwise(node):
            return layer
        self._names.append(node["name"])
        start = tfmot.clustering.keras.CentroidInitialization
        return tfmot.clustering.keras.cluster_weights(
            layer,
            number_of_clusters=self._clusters,
            cluster_centroids_init=start.KMEANS_PLUS_PLUS,
        )

    def weights(self):
        """Reads the weights, and of the wrapped layers their clusters."""
        stripped = tfmot.clustering.keras.strip_clustering(self.twin.model)
        return super().weights() | {
            name: stripped.get_layer(name).get_weights() for name in self._names
        }
