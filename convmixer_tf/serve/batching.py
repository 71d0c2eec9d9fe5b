"""An asynchronous classifier that runs requests in batches."""

import asyncio
import collections
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np


def give_way() -> None:
    """Lowers the priority of this thread below that of the event loop.

    Otherwise rejections wait for the computation when all cores are busy.
    """
    if sys.platform == "linux":  # Elsewhere it would affect the whole process.
        os.nice(5)


class BatchedClassifier:
    """Gathers images into batches.

    Images that arrive while a batch is computed form the next batch.

    Args:
        classifier: A `Classifier`. It is called by one thread at a time.
        max_batch: Integer, the maximum number of images in a batch.
        max_wait: Seconds that an image waits for others while nothing is
            computed.

    Attributes:
        batches: Integer, the number of computed batches.
        images: Integer, the number of classified images.
        blank: An image for health checks.
    """

    def __init__(
        self, classifier: Any, max_batch: int, max_wait: float
    ) -> None:
        self.batches = self.images = 0
        size = classifier.image_size
        self.blank = np.zeros((size, size, 3), np.uint8)
        self._classifier = classifier
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._waiting: collections.deque = collections.deque()
        self._thread = ThreadPoolExecutor(1, initializer=give_way)
        self._work = None

    async def __call__(self, image):
        """Classifies an image.

        If the caller is canceled before the batch starts, the image is skipped.

        Args:
            image: uint8 array of shape (image_size, image_size, 3).

        Returns:
            float32 array of shape (classes,), probabilities.
        """
        scores = asyncio.get_running_loop().create_future()
        self._waiting.append((image, scores))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._run_batches())
        return await scores

    def warm_up(self):
        """Runs the smallest and the largest batch."""
        for count in {1, self._max_batch}:
            self._classifier.predict(np.float32(count * [self.blank]))

    async def _run_batches(self):
        loop = asyncio.get_running_loop()
        if len(self._waiting) < self._max_batch:
            await asyncio.sleep(self._max_wait)
        while batch := self._next_batch():
            images, waiting = zip(*batch, strict=True)
            try:
                scores = await loop.run_in_executor(
                    self._thread, self._predict, images
                )
            except Exception as error:
                for future in waiting:
                    if not future.done():
                        future.set_exception(error)
            else:
                for future, row in zip(waiting, scores, strict=True):
                    if not future.done():
                        future.set_result(row)

    def _next_batch(self):
        batch = []
        while self._waiting and len(batch) < self._max_batch:
            image, scores = self._waiting.popleft()
            if not scores.done():  # Otherwise the caller is gone.
                batch.append((image, scores))
        return batch

    def _predict(self, images):
        scores = np.float32(self._classifier.predict(np.float32(images)))
        self.batches += 1
        self.images += len(images)
        return scores
