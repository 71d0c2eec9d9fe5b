import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.training import TrainConfig
from convmixer_tf.training.schedule import cosine_with_warmup
from convmixer_tf.training.schedule import make_schedule
from convmixer_tf.training.schedule import piecewise_linear


# Includes runs that are too short for all three pieces: 1, 2 and 3 epochs.
@pytest.mark.parametrize(
    ("epochs", "steps"),
    [(150, 2001), (300, 100), (25, 7), (7, 13), (3, 10), (2, 10), (1, 10)],
)
def test_piecewise_linear_is_the_authors(epochs, steps):
    peak = 0.01
    # As in the authors' timm fork, before each update.
    corners = [0, epochs * 2 // 5, epochs * 4 // 5, epochs]
    times = np.arange(1, epochs * steps + 1) / steps
    expected = np.interp(times, corners, [0, peak, peak / 20, 0])
    got = piecewise_linear(tf.range(epochs * steps), peak, epochs, steps)
    np.testing.assert_allclose(got, expected, atol=5e-9)
    assert got[-1] == 0


def test_piecewise_linear_peaks_at_two_fifths():
    rates = piecewise_linear(tf.range(1500), 0.01, 150, 10).numpy()
    assert rates.argmax() == 60 * 10 - 1
    assert rates[120 * 10 - 1] == pytest.approx(0.01 / 20)
    assert rates[0] == pytest.approx(0.01 / 600)


@pytest.mark.peer
@pytest.mark.parametrize("warmup", [2, 5, 10])
def test_cosine_with_warmup_is_pytorchs(warmup):
    torch = pytest.importorskip("torch")
    schedulers = torch.optim.lr_scheduler
    total, peak, final = 40, 0.01, 1e-4
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    scheduler = schedulers.SequentialLR(
        optimizer,
        [
            schedulers.LinearLR(optimizer, 1 / warmup, 1.0, warmup - 1),
            schedulers.CosineAnnealingLR(optimizer, total - warmup, final),
        ],
        milestones=[warmup],
    )
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    got = cosine_with_warmup(tf.range(total), peak, final, warmup, total)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-9)


def test_cosine_without_warmup_starts_at_the_peak_and_ends_low():
    rates = cosine_with_warmup(tf.range(101), 0.5, 0.1, 0, 100).numpy()
    np.testing.assert_allclose(rates[[0, 50, 100]], [0.5, 0.3, 0.1], rtol=1e-6)


def test_make_schedule_follows_the_config():
    common = {"epochs": 10, "steps_per_epoch": 10, "learning_rate": 0.2}
    step = tf.constant(49, tf.int64)

    def rate(**changes):
        return make_schedule(TrainConfig(**common, **changes))(step).numpy()

    assert rate() == pytest.approx(np.interp(5, [4, 8], [0.2, 0.01]))
    assert rate(schedule="constant") == pytest.approx(0.2)
    cosine = rate(schedule="cosine", warmup_epochs=2, final_learning_rate=0.1)
    angle = np.pi * (49 - 20) / 80
    assert cosine == pytest.approx(0.1 + 0.05 * (1 + np.cos(angle)))
    warmup = rate(schedule="cosine", warmup_epochs=6)
    assert warmup == pytest.approx(0.2 * 50 / 60)
