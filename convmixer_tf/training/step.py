"""One update of the weights, on every replica."""

import functools

import tensorflow as tf

from convmixer_tf.training.averages import MovingAverage
from convmixer_tf.training.averages import averaging_over_replicas
from convmixer_tf.training.averages import batch_norms
from convmixer_tf.training.distillation import distillation_loss
from convmixer_tf.training.loss import binary_cross_entropy
from convmixer_tf.training.loss import cross_entropy
from convmixer_tf.training.loss import focal_loss
from convmixer_tf.training.loss_scale import LossScale
from convmixer_tf.training.muon import Muon
from convmixer_tf.training.optimizer import AdamW
from convmixer_tf.training.optimizer import clip_by_global_norm
from convmixer_tf.training.optimizer import layer_rates
from convmixer_tf.training.optimizer import raw
from convmixer_tf.training.schedule import make_schedule
from convmixer_tf.training.strategy import on_replicas
from convmixer_tf.training.strategy import resolve_jit_compile

RESULTS = ("loss", "gradient_norm", "learning_rate")


class Engine:
    """A model, its optimizer and the function that updates the weights.

    The gradient is first summed over replicas. Then it is unscaled, checked and
    clipped, with the same result on all replicas. Then it is applied. Keras
    clips before the sum, which has little effect with ten replicas.

    Build it in the scope of the strategy.

    Args:
        config: A `TrainConfig`.
        model: A `keras.Model` that returns logits.
        strategy: The `tf.distribute.Strategy` in whose scope `model` was built.
        teacher: A `keras.Model` that returns logits for the same images, also
            built in the scope of `strategy`, or `None`. It is not trained.

    Attributes:
        merge_batch_norms: Function without arguments that averages the
            running statistics over replicas, as the authors do after each
            epoch. Between calls, each replica updates its own.
    """

    def __init__(self, config, model, strategy, teacher=None):
        self.config = config
        self.model = model
        self.teacher = teacher
        self.strategy = strategy
        variables = model.trainable_variables
        self.optimizer = _make_optimizer(config, variables)
        self._losses = {
            "softmax": cross_entropy,
            "sigmoid": binary_cross_entropy,
            "focal": focal_loss,
        }[config.loss]
        self.schedule = make_schedule(config)
        self.average = self.loss_scale = None
        if config.ema_decay is not None:
            self.average = MovingAverage(model, config.ema_decay)
        if "float16" in {layer.compute_dtype for layer in model.layers}:
            self.loss_scale = LossScale()
        for norm in batch_norms(model):
            norm.synchronized = config.sync_batch_norm
        self.steps = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.first_bad_step = tf.Variable(-1, trainable=False, dtype=tf.int64)
        self._variables = [raw(variable) for variable in variables]
        self._sums = self._accumulators()
        # The mean is linear, so averaging more often does not change it.
        self.merge_batch_norms = averaging_over_replicas(
            strategy, self._running_statistics()
        )
        self._compile()
        self._updates = tf.function(self._run_updates)

    def update(self, batches, count=1):
        """Updates the weights `count` times in one call.

        Args:
            batches: Iterator of batches from a distributed dataset: images and
                labels. Labels are integers of shape (batch,), or target
                distributions of shape (batch, classes). Each update uses
                `config.accumulation_steps` batches.
            count: Integer, the number of updates.

        Returns:
            Dictionary of tensors (count,): the "loss" (mean over the augmented
            images), the "gradient_norm" before clipping and the
            "learning_rate". Reading a value waits for the updates.

        Raises:
            tf.errors.OutOfRangeError: If there are too few batches.
        """
        results = self._updates(batches, tf.constant(count))
        return dict(zip(RESULTS, tf.unstack(results, axis=1), strict=True))

    def state(self):
        """Collects the state that a run needs to be resumed exactly.

        Returns:
            A `tf.train.Checkpoint`. The model's variables include the states of
            its random generators, which Keras does not save.
        """
        parts = {
            "model": [raw(variable) for variable in self.model.variables],
            **self.optimizer.state(),
            "steps": self.steps,
            "first_bad_step": self.first_bad_step,
        }
        if self.average:
            parts["average"] = self.average.means
        if self.loss_scale:
            parts["factor"] = self.loss_scale.factor
            parts["good_steps"] = self.loss_scale.good_steps
        return tf.train.Checkpoint(**parts)

    def spread_seeds(self):
        """Gives each replica its own dropout. Call it at process start."""
        weights = {id(weight) for weight in self.model.weights}
        seeds = [
            raw(variable)
            for variable in self.model.variables
            if id(variable) not in weights
        ]

        def spread():
            context = tf.distribute.get_replica_context()
            replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
            for seed in seeds:
                offset = tf.stack([replica * 1_000_003, 0])
                seed.assign_add(tf.cast(offset, seed.dtype))

        if seeds and self.strategy.num_replicas_in_sync > 1:
            on_replicas(self.strategy, spread)()

    def _compile(self):
        """Compiles as much as possible with XLA: all, with a single replica."""
        config, strategy = self.config, self.strategy
        if not resolve_jit_compile(
            config.jit_compile, strategy, config.sync_batch_norm
        ):
            return
        names = ("_accumulate", "_update")
        if strategy.num_replicas_in_sync > 1:
            names = ("_loss_and_gradients",)
        for name in names:
            function = tf.function(getattr(self, name), jit_compile=True)
            setattr(self, name, function)

    def _running_statistics(self):
        statistics = [
            variable
            for norm in batch_norms(self.model)
            for variable in (norm.moving_mean, norm.moving_variance)
        ]
        return statistics + (self.average.means if self.average else [])

    def _accumulators(self):
        if self.config.accumulation_steps == 1:
            return []
        shapes = [()] + [variable.shape for variable in self._variables]
        return [
            tf.Variable(
                tf.zeros(shape),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
            for shape in shapes
        ]

    def _run_updates(self, batches, count):
        rows = tf.TensorArray(tf.float32, count, element_shape=(3,))
        for i in tf.range(count):
            for _ in range(self.config.accumulation_steps - 1):
                self._accumulate(next(batches))
            rows = rows.write(i, self._update(next(batches)))
        return rows.stack()

    def _accumulate(self, batch):
        self.strategy.run(self._replica_accumulate, args=batch)

    def _update(self, batch):
        results = self.strategy.run(self._replica_update, args=batch)
        return self.strategy.experimental_local_results(results)[0]

    def _replica_accumulate(self, images, labels):
        values = self._loss_and_gradients(images, labels)
        for total, value in zip(self._sums, values, strict=True):
            total.assign_add(value)

    def _replica_update(self, images, labels):
        context = tf.distribute.get_replica_context()
        values = self._loss_and_gradients(images, labels)
        if self._sums:
            values = [
                total.read_value() + value
                for total, value in zip(self._sums, values, strict=True)
            ]
            for total in self._sums:
                total.assign(tf.zeros(total.shape))
        values = context.all_reduce(tf.distribute.ReduceOp.SUM, values)
        loss, *gradients = values
        if self.loss_scale:
            factor = self.loss_scale.factor.read_value()
            gradients = [gradient / factor for gradient in gradients]
        gradients, norm = clip_by_global_norm(gradients, self.config.clip_norm)
        good = tf.math.is_finite(loss)
        finite = tf.math.is_finite(norm) & good
        rate = self.schedule(self.steps.read_value())
        context.merge_call(self._apply, args=(gradients, rate, finite, good))
        return tf.stack([loss, norm, rate])

    def _loss_and_gradients(self, images, labels):
        """Computes this replica's part of the loss and of its gradient."""
        images = tf.cast(images, tf.float32)  # They arrive as uint8.
        teach = self._teaching(images)
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            losses = teach(labels, logits)
            loss = scaled = tf.reduce_sum(losses) / self.config.batch_size
            if self.loss_scale:
                scaled = loss * self.loss_scale.factor
        gradients = tape.gradient(
            scaled,
            self._variables,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return [loss, *gradients]

    def _teaching(self, images):
        """Returns the loss as a function of the labels and the logits."""
        if self.teacher is None:
            return self._losses
        return functools.partial(
            distillation_loss,
            teacher_logits=self.teacher(images, training=False),
            weight=self.config.distillation_weight,
            temperature=self.config.distillation_temperature,
        )

    def _apply(self, strategy, gradients, rate, finite, good):
        self.optimizer.apply(strategy, gradients, rate, finite)
        if self.average:
            self.average.apply(strategy)
        if self.loss_scale:
            self.loss_scale.apply(strategy, finite)
        factor = self.loss_scale.factor if self.loss_scale else None
        strategy.extended.update(
            self.steps,
            self._count,
            args=(self.first_bad_step, finite, good, factor),
            group=False,
        )

    def _count(self, steps, first_bad_step, finite, good, factor):
        if factor is not None:
            # The loss scale handles occasional gradient overflows. If the loss
            # is not finite, the batch normalizations are corrupted.
            finite = good & (factor > 2.0**-14)
        steps.assign_add(1)
        is_first = ~finite & (first_bad_step < 0)
        first_bad_step.assign(tf.where(is_first, steps, first_bad_step))


def _make_optimizer(config, variables):
    settings = {
        "beta_1": config.beta_1,
        "beta_2": config.beta_2,
        "epsilon": config.epsilon,
        "weight_decay": config.weight_decay,
        "decay_all": config.decay_all,
        "rate_scales": layer_rates(variables, config.layer_decay),
    }
    if config.optimizer == "adamw":
        return AdamW(variables, **settings)
    ratio = config.muon_learning_rate / config.learning_rate
    return Muon(variables, ratio, **settings)
