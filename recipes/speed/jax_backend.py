"""Our steps in JAX. Functions are those of `tensorflow_backend`."""

import functools

import jax


def set_up(threads, tf32):
    """Settles the precision; of threads the environment decides."""
    precision = None if tf32 else "highest"
    jax.config.update("jax_default_matmul_precision", precision)


def describe():
    """Names the device and the versions."""
    device = jax.local_devices()[0]
    return {
        "jax": jax.__version__,
        "kind": "cpu" if device.platform == "cpu" else "gpu",
        "device": device.device_kind,
        "platform": device.client.platform_version,
    }


def wait(x):
    """Waits until an array is computed."""
    x.block_until_ready()


def free_memory():
    """Forgets what was compiled, and the weights in it."""
    jax.clear_caches()


def infer(model, images, compiled):
    """Builds a forward pass; it is compiled in any case."""
    weights = _values(model.trainable_variables)
    statistics = _values(model.non_trainable_variables)

    @jax.jit
    def forward(weights, statistics, x):
        return model.stateless_call(weights, statistics, x, training=False)[0]

    return lambda: forward(weights, statistics, images)


def train(model, optimizer, loss_of, images, labels, compiled):
    """Builds a training step, which changes weights where they are."""
    state = (
        _values(model.trainable_variables),
        _values(model.non_trainable_variables),
        _values(optimizer.variables),
    )

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state, x, y):
        weights, statistics, moments = state

        def forward(weights):
            logits, moved = model.stateless_call(
                weights, statistics, x, training=True
            )
            return loss_of(y, logits), moved

        (loss, statistics), gradients = jax.value_and_grad(
            forward, has_aux=True
        )(weights)
        weights, moments = optimizer.stateless_apply(
            moments, gradients, weights
        )
        return (weights, statistics, moments), loss

    def step():
        nonlocal state
        state, loss = train_step(state, images, labels)
        return loss

    return step


def _values(variables):
    return [variable.value for variable in variables]
