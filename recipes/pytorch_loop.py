"""A plain PyTorch loop that trains timm's ConvMixer, for `compare_pytorch.py`.

From our side come the weights to start from, the batches, the learning rates,
the counting of right answers and the log. Model, loss, gradient, clipping,
optimizer and batch normalisation are PyTorch's.
"""

import math
import statistics

import keras
import numpy as np
import tensorflow as tf
import torch
from absl import logging
from timm.models.convmixer import ConvMixer

from convmixer_tf import weights
from convmixer_tf.files import replaced
from convmixer_tf.preprocessing import CIFAR10_MEAN
from convmixer_tf.preprocessing import CIFAR10_STD
from convmixer_tf.training import evaluate_function
from convmixer_tf.training.run_log import RunLog
from convmixer_tf.training.run_log import open_run
from convmixer_tf.training.schedule import make_schedule
from convmixer_tf.weights.names import to_keras


def train(
    config, build_model, train_batches, test_batches, folder, notes, clock
):
    """Trains in a plain PyTorch loop, or goes on training.

    Args:
        config: As for `convmixer_tf.training.train`, like all up to `notes`.
        build_model: The same.
        train_batches: The same.
        test_batches: The same, what to evaluate on.
        folder: `pathlib.Path` of the run's folder.
        notes: The same.
        clock: Anything with `start(epoch)` and `stop()`, which are called
            before and after the updates of an epoch.
    """
    open_run(folder, config, notes)
    model = timm_twin(config.seed, build_model)
    optimizer = torch_optimizer(config, model)
    history = restore(folder / "checkpoint.pt", model, optimizer)
    log = RunLog(folder, config, len(history) * config.steps_per_epoch)
    context = tf.distribute.InputContext()
    for epoch in range(len(history), config.epochs):
        clock.start(epoch)
        batches = train_batches(epoch, 0, context)
        loss = train_epoch(config, model, optimizer, batches, epoch, log)
        clock.stop()
        scores = evaluate(model, test_batches(context))
        history.append(
            {
                "epoch": epoch + 1,
                "step": (epoch + 1) * config.steps_per_epoch,
                "learning_rate": optimizer.param_groups[0]["lr"],
                "train_loss": loss,
                "loss": scores.loss,
                "top1": scores.top1,
                "top5": scores.top5,
            }
        )
        log.add_epoch(history)
        save(folder / "checkpoint.pt", model, optimizer, history)
    log.close({"last": history[-1]})


def timm_twin(seed, build_model):
    """Builds timm's model with the weights that our engine starts from.

    Args:
        seed: Integer, the seed of the run.
        build_model: As for `train`.

    Returns:
        A `torch.nn.Module` for images of shape (batch, 3, height, width),
        normalised, in channels-last memory, which is PyTorch's faster layout
        here.
    """
    keras.utils.set_random_seed(seed)
    ours = build_model()
    state = weights.timm_state_dict(ours)
    architecture = weights.infer_architecture(to_keras(state))
    twin = ConvMixer(
        architecture.dim,
        architecture.depth,
        kernel_size=architecture.kernel_size,
        patch_size=architecture.patch_size,
        num_classes=architecture.classes,
    )
    twin.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    return twin.to(memory_format=torch.channels_last)


def torch_optimizer(config, model):
    """Builds `torch.optim.AdamW` with the settings of a config.

    Args:
        config: A `TrainConfig`.
        model: A `torch.nn.Module`.

    Returns:
        A `torch.optim.Optimizer`.
    """
    decayed, others = [], []
    for parameter in model.parameters():
        decays = config.decay_all or parameter.ndim > 1
        (decayed if decays else others).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(config.beta_1, config.beta_2),
        eps=config.epsilon,
    )


def train_epoch(config, model, optimizer, batches, epoch, log):
    """Trains for one epoch.

    Args:
        config: A `TrainConfig`.
        model: A `torch.nn.Module`.
        optimizer: A `torch.optim.Optimizer` of its parameters.
        batches: What `data.train_batches` returns.
        epoch: Integer, from 0.
        log: A `RunLog`, or anything with its `add_step`.

    Returns:
        Float, the mean loss.
    """
    first = epoch * config.steps_per_epoch
    steps = tf.range(first, first + config.steps_per_epoch)
    rates = make_schedule(config)(steps).numpy().tolist()
    model.train()
    losses = []
    # The rates come first, so that no batch is fetched after the last step.
    for rate, (images, shares) in zip(rates, batches, strict=False):
        logits = model(network_input(images))
        loss = torch.nn.functional.cross_entropy(
            logits, torch.tensor(shares.numpy())
        )
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(
            model.parameters(), config.clip_norm or math.inf
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss.item())
        log.add_step(
            {"loss": losses[-1], "gradient_norm": norm, "learning_rate": rate}
        )
    return statistics.fmean(losses)


def evaluate(model, batches):
    """Evaluates a `torch.nn.Module` on what `evaluation_batches` gives."""
    model.eval()

    def predict(images):
        with torch.inference_mode():
            return model(network_input(images)).numpy()

    classes = model.head.out_features
    return evaluate_function(predict, batches, classes)


def network_input(images):
    """Normalises pixels, which our model does by itself.

    Args:
        images: Array or tensor of shape (batch, height, width, 3).

    Returns:
        A `torch.Tensor` of shape (batch, 3, height, width) that lies in memory
        channels last.
    """
    mean, std = torch.tensor([CIFAR10_MEAN, CIFAR10_STD])
    pixels = torch.tensor(np.asarray(images))
    return ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)


def save(path, model, optimizer, history):
    """Writes the state of a PyTorch run, whole or not at all."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
    }
    with replaced(path) as unfinished:
        torch.save(state, unfinished)


def restore(path, model, optimizer):
    """Reads what `save` wrote, if it did.

    Returns:
        List of the epochs so far, which may be empty.
    """
    if not path.exists():
        return []
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    logging.info("Goes on after epoch %d.", len(state["history"]))
    return state["history"]
