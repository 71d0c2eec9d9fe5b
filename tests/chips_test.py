"""Tests the trainer, compiled for described TPUs and run on CPUs.

`pytest -m chips` needs the environment for TPUs that BUILD.md describes.
"""

import functools
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf import ConvMixer1024_20
from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers._fast import tensorflow_cpu
from convmixer_tf.training import step
from convmixer_tf.training import trainer
from convmixer_tf.training.evaluation import Evaluator
from convmixer_tf.training.inputs import distribute
from convmixer_tf.training.optimizer import raw
from convmixer_tf.training.strategy import on_replicas
from recipes import described_chips
from tests.training import tiny

pytestmark = pytest.mark.chips
REPLICAS = 4


@pytest.fixture(scope="module", autouse=True)
def _no_cpu_paths():
    """Makes the layers choose the operations for TPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorflow_cpu, "only_cpus", lambda: False)
        yield


@pytest.fixture(scope="module")
def devices():
    """4 described chips of a v5e; JAX also gets 4 CPUs."""
    jax = pytest.importorskip("jax")
    pytest.importorskip("libtpu")
    jax.config.update("jax_num_cpu_devices", REPLICAS)
    jax.config.update("jax_enable_x64", True)
    return described_chips.described_devices("v5e:2x2")


@pytest.fixture(scope="module")
def strategy(devices):
    return described_chips.tpu_strategy(REPLICAS)


@pytest.fixture(scope="module")
def mirrored():
    """A single one: two on the same devices would share their keys."""
    return tf.distribute.MirroredStrategy(
        [f"/cpu:{i}" for i in range(REPLICAS)]
    )


@pytest.fixture(scope="module", params=["tiny", "1024_20"])
def engine(request, strategy):
    if request.param == "tiny":
        return build_engine(strategy, tiny.build_model, dropout=0.1)
    build = functools.partial(
        ConvMixer1024_20, weights=None, classifier_activation=None
    )
    return build_engine(strategy, build, "mixed_bfloat16", dropout=0.1)


def build_engine(
    strategy, build=tiny.build_model, policy="float32", dropout=0.0, **changes
):
    config = tiny.config(
        **{"batch_size": 64, "accumulation_steps": 2, "ema_decay": 0.9},
        **{"clip_norm": 0.3, "learning_rate": 0.05, **changes},
    )
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(1)
    with strategy.scope():
        return step.Engine(config, build(dropout=dropout), strategy)


def batch_of(engine):
    spec = functools.partial(described_chips.per_replica, engine.strategy)
    images = (8, *engine.model.input_shape[1:])
    return spec(images, "uint8"), spec((8,), "int32")


def lowered(function, *arguments):
    function = getattr(function, "python_function", function)
    concrete = tf.function(function).get_concrete_function(*arguments)
    return described_chips.Program(concrete)


def compiled(devices, function, *arguments):
    """Compiles a function of replicas and returns the text of the program."""
    program = lowered(function, *arguments)
    executable = described_chips.compile_program(program, devices)
    text = executable.hlo_modules()[0].to_string()
    for host_or_dynamic in ("infeed(", "outfeed(", "send(", "recv(", "[<="):
        assert host_or_dynamic not in text, host_or_dynamic
    return text


def test_an_update_compiles(engine, devices):
    batch = batch_of(engine)
    compiled(devices, engine._accumulate, batch)
    # The gradients are reduced together, not one by one.
    assert compiled(devices, engine._update, batch).count(" all-reduce(") <= 3


def test_an_evaluation_compiles(engine, devices):
    weights = described_chips.per_replica(engine.strategy, (8,), "float32")
    evaluator = Evaluator(engine.model, engine.strategy)
    compiled(devices, evaluator._judge, (*batch_of(engine), weights))


def test_what_comes_between_updates_compiles(engine, devices, monkeypatch):
    done = []

    def compile_instead(strategy, function):
        def call():
            compiled(devices, on_replicas(strategy, function))
            done.append(function.__name__)
            return tf.constant(0)

        return call

    for module in (step, trainer):
        monkeypatch.setattr(module, "on_replicas", compile_instead)
    compiled(devices, engine.merge_batch_norms)
    engine.spread_seeds()
    trainer._sum_over_replicas(engine.strategy, 3)
    assert done == ["spread", "add"]


def test_the_table_has_what_the_compiler_says(strategy, devices, monkeypatch):
    folder = pathlib.Path(described_chips.__file__).parent
    monkeypatch.syspath_prepend(folder)
    import compile_for_chips

    with strategy.scope():
        model = tiny.build_model()
    program = compile_for_chips.lower_update(strategy, model, 8)
    row = compile_for_chips.measure(program, "v5e", 8, 1)
    assert row["fits"]
    assert row["estimated_ms"] > 0
    gradients = sum(np.prod(x.shape) for x in model.trainable_variables)
    reduced = 1e6 * row["megabytes_all_reduced"]
    assert reduced == pytest.approx(4 * (gradients + 1))  # 1: the loss.


def test_remat_is_computed_twice(strategy, devices):
    def convolutions(remat):
        with strategy.scope():
            block = ConvMixerBlock(3, remat=remat)
            block.build((None, 16, 16, 8))

        def train(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = block(x, training=True)
            return y, tape.gradient(y, [x, *tape.watched_variables()])

        def run(x):
            return strategy.run(train, args=(x,))

        x = described_chips.per_replica(strategy, (8, 16, 16, 8), "float32")
        return compiled(devices, run, x).count(" convolution(")

    assert convolutions(remat=True) == convolutions(remat=False) + 2


def test_an_absent_tpu_is_an_error_soon():
    code = "from convmixer_tf.training import make_strategy as make"
    finished = subprocess.run(
        [sys.executable, "-c", f"{code}; make('tpu')"],
        env={k: v for k, v in os.environ.items() if not k.startswith("TPU_")},
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    assert "needs a TPU in this machine" in finished.stderr


def call_python(x):
    return tf.py_function(lambda x: x, [x], tf.float32)


def print_it(x):
    tf.print(x)
    return x


def leave_out(x):
    return tf.boolean_mask(x, x > 0)


@pytest.mark.parametrize(
    ("function", "message"),
    [(call_python, "PyFunc"), (print_it, "StringFormat"), (leave_out, r"\[<=")],
)
def test_what_a_tpu_should_not_do_is_found(
    strategy, devices, function, message
):
    def run(x):
        return strategy.run(function, args=(x,))

    x = described_chips.per_replica(strategy, (8,), "float32")
    with pytest.raises(Exception, match=message):
        compiled(devices, run, x)


def test_a_lambda_is_refused(strategy):
    update = tf.function(lambda: strategy.run(tf.constant, args=(1,)))
    with pytest.raises(ValueError, match="not a valid root scope name"):
        update.get_concrete_function()


def variables_of(engine):
    return [
        *map(raw, engine.model.variables),
        *(engine.optimizer.means + engine.optimizer.squares),
        *(engine.optimizer.updates, engine.steps, engine.first_bad_step),
        *(engine.average.means + engine._sums),
    ]


def run_on_cpus(program, arguments, state):
    """Runs a program with one CPU for each replica and updates the state."""
    import jax

    cpus = jax.devices("cpu")
    mesh = jax.sharding.Mesh(np.array(cpus), ("replica",))

    def sharded(parts):
        axes = ["replica"] if np.ndim(parts[0]) else []
        spec = jax.sharding.PartitionSpec(*axes)
        shape = np.shape(parts[0])
        return jax.make_array_from_single_device_arrays(
            tuple(
                REPLICAS * side if i == 0 else side
                for i, side in enumerate(shape)
            ),
            jax.sharding.NamedSharding(mesh, spec),
            [
                jax.device_put(x, cpu)
                for x, cpu in zip(parts, cpus, strict=True)
            ],
        )

    values = [*arguments, *(state[id(x)] for x in program.resources)]
    executable = described_chips.compile_program(program, cpus)
    results = executable.execute_sharded(list(map(sharded, values)))
    results = results.disassemble_into_single_device_arrays()
    first = len(results) - len(program.resources)
    for handle, copies in zip(program.resources, results[first:], strict=True):
        state[id(handle)] = list(map(np.asarray, copies))
    return [np.asarray(copies[0]) for copies in results[:first]]


@pytest.mark.parametrize(
    ("policy", "sync", "tolerance"),
    [
        ("float32", False, 1e-5),
        ("float32", True, 1e-5),
        # bfloat16 has 8 significant bits, and the two round at other places.
        # An offset that starts at 0 differs by 3.4 %, because Adam's first
        # steps divide by the gradient's own size.
        ("mixed_bfloat16", False, 0.05),
    ],
)
def test_it_computes_what_mirrored_cpus_do(
    strategy, mirrored, policy, sync, tolerance
):
    """Two updates of two batches each, on four replicas."""
    changes = {"policy": policy, "sync_batch_norm": sync}
    ours = build_engine(strategy, **changes)
    theirs = build_engine(mirrored, **changes)
    pairs = list(zip(*map(variables_of, (ours, theirs)), strict=True))
    state = {}
    for our, their in pairs[: -len(ours._sums)]:
        their.assign(our.values[0].numpy())
    for our, _ in pairs:
        copies = [copy.numpy() for copy in our.values]
        state[id(our.values[0].handle)] = copies

    batch = batch_of(ours)
    programs = [lowered(x, batch) for x in (ours._accumulate, ours._update)]
    images, labels = tiny.examples()
    images = images.astype("uint8")
    for i in range(4):
        parts = [np.split(x[32 * i :][:32], REPLICAS) for x in (images, labels)]
        results = run_on_cpus(programs[i % 2], parts, state)
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    data = data.batch(32, drop_remainder=True)
    expected = theirs.update(iter(distribute(mirrored, lambda _: data)), 2)

    for value, name in zip(results[0], step.RESULTS, strict=True):
        assert value == pytest.approx(
            float(expected[name][1]), rel=tolerance / 5
        )
    for our, their in pairs:
        for copy, want in zip(
            state[id(our.values[0].handle)], their.values, strict=True
        ):
            want = want.numpy()
            largest = max(np.max(np.abs(want)), 1e-7)
            assert np.max(np.abs(copy - want)) <= tolerance * largest
