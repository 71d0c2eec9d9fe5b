import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.training.inputs import distribute


def numbers(size, count=8, drop_remainder=True):
    data = tf.data.Dataset.range(count).batch(size, drop_remainder)
    return lambda context: data


def test_replicas_get_their_part_in_order(two_replicas):
    first, second = distribute(two_replicas, numbers(4), 2)
    parts = [
        two_replicas.experimental_local_results(batch)
        for batch in (first, second)
    ]
    np.testing.assert_array_equal(parts, [[[0, 1], [2, 3]], [[4, 5], [6, 7]]])


def test_the_function_is_told_how_many_share_the_batch(two_replicas):
    contexts = []

    def batches(context):
        contexts.append(context)
        return numbers(4)(context)

    distribute(two_replicas, batches)
    (context,) = contexts
    assert context.num_replicas_in_sync == 2
    assert (context.num_input_pipelines, context.input_pipeline_id) == (1, 0)


@pytest.mark.parametrize(
    ("batches", "expected", "message"),
    [
        (numbers(3), None, "a multiple of 2 images .* Received: batch size 3"),
        (numbers(4), 4, "padded.: 8 images .* Received: batch size 4"),
        (numbers(4, drop_remainder=False), 2, "Received: batch size None"),
    ],
)
def test_batches_of_another_size_are_an_error(
    two_replicas, batches, expected, message
):
    with pytest.raises(ValueError, match=message):
        distribute(two_replicas, batches, expected)
