"""One update of the weights, and the model's answers, in JAX."""

import functools
import math

import jax
import jax.numpy as jnp


class Engine:
    """A model and what trains it: AdamW as `convmixer_tf.training` has it.

    Args:
        model: A `keras.Model` that gives logits.
        config: Namespace of fields of a `convmixer_tf.training.TrainConfig`:
            `beta_1`, `beta_2`, `epsilon`, `weight_decay`, `decay_all` and
            `clip_norm`.

    Attributes:
        state: Dictionary of what changes: `"weights"`, `"statistics"` (of the
            batch norms), `"means"` and `"squares"` (running, of the gradient),
            each a list of arrays, and `"count"` of updates.
    """

    def __init__(self, model, config):
        self.model = model
        weights = _values(model.trainable_variables)
        self.state = {
            "weights": weights,
            "statistics": _values(model.non_trainable_variables),
            "means": [jnp.zeros_like(weight) for weight in weights],
            "squares": [jnp.zeros_like(weight) for weight in weights],
            "count": jnp.zeros((), jnp.int32),
        }
        self._update = jax.jit(
            functools.partial(_update, model, config), donate_argnums=0
        )
        self._answer = jax.jit(functools.partial(_answer, model))

    def step(self, images, labels, rate):
        """Updates the weights once.

        Args:
            images: Array of shape (batch, height, width, 3), of pixels.
            labels: float32 array of shape (batch, classes), shares of classes.
            rate: Float, the learning rate.

        Returns:
            The loss, a scalar on the device; NaN if the gradient is not
            finite. Reading it waits for the update.
        """
        self.state, loss = self._update(self.state, images, labels, rate)
        return loss

    def logits(self, images):
        """Classifies images, as in inference.

        Args:
            images: Array of shape (batch, height, width, 3), of pixels.

        Returns:
            float32 array on the device, of shape (batch, classes).
        """
        return self._answer(
            self.state["weights"], self.state["statistics"], images
        )

    def store_weights(self):
        """Puts the weights into the model."""
        for variables, values in (
            (self.model.trainable_variables, self.state["weights"]),
            (self.model.non_trainable_variables, self.state["statistics"]),
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)


def _values(variables):
    # Copies: an update gives its arguments' memory to its results.
    return [jnp.array(variable.value) for variable in variables]


def _answer(model, weights, statistics, images):
    logits, _ = model.stateless_call(
        weights, statistics, images.astype(jnp.float32), training=False
    )
    return logits.astype(jnp.float32)


def _update(model, config, state, images, labels, rate):
    def forward(weights):
        logits, statistics = model.stateless_call(
            weights,
            state["statistics"],
            images.astype(jnp.float32),
            training=True,
        )
        logs = jax.nn.log_softmax(logits.astype(jnp.float32))
        return -jnp.mean(jnp.sum(labels * logs, axis=-1)), statistics

    (loss, statistics), gradients = jax.value_and_grad(forward, has_aux=True)(
        state["weights"]
    )
    norm = jnp.sqrt(sum(jnp.sum(x * x) for x in gradients))
    if config.clip_norm is not None:
        factor = jnp.minimum(config.clip_norm / (norm + 1e-6), 1.0)
        gradients = [gradient * factor for gradient in gradients]
    new = {**state, "statistics": statistics, "count": state["count"] + 1}
    rows = zip(
        state["weights"],
        gradients,
        state["means"],
        state["squares"],
        strict=True,
    )
    updated = [_adamw(config, new["count"], rate, *row) for row in rows]
    for i, name in enumerate(("weights", "means", "squares")):
        new[name] = [row[i] for row in updated]
    return new, jnp.where(jnp.isfinite(norm), loss, jnp.nan)


def _adamw(config, count, rate, w, gradient, mean, square):
    """As `convmixer_tf.training.optimizer.AdamW`, and so as PyTorch."""
    mean = mean + (gradient - mean) * (1 - config.beta_1)
    square = square + (gradient * gradient - square) * (1 - config.beta_2)
    step_size = rate / _bias_correction(config.beta_1, count)
    root = jnp.sqrt(square / _bias_correction(config.beta_2, count))
    decays = config.decay_all or w.ndim > 1
    kept = 1 - rate * config.weight_decay if decays else 1
    return (
        w * kept - step_size * mean / (root + config.epsilon),
        mean,
        square,
    )


def _bias_correction(beta, count):
    # 1 - beta**count, without losing the digits that 1 - 0.999 loses.
    if not beta:
        return 1.0
    return -jnp.expm1(count.astype(jnp.float32) * math.log(beta))
