import json

import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.training.evaluation import Evaluator
from convmixer_tf.training.evaluation import ScoreAccumulator
from convmixer_tf.training.evaluation import evaluate_function
from convmixer_tf.training.evaluation import judge
from convmixer_tf.training.loss import binary_cross_entropy
from convmixer_tf.training.loss import focal_loss
from convmixer_tf.training.metrics import multi_label_metrics
from tests.training import tiny


def expected_scores(model, images, labels):
    logits = np.float64(model(images, training=False))
    order = np.argsort(-logits, axis=1, kind="stable")
    top1 = order[:, 0] == labels
    top5 = (order[:, :5] == labels[:, None]).any(axis=1)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    losses = log_sum - shifted[np.arange(len(labels)), labels]
    return top1, top5, losses, order[:, 0]


@pytest.mark.parametrize("strategy", ["one_device", "two_replicas"])
@pytest.mark.parametrize("count", [61, 64, 3])
def test_every_image_counts_once(strategy, count, request):
    strategy = request.getfixturevalue(strategy)
    with strategy.scope():
        model = tiny.build_model()
    images, labels = (x[:count] for x in tiny.examples())
    scores = Evaluator(model, strategy)(tiny.eval_batches(count))
    top1, top5, losses, predicted = expected_scores(model, images, labels)
    assert scores.images == count
    assert scores.top1 == pytest.approx(top1.mean())
    assert scores.top5 == pytest.approx(top5.mean())
    assert scores.loss == pytest.approx(losses.mean(), rel=1e-5)
    assert scores.confusion.sum() == count
    for label in range(tiny.CLASSES):
        own = labels == label
        if own.any():
            assert scores.per_class[label] == pytest.approx(top1[own].mean())
        else:
            assert np.isnan(scores.per_class[label])
        np.testing.assert_array_equal(
            scores.confusion[label],
            np.bincount(predicted[own], minlength=tiny.CLASSES),
        )
    assert scores.summary() == {
        "images": count,
        "top1": scores.top1,
        "top5": scores.top5,
        "loss": scores.loss,
    }


def test_no_image_is_an_error(one_device):
    with one_device.scope():
        evaluator = Evaluator(tiny.build_model(), one_device)
    with pytest.raises(ValueError, match="There are no images to evaluate"):
        evaluator(tiny.eval_batches(0))


def test_ranks_count_the_classes_that_are_better():
    logits = tf.constant([[0.1, 0.4, 0.2, 0.3]] * 4)
    _, predictions, ranks, _ = judge(tf.range(4), logits)
    np.testing.assert_array_equal(predictions, [1] * 4)
    np.testing.assert_array_equal(ranks, [3, 0, 2, 1])


def test_a_constant_answer_is_right_only_for_the_first_class():
    _, predictions, ranks, _ = judge(tf.range(4), tf.zeros([4, 4]))
    np.testing.assert_array_equal(predictions, [0] * 4)
    np.testing.assert_array_equal(ranks, [0, 1, 2, 3])


def test_nan_is_never_right():
    logits = tf.fill([8, 8], np.nan)
    labels, _, ranks, losses = judge(tf.range(8), logits)
    assert min(ranks.numpy()) == 8
    accumulator = ScoreAccumulator(8)
    ones, zeros = np.ones(8), np.zeros(8, int)
    accumulator.add(ones, labels.numpy(), zeros, ranks.numpy(), losses.numpy())
    assert accumulator.scores().top5 == 0


def test_images_without_weight_do_not_count():
    accumulator = ScoreAccumulator(3)
    labels = np.array([0, 1, 2])
    accumulator.add(
        np.array([1, 0, 1]), labels, labels, 0 * labels, labels * 10.0
    )
    scores = accumulator.scores()
    assert (scores.images, scores.top1, scores.loss) == (2, 1.0, 10.0)
    assert np.isnan(scores.per_class[1])


def test_of_several_labels_the_best_counts():
    labels = tf.constant([[1, 0, 1], [0, 1, 0], [0, 0, 1]], tf.int64)
    logits = tf.constant([[1.0, 0, 2], [3, 2, 1], [0, 0, 4]])
    best, predictions, ranks, losses = judge(labels, logits)
    np.testing.assert_array_equal(best, [2, 1, 2])
    np.testing.assert_array_equal(predictions, [2, 0, 2])
    np.testing.assert_array_equal(ranks, [0, 1, 0])
    expected = np.logaddexp(0, logits) - labels.numpy() * logits.numpy()
    np.testing.assert_allclose(losses, expected.mean(-1), rtol=1e-6)


def test_several_labels_are_measured_over_all_batches():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8, 3))
    targets = (rng.random((8, 3)) < 0.5).astype(np.int64)
    targets[0] = 0  # An image without a label.
    answers = iter(np.split(1 / (1 + np.exp(-logits)), 2))
    batches = [
        [tf.constant(x) for x in (logits[part], targets[part], np.ones(4))]
        for part in (slice(4), slice(4, 8))
    ]
    scores = evaluate_function(
        lambda images: next(answers), batches, 3, activation="sigmoid"
    )
    json.dumps(scores.summary())
    expected = multi_label_metrics(logits, targets)
    for name in ("images", "loss", "mean_average_precision"):
        assert scores.summary()[name] == pytest.approx(expected[name])
    best = targets[np.arange(8), logits.argmax(axis=-1)]
    assert scores.top1 == pytest.approx(best[targets.any(axis=-1)].mean())


def test_focal_loss_is_less_where_the_output_is_right_already():
    labels = tf.constant([[1.0], [0.0], [0.3]])
    logits = tf.constant([[2.0], [1.0], [-1.0]])
    p = tf.sigmoid(logits)
    share = labels * p + (1 - labels) * (1 - p)  # Of what is right.
    expected = (1 - share[:, 0]) ** 2 * binary_cross_entropy(labels, logits)
    np.testing.assert_allclose(focal_loss(labels, logits), expected, rtol=1e-5)
