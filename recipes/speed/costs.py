"""What a ConvMixer costs, from its shape, and how long that should take."""

import dataclasses
import itertools

from convmixer_tf.weights import PUBLISHED_WEIGHTS
from speed.cases import DTYPES
from speed.cases import STEPS
from speed.cases import Model

MODELS = {
    name.removeprefix("convmixer_"): Model(
        **{
            field.name: getattr(facts, field.name)
            for field in dataclasses.fields(Model)
        }
    )
    for name, facts in PUBLISHED_WEIGHTS.items()
}
MODELS["16_2"] = Model(16, 2, 3, 4, "gelu", 32, 10)  # To try the command.

_BYTES = {"float32": 4, "bfloat16": 2}


@dataclasses.dataclass(frozen=True)
class Rates:
    """What a device can do.

    Attributes:
        device: Its name.
        matrix: Dictionary from dtypes to FLOP/s of matrix products.
        vector: FLOP/s of multiply-adds outside of matrix products.
        copy: Bytes/s, read and written ones added up.
    """

    device: str
    matrix: dict
    vector: float
    copy: float


# bfloat16 and copy: measured through PyTorch on such a card, on random data.
# vector: NVIDIA's data sheet. float32 in TensorFloat-32: half of bfloat16, as
# in the data sheet.
H200 = Rates(
    "NVIDIA H200", {"bfloat16": 790e12, "float32": 395e12}, 67e12, 4.3e12
)


@dataclasses.dataclass(frozen=True)
class Layer:
    """What a convolution, or the classifier, costs for one image.

    Attributes:
        macs: Integer, multiply-accumulates of the forward pass.
        inputs: Integer, values that it reads.
        outputs: Integer, values that it writes.
        depthwise: Boolean, whether it is a depthwise convolution, which has a
            residual connection around it.
    """

    macs: int
    inputs: int
    outputs: int
    depthwise: bool = False


def layers(model):
    """Lists a model's convolutions and its classifier.

    Args:
        model: A `Model`.

    Returns:
        List of `Layer`; the classifier is the last.
    """
    patches = (model.image_size // model.patch_size) ** 2
    values = patches * model.dim
    patch = 3 * model.patch_size**2
    block = [
        Layer(values * model.kernel_size**2, values, values, depthwise=True),
        Layer(values * model.dim, values, values),
    ]
    return [
        Layer(values * patch, patches * patch, values),
        *block * model.depth,
        Layer(model.dim * model.classes, values, model.classes),
    ]


def macs(model, step="infer"):
    """Counts multiply-accumulates for one image, depthwise ones too.

    Args:
        model: A `Model`.
        step: `"infer"` or `"train"`, which is three times as much: the
            gradients of inputs and of kernels.

    Returns:
        Integer.
    """
    return (3 if step == "train" else 1) * sum(x.macs for x in layers(model))


def passes(layer, step, fused):
    """Lists the passes over memory that a layer takes, with what follows it.

    What follows a convolution is activation, normalisation and, after a
    depthwise one, the residual sum. "Fused" is the least: these are computed
    as a convolution writes, or as the next one reads; the batch's statistics
    alone need a pass of their own, in the backward direction. Otherwise they
    are what a compiler makes that does not look into convolutions: one pass
    in inference; in training one that activates and adds up, one that
    normalises, and two in the backward direction.

    Args:
        layer: A `Layer`.
        step: `"infer"` or `"train"`.
        fused: Boolean.

    Returns:
        List of tuples: multiply-accumulates, and values read and written.
    """
    x, y = layer.inputs, layer.outputs
    residual = y if layer.depthwise else 0
    forward = [(layer.macs, x + y)]
    if step == "infer":
        return forward if fused else [*forward, (0, 2 * y + residual)]
    if fused:
        # Both gradients read the output's gradient and what was activated.
        return [*forward, (0, 2 * y), *[(layer.macs, x + 2 * y)] * 2]
    return [
        *forward,
        (0, 2 * y),  # activation, sums
        (0, 2 * y + residual),  # normalisation
        (0, 2 * y),  # sums of the normalisation's gradient
        (0, 4 * y),  # gradient of normalisation and activation
        *[(layer.macs, x + y)] * 2,  # gradients of input and kernel
        (0, 3 * residual),  # sum of both branches' gradients
    ]


def least_bytes(model, step, dtype):
    """Counts bytes read and written for one image, in "fused" passes.

    Args:
        model: A `Model`.
        step: `"infer"` or `"train"`.
        dtype: `"float32"` or `"bfloat16"`, of the maps between layers.

    Returns:
        Integer.
    """
    return _BYTES[dtype] * sum(
        values for x in layers(model) for _, values in passes(x, step, True)
    )


def predict(model, step, dtype, rates):
    """Computes how long a device should take.

    A pass takes as long as the slower of arithmetic and memory. Depthwise
    convolutions multiply outside of matrix products. Weights and the optimizer
    are left out: their part is small in a large batch.

    Args:
        model: A `Model`.
        step: `"infer"` or `"train"`.
        dtype: `"float32"` or `"bfloat16"`.
        rates: A `Rates`.

    Returns:
        Dictionary of milliseconds per image: "roofline", all multiplications
        as matrix products and nothing else; "copies", the bytes of "fused"
        and nothing else; "fused" and "unfused", see `passes`.
    """
    matrix = rates.matrix[dtype]

    def milliseconds(fused):
        return 1e3 * sum(
            max(
                2 * count / (rates.vector if layer.depthwise else matrix),
                values * _BYTES[dtype] / rates.copy,
            )
            for layer in layers(model)
            for count, values in passes(layer, step, fused)
        )

    return {
        "roofline": 1e3 * 2 * macs(model, step) / matrix,
        "copies": 1e3 * least_bytes(model, step, dtype) / rates.copy,
        "fused": milliseconds(True),
        "unfused": milliseconds(False),
    }


def predictions(names, rates):
    """Predicts every step of some models in every dtype.

    Args:
        names: Iterable of names in `MODELS`.
        rates: A `Rates`.

    Returns:
        Dictionary, ready for JSON.
    """
    return {
        "rates": dataclasses.asdict(rates),
        "ms_per_image": [
            {
                "model": name,
                "step": step,
                "dtype": dtype,
                "gflop": 2e-9 * macs(MODELS[name], step),
                **predict(MODELS[name], step, dtype, rates),
            }
            for name, step, dtype in itertools.product(names, STEPS, DTYPES)
        ],
    }
