import pytest

from convmixer_tf.training import TrainConfig


def test_the_defaults_are_the_authors():
    config = TrainConfig()
    assert config.batch_size == 640
    assert config.total_steps == 150 * 2001
    assert (config.learning_rate, config.epsilon) == (0.01, 1e-3)
    assert (config.weight_decay, config.clip_norm) == (2e-5, 1.0)
    assert config.ema_decay is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "`epochs` must be a positive integer. .*epochs=0"),
        ({"keep": True}, "`keep` must be a positive integer"),
        ({"seed": -1}, "`seed` must be a non-negative integer"),
        ({"learning_rate": 0}, "`learning_rate` must be above 0"),
        ({"weight_decay": -1}, "`weight_decay` must be at least 0"),
        ({"beta_2": 1.0}, "`beta_2` must be at least 0 and below 1"),
        ({"ema_decay": 1.5}, "`ema_decay` must be above 0, up to 1"),
        ({"clip_norm": 0}, "`clip_norm` must be above 0"),
        ({"optimizer": "sgd"}, "`optimizer` must be one of adamw, muon"),
        ({"muon_learning_rate": 0}, "`muon_learning_rate` must be above 0"),
        ({"distillation_weight": 2}, "`distillation_weight` must be above 0"),
        (
            {"distillation_temperature": 0},
            "`distillation_temperature` must be above 0",
        ),
        ({"schedule": "step"}, "`schedule` must be one of piecewise, cosine"),
        ({"precision": "half"}, "`precision` must be one of auto, float32"),
        (
            {"batch_size": 10, "accumulation_steps": 4},
            "`batch_size` must be a multiple of `accumulation_steps`",
        ),
        (
            {"loss": "focal", "class_weight": "balanced"},
            '`class_weight` needs loss="softmax"',
        ),
        ({"warmup_epochs": 1}, '`warmup_epochs` needs schedule="cosine"'),
        (
            {"warmup_epochs": 3, "epochs": 3, "schedule": "cosine"},
            "`warmup_epochs` must be less than `epochs`",
        ),
        ({"profile_steps": (5, 5)}, "`profile_steps` must be the first"),
    ],
)
def test_a_wrong_setting_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)
