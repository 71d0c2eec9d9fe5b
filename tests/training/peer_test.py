"""Twenty steps of ours and of PyTorch's, from the same weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf import ConvMixer
from convmixer_tf.training import TrainConfig
from convmixer_tf.training.step import Engine
from tests.peers import authors_model

STEPS, BATCH, SIZE, CLASSES = 20, 16, 16, 10
DIM, DEPTH, KERNEL, PATCH = 16, 2, 3, 2
PEAK, SMOOTHING, CLIP = 0.01, 0.1, 1.0


def batches():
    rng = np.random.default_rng(0)
    colours = rng.uniform(50, 200, (CLASSES, 1, 1, 3))
    for _ in range(STEPS):
        labels = rng.integers(0, CLASSES, BATCH)
        noise = rng.uniform(-50, 50, (BATCH, SIZE, SIZE, 3))
        yield (colours[labels] + noise).astype(np.float32), labels


def rate_of(step):
    """The authors' schedule, over two "epochs" of ten steps each."""
    return np.interp((step + 1) / 10, [0, 0, 1, 2], [0, PEAK, PEAK / 20, 0])


def copy_weights(torch, source, target):
    """From our model to PyTorch's; both list their parameters in order."""
    parameters = list(target.parameters())
    variables = source.trainable_variables
    assert len(parameters) == len(variables)
    for variable, parameter in zip(variables, parameters, strict=True):
        value = variable.numpy()
        if value.ndim == 4:
            depthwise = variable.path.endswith("depthwise/kernel")
            value = value.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        elif value.ndim == 2:
            value = value.T
        assert tuple(parameter.shape) == value.shape
        parameter.data = torch.tensor(value)


def torch_losses(torch, model):
    groups = [
        {"params": [p], "weight_decay": 2e-5 if p.ndim > 1 else 0.0}
        for p in model.parameters()
    ]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, eps=1e-3)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    losses = []
    for step, (images, labels) in enumerate(batches()):
        images = torch.tensor(images.transpose(0, 3, 1, 2).copy()) / 255
        loss = criterion(model((images - mean) / std), torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for group in optimizer.param_groups:
            group["lr"] = rate_of(step)
        optimizer.step()
        losses.append(loss.item())
    return losses


def our_losses(model, strategy):
    config = TrainConfig(
        epochs=2,
        steps_per_epoch=10,
        batch_size=BATCH,
        learning_rate=PEAK,
        clip_norm=CLIP,
    )
    engine = Engine(config, model, strategy)
    losses, norms = [], []
    for images, labels in batches():
        shares = np.eye(CLASSES)[labels] * (1 - SMOOTHING) + SMOOTHING / CLASSES
        results = engine.step([(tf.constant(images), tf.constant(shares))])
        losses.append(float(results["loss"]))
        norms.append(float(results["gradient_norm"]))
    assert max(norms) > CLIP
    return losses


@pytest.mark.peer
def test_twenty_steps_are_pytorchs(one_device):
    torch = pytest.importorskip("torch")
    keras.utils.set_random_seed(0)
    with one_device.scope():
        ours = ConvMixer(
            DIM,
            DEPTH,
            KERNEL,
            PATCH,
            input_shape=(SIZE, SIZE, 3),
            classes=CLASSES,
            classifier_activation=None,
        )
    theirs = authors_model(DIM, DEPTH, KERNEL, PATCH, CLASSES)
    copy_weights(torch, ours, theirs)
    expected = torch_losses(torch, theirs)
    losses = our_losses(ours, one_device)
    np.testing.assert_allclose(losses[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(losses, expected, rtol=2e-5)
    assert losses[-1] < losses[0] - 0.2
    for variable, parameter in zip(
        ours.trainable_variables, theirs.parameters(), strict=True
    ):
        norms = [np.linalg.norm(variable.numpy()), parameter.norm().item()]
        assert norms[0] == pytest.approx(norms[1], rel=1e-4)
