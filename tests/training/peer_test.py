"""Compares twenty steps with PyTorch's, from the same weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf import ConvMixer
from convmixer_tf.training import TrainConfig
from convmixer_tf.training.step import Engine
from convmixer_tf.weights import timm_state_dict
from tests.peers import import_timm

EPOCHS, STEPS_PER_EPOCH, BATCH, SIZE, CLASSES = 5, 4, 32, 32, 10
DIM, DEPTH, KERNEL, PATCH = 64, 4, 5, 4
PEAK, SMOOTHING, CLIP, DECAY = 0.01, 0.1, 1.0, 0.05


def batches():
    rng = np.random.default_rng(0)
    colors = rng.uniform(50, 200, (CLASSES, 1, 1, 3))
    for _ in range(EPOCHS * STEPS_PER_EPOCH):
        labels = rng.integers(0, CLASSES, BATCH)
        noise = rng.uniform(-50, 50, (BATCH, SIZE, SIZE, 3))
        yield (colors[labels] + noise).astype(np.float32), labels


def rate_of(step):
    """The authors' schedule with all its pieces in five short "epochs"."""
    time = (step + 1) / STEPS_PER_EPOCH
    return np.interp(time, [0, 2, 4, 5], [0, PEAK, PEAK / 20, 0])


def torch_losses(torch, model):
    groups = [
        {"params": [p], "weight_decay": DECAY if p.ndim > 1 else 0.0}
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
        epochs=EPOCHS,
        steps_per_epoch=STEPS_PER_EPOCH,
        batch_size=BATCH,
        learning_rate=PEAK,
        weight_decay=DECAY,
        clip_norm=CLIP,
    )
    engine = Engine(config, model, strategy)
    losses, norms = [], []
    for images, labels in batches():
        shares = np.eye(CLASSES)[labels] * (1 - SMOOTHING) + SMOOTHING / CLASSES
        data = tf.data.Dataset.from_tensors((images, shares))
        results = engine.update(iter(data))
        losses.append(float(results["loss"][0]))
        norms.append(float(results["gradient_norm"][0]))
    assert sum(norm > CLIP for norm in norms) >= 5
    return losses


@pytest.mark.peer
def test_twenty_steps_are_those_of_timms_model_in_pytorch(one_device):
    import_timm()
    import torch
    from timm.models.convmixer import ConvMixer as TimmConvMixer

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
    theirs = TimmConvMixer(
        DIM, DEPTH, kernel_size=KERNEL, patch_size=PATCH, num_classes=CLASSES
    )
    start = {k: torch.tensor(v) for k, v in timm_state_dict(ours).items()}
    theirs.load_state_dict(start)
    expected = torch_losses(torch, theirs)
    losses = our_losses(ours, one_device)
    np.testing.assert_allclose(losses[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    assert losses[-1] < losses[0] - 0.2
    check_states(timm_state_dict(ours), theirs.state_dict())


def check_states(ours, theirs):
    """Compares timm state dicts after all steps."""
    steps = EPOCHS * STEPS_PER_EPOCH
    count = BATCH * (SIZE // PATCH) ** 2  # values per channel and batch
    for name, actual in ours.items():
        expected = theirs[name].numpy()
        if name.endswith("num_batches_tracked"):
            assert expected == steps
            continue
        if name.endswith("running_var"):
            # PyTorch's variance is that of a sample, Keras's of the batch.
            rest = 0.9**steps  # remaining weight of the initial ones
            expected = rest + (expected - rest) * (count - 1) / count
        difference = np.linalg.norm(actual - expected)
        assert difference < 1e-5 * np.linalg.norm(expected), name
