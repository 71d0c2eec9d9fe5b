"""Batches made ahead of time, by processes that import no JAX."""

import collections
import concurrent.futures
import multiprocessing
import os
import signal
import threading

from jax_cifar10.augmentation import Augmenter
from jax_cifar10.images import load_images

# Batches that are being made or wait, for each worker.
_AHEAD = 2

# That a worker lives on when it is told to end: until the run has saved.
_GRACE = 60  # seconds

_augmenter = None


class Batches:
    """All batches of a run, in their order, whoever makes them.

    Args:
        folder: Path of what `open_images` kept.
        settings: Tuple, the arguments of an `Augmenter` after its images.
        steps_per_epoch: Integer.
        workers: Integer, how many processes; 0 for this one alone.
    """

    def __init__(self, folder, settings, steps_per_epoch, workers):
        self.steps_per_epoch = steps_per_epoch
        self.workers = workers
        arguments = (str(folder), settings)
        if not workers:
            self._executor = None
            _begin(*arguments)
            return
        # A fork would take JAX's threads along, or rather their locks.
        self._executor = concurrent.futures.ProcessPoolExecutor(
            workers,
            multiprocessing.get_context("spawn"),
            _begin_worker,
            arguments,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._executor:
            self._executor.shutdown(cancel_futures=True)

    def between(self, first, end):
        """Yields the batches of the updates from `first` up to before `end`.

        Args:
            first: Integer, updates made before.
            end: Integer.

        Yields:
            What `Augmenter.batch` returns.
        """
        positions = (
            divmod(step, self.steps_per_epoch) for step in range(first, end)
        )
        if not self._executor:
            yield from map(_make, positions)
            return
        waiting = collections.deque()
        for position in positions:
            waiting.append(self._executor.submit(_make, position))
            if len(waiting) > _AHEAD * self.workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _begin(folder, settings):
    global _augmenter
    _augmenter = Augmenter(load_images(folder, "train"), *settings)


def _begin_worker(folder, settings):
    # These are for the run, which ends its workers when it has saved. But a
    # pool that lost a worker sends SIGTERM to the others, and waits for them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)
    parent = multiprocessing.parent_process()

    def end_with_parent():
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    _begin(folder, settings)


def _end_later(number, frame):
    timer = threading.Timer(_GRACE, os._exit, [1])
    timer.daemon = True
    timer.start()


def _make(position):
    return _augmenter.batch(*position)
