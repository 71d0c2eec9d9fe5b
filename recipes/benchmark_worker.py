"""Builds and times the steps of `benchmark.py` in a separate process.

It imports only one framework. A request is one line of JSON on stdin, `[method,
arguments]`. The answer is one line of JSON on stdout, with `"result"` or
`"error"`. All other output goes to stderr.
"""

import importlib
import json
import os
import pathlib
import signal
import sys
import time
import traceback

import numpy as np

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
LEARNING_RATE = 1e-4  # Small, so that nothing overflows.


class KerasFramework:
    """The ConvMixer of the first checkout in `PYTHONPATH`."""

    def __init__(self, threads, compiled):
        import keras

        import convmixer_tf

        self.keras, self.convmixer_tf = keras, convmixer_tf
        self.backend = keras.backend.backend()
        # JAX always compiles. TensorFlow runs graphs by default.
        self.jit_compile = compiled or self.backend == "jax"
        if self.backend == "tensorflow" and threads:
            import tensorflow as tf

            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        elif self.backend == "torch":
            _set_up_torch(threads)

    def describe(self):
        """Describes the device, the versions and the checkout."""
        backend = importlib.import_module(self.backend)
        if self.backend == "torch":
            device = _torch_device()
        else:
            names = self.keras.distribution.list_devices()
            device = "cpu" if names[0].startswith("cpu") else "gpu"
        package = pathlib.Path(self.convmixer_tf.__file__).parent
        return {
            "device": device,
            "backend": self.backend,
            "keras": self.keras.__version__,
            self.backend: backend.__version__,
            "package": str(package),
        }

    def build(self, model, step, dtype, batch_size):
        """Builds a step; see `Worker.build`."""
        keras = self.keras
        keras.backend.clear_session()
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(
            "float32" if dtype == "float32" else f"mixed_{dtype}"
        )
        shape = (model["image_size"], model["image_size"], 3)
        network = self.convmixer_tf.ConvMixer(
            model["dim"],
            model["depth"],
            model["kernel_size"],
            model["patch_size"],
            model["activation"],
            input_shape=shape,
            classes=model["classes"],
            classifier_activation=None,
            include_preprocessing=False,
        )
        network.compile(
            keras.optimizers.AdamW(LEARNING_RATE),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=self.jit_compile,
        )
        images = keras.random.normal((batch_size, *shape))
        if step == "infer":
            return lambda: network.predict_on_batch(images)
        labels = keras.random.randint((batch_size,), 0, model["classes"])
        return lambda: network.train_on_batch(images, labels)


class TimmFramework:
    """timm's ConvMixer, eager or with `torch.compile`."""

    def __init__(self, threads, compiled, channels_last):
        import torch

        _set_up_torch(threads)
        self.torch, self.compiled = torch, compiled
        self.layout = (
            torch.channels_last if channels_last else torch.contiguous_format
        )
        self.device = "cuda" if _torch_device() == "gpu" else "cpu"

    def describe(self):
        """Describes the device and the versions."""
        import timm

        return {
            "device": _torch_device(),
            "torch": self.torch.__version__,
            "timm": timm.__version__,
        }

    def build(self, model, step, dtype, batch_size):
        """Builds a step; see `Worker.build`."""
        from timm.models.convmixer import ConvMixer

        torch = self.torch
        torch._dynamo.reset()  # Discards earlier compilations.
        torch.manual_seed(0)
        activations = {"gelu": torch.nn.GELU, "relu": torch.nn.ReLU}
        network = ConvMixer(
            model["dim"],
            model["depth"],
            kernel_size=model["kernel_size"],
            patch_size=model["patch_size"],
            num_classes=model["classes"],
            act_layer=activations[model["activation"]],
        ).to(self.device, memory_format=self.layout)
        network.train(step == "train")
        size = model["image_size"]
        images = torch.randn(batch_size, 3, size, size, device=self.device)
        images = images.to(memory_format=self.layout)
        half = torch.autocast(
            self.device, torch.bfloat16, enabled=dtype == "bfloat16"
        )
        if self.compiled:
            network = torch.compile(network, dynamic=False)

        @torch.inference_mode()
        def infer():
            with half:
                return network(images).float().cpu().numpy()

        if step == "infer":
            return infer
        labels = torch.randint(
            model["classes"], (batch_size,), device=self.device
        )
        optimizer = torch.optim.AdamW(
            network.parameters(), LEARNING_RATE, fused=True
        )

        def train():
            optimizer.zero_grad()
            with half:
                logits = network(images)
            loss = torch.nn.functional.cross_entropy(logits.float(), labels)
            loss.backward()
            optimizer.step()
            return loss.item()

        return train


def _set_up_torch(threads):
    import torch

    if threads:
        torch.set_num_threads(threads)
    # As in TensorFlow and JAX on a GPU: TensorFloat-32, the best algorithm.
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")


def _torch_device():
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


FRAMEWORKS = {"keras": KerasFramework, "timm": TimmFramework}


class Worker:
    """Handles the requests. Each method is one kind of request."""

    def start(self, framework, options, clock):
        """Imports a framework and describes it."""
        self._clock = CLOCKS[clock]
        self._framework = FRAMEWORKS[framework](**options)
        return self._framework.describe()

    def build(self, **case):
        """Builds a step and returns the seconds of its first run.

        A step ends with the logits or the loss in host memory.
        """
        self._step = None  # Frees the memory of the previous step.
        start = time.perf_counter()
        self._step = self._framework.build(**case)
        output = self._step()
        if not np.isfinite(output).all():
            raise ValueError("The step returned values that are not finite.")
        return time.perf_counter() - start

    def time(self, steps):
        """Returns the mean seconds of several steps.

        One untimed step runs first because other processes used the caches.
        """
        self._step()
        start = self._clock()
        for _ in range(steps):
            self._step()
        return (self._clock() - start) / steps


def main():
    """Answers requests until the end of stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent stops this.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            answer = {"result": getattr(worker, method)(**arguments)}
        except Exception as error:
            traceback.print_exc()
            first = str(error).strip().partition("\n")[0]
            answer = {"error": f"{type(error).__name__}: {first}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
