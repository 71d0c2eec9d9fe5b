"""A classifier that many threads may ask at once, and that runs in batches.

The batches are made by the scheduler that TensorFlow Serving uses too; it is
part of TensorFlow, `tf.nondifferentiable_batch_function`. While a batch is
computed, the images that come in wait for the next.
"""

import itertools

import numpy as np
import tensorflow as tf

_NUMBER = itertools.count()


class BatchedClassifier:
    """Gathers images from many threads into batches.

    TensorFlow needs at least two threads between operations
    (`tf.config.threading.set_inter_op_parallelism_threads`): one of them waits
    for the classifier.

    Args:
        classifier: A `convmixer_tf.inference.Classifier`. It is called by one
            thread at a time.
        max_batch: Integer, the most images of a batch.
        max_wait: Seconds that an image waits for others while nothing is being
            computed.
        max_pending: Integer, the most images at once in all.

    Attributes:
        batches: Integer, how many have been computed.
        images: Integer, of how many images.
        blank: An image, to see whether there is an answer.
    """

    def __init__(self, classifier, max_batch, max_wait, max_pending):
        self.batches = self.images = 0
        self._classifier = classifier
        self._max_batch = max_batch
        size = classifier.image_size
        self.blank = tf.zeros((size, size, 3), tf.uint8)

        @tf.nondifferentiable_batch_function(
            num_batch_threads=1,
            max_batch_size=max_batch,
            batch_timeout_micros=round(1e6 * max_wait),
            # In the worst case an image each.
            max_enqueued_batches=max_pending,
            autograph=False,
        )
        def batched(images):
            scores = tf.numpy_function(self._run, [images], tf.float32)
            return tf.ensure_shape(scores, (None, classifier.classes))

        def one(image):
            # Schedulers of one name, within a process, are one.
            with tf.name_scope(f"classifier_{next(_NUMBER)}"):
                return batched(image[None])[0]

        self._one = tf.function(
            one,
            input_signature=[tf.TensorSpec((size, size, 3), tf.uint8)],
            autograph=False,
        ).get_concrete_function()  # Or threads might each build their own.

    def __call__(self, image):
        """Classifies an image; returns when its batch is done.

        Args:
            image: uint8 tensor of shape (image_size, image_size, 3).

        Returns:
            float32 array of shape (classes,), probabilities.
        """
        return self._one(image).numpy()

    def warm_up(self):
        """Runs the smallest and the largest batch, and forgets them."""
        for count in {1, self._max_batch}:
            self._run(np.stack(count * [self.blank]))
        self(self.blank)
        self.batches = self.images = 0

    def _run(self, images):
        scores = self._classifier.predict(np.float32(images))
        self.batches += 1
        self.images += len(images)
        return np.float32(scores)
