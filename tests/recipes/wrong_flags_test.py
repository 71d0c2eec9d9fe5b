"""Tests that wrong flags give one clear line before any work."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf import ConvMixer
from tests.helpers import run_python

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"

# Runs a recipe's `main` for several command lines.
DRIVER = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
from absl import flags
from absl.testing import flagsaver
recipe = importlib.import_module(sys.argv[2])
for line in json.loads(sys.argv[3]):
    with flagsaver.flagsaver():
        try:
            main = getattr(recipe, sys.argv[2], recipe).main
            main(flags.FLAGS([sys.argv[2], *line]))
            print("NO ERROR")
        except (Exception, SystemExit) as error:
            print(type(error).__name__, str(error).replace(chr(10), " "))
"""

TRAINING = {
    "--epochs=0": "`epochs` must be a positive integer. Received: epochs=0",
    "--epochs=-3": "`epochs` must be a positive integer. Received: epochs=-3",
    "--batch_size=0": "`batch_size` must be a positive integer",
    "--batch_size=-8": "`batch_size` must be a positive integer",
    "--batch_size=25": "`batch_size` must be at most 24, the number of train",
    "--batch_size=8 --accumulation_steps=3": "`batch_size` must be a multiple",
    "--accumulation_steps=0": "`accumulation_steps` must be a positive integer",
    "--learning_rate=0": "`learning_rate` must be above 0",
    "--learning_rate=-1": "`learning_rate` must be above 0",
    "--ema_decay=2": "`ema_decay` must be above 0, up to 1",
    "--steps_per_epoch=0": "`steps_per_epoch` must be a positive integer",
    "--steps_per_epoch=4": "`steps_per_epoch` must be at most 3, for 24 images",
    "--profile_steps=5": "--profile_steps must be two numbers of updates",
    "--profile_steps=a,b": "two numbers of updates, such as 10,20. Received: a",
    "--profile_steps=1,5": "`profile_steps` must be the first step to profile",
    "--save_every=0": "`save_every` must be a positive integer",
    "--seed=-1": "`seed` must be a non-negative integer",
    "--data=/no/where": "There is no folder '/no/where', and no data set of",
    "--output={FILE}": "The output of a run (`--output`) must be a folder",
    "--output={OTHER}": "a new run can start from this one's model.keras",
    "--strategy=multiworker": "needs the environment variable TF_CONFIG",
    "--strategy=tpu": "needs a TPU in this machine",
}
WRONG = {
    "train_cifar10": {
        **TRAINING,
        "--dim=0": "`dim` must be a positive integer",
        "--depth=-1": "`depth` must be a positive integer",
        "--preset=fast --epochs=0": TRAINING["--epochs=0"],
        "--held_out=-1": "`held_out` must be a positive integer",
        "--held_out=24": "`held_out` must be below 24, the number of images",
        "--held_out=20": "`batch_size` must be at most 4, the number of train",
        "--teacher=/no/model.keras": "The model must be the path of a .keras",
        "--teacher={BAD}": "Cannot read a model from",
        "--teacher={DENSE}": "The teacher must take images of 3 channels",
        "--teacher={GRAY}": "The teacher must take images of 3 channels",
        "--teacher={FIVE}": "The model has 5 classes and the data has 3",
        "--distillation_weight=0": "`distillation_weight` must be above 0",
        "--distillation_temperature=0": "`distillation_temperature` must be",
    },
    "train_imagenet": {
        "--image_size=6": "a height and a width of at least one patch, 7",
        "--image_size=0": "`image_size` must be a positive integer",
        "--eval_split=validation": "split='validation' (`--eval_split`)",
        "--train_split=training": "Received: split='training'",
        "--epochs=0": TRAINING["--epochs=0"],
        "--learning_rate=0": TRAINING["--learning_rate=0"],
    },
    "finetune": {
        "--model=resnet": "or one of 1536_20, 768_32, 1024_20",
        "--model=/no/model.keras": "Received: '/no/model.keras'",
        "--model={BAD}": "Cannot read a model from",
        "--model={DENSE}": "must be a ConvMixer, with the layers `patch_embed`",
        "--model={GRAY}": "must take square images with 3 channels",
        "--model={GOOD} --image_size=3": "width of at least one patch, 4",
        "--model={GOOD} --learning_rate=0": TRAINING["--learning_rate=0"],
        "--model={GOOD} --data={ONE}": "at least two classes",
        "--model={EMPTY}": "a run folder",
        "--model={GOOD} --data={FILE}": "Line 1 of",
    },
    "compare": {
        "--models=alexnet": "`--models` must be a list of resnet, mobilenet",
        "--models= --patch_size=5": "The patch size must divide",
        "--models= --kernel_size=32": "must be from 1 to 31",
        "--models= --epochs=0": TRAINING["--epochs=0"],
        "--models= --batch_size=0": TRAINING["--batch_size=0"],
        "--models= --data=/no/where": TRAINING["--data=/no/where"],
        "--trend=width=2": "`--trend` must be one of dim, depth, kernel_size",
        "--trend=dim=2 --learning_rate=0": TRAINING["--learning_rate=0"],
        "--trend=dim=2 --steps_per_epoch=4": TRAINING["--steps_per_epoch=4"],
    },
    "evaluate": {
        "--split=nowhere": "Received: split='nowhere' (`--split`)",
        "--model=/no/model.keras": "The model must be a .keras or .tflite file",
        "--model={BAD}": "Cannot read a model from",
        "--model={BAD_TFLITE}": "is not a complete TFLite file",
        "--model={EMPTY}": "Cannot read a model from",
        "--model={DENSE}": "must take images of 3 channels",
        "--model={GRAY}": "must take images of 3 channels",
        "--batch_size=0": "`batch_size` must be a positive integer",
        "--image_size=0": "`image_size` must be a positive integer",
        "--crop_fraction=0": "`crop_fraction` must be from",
        "--image_size=16": "The model takes images of 32 x 32 pixels",
        "--output={FILE}": "The output must be a folder",
        "--model={FIVE}": "The model has 5 classes and the data has 3",
    },
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    rng = np.random.default_rng(0)
    for data, classes in (("data", "abc"), ("one", "a")):
        for split, count in (("train", 8), ("test", 3)):
            for name in classes:
                place = folder / data / split / name
                place.mkdir(parents=True)
                for i in range(count):
                    image = rng.integers(0, 255, (32, 32, 3)).astype("uint8")
                    path = place / f"{i}.png"
                    path.write_bytes(tf.io.encode_png(image).numpy())
    for name in ("file", "bad.keras", "bad.tflite"):
        (folder / name).write_text("no model")
    for name in ("empty", "other"):
        (folder / name).mkdir()
    (folder / "other" / "config.json").write_text('{"epochs": 7}')
    shape = {"input_shape": (32, 32, 3)}
    ConvMixer(8, 1, 3, 4, classes=3, **shape).save(folder / "good.keras")
    ConvMixer(8, 1, 3, 4, classes=5, **shape).save(folder / "five.keras")
    gray = ConvMixer(8, 1, 3, 4, classes=3, input_shape=(32, 32, 1))
    gray.save(folder / "gray.keras")
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(3)(inputs)
    keras.Model(inputs, dense).save(folder / "dense.keras")
    return folder


@pytest.mark.large
@pytest.mark.parametrize("recipe", WRONG)
def test_wrong_flags(recipe, places, tmp_path):
    names = {
        "FILE": places / "file",
        "BAD": places / "bad.keras",
        "BAD_TFLITE": places / "bad.tflite",
        "EMPTY": places / "empty",
        "OTHER": places / "other",
        "GOOD": places / "good.keras",
        "FIVE": places / "five.keras",
        "GRAY": places / "gray.keras",
        "DENSE": places / "dense.keras",
        "ONE": places / "one",
    }
    common = [f"--data={places / 'data'}", f"--output={tmp_path / 'run'}"]
    common += ["--verbosity=-1"]
    if recipe == "evaluate":
        common += [f"--model={names['GOOD']}", "--split=test"]
        common += ["--image_size=32"]
    else:
        common += ["--epochs=1", "--batch_size=8"]
        if recipe != "finetune":
            common += ["--notensorboard"]
    if recipe == "train_imagenet":
        common += ["--eval_split=test"]
    lines = [
        [*common, *line.format(**names).split(" ")] for line in WRONG[recipe]
    ]
    printed = run_python(DRIVER, RECIPES, recipe, json.dumps(lines))
    answers = printed.splitlines()
    for line, answer in zip(WRONG[recipe], answers, strict=True):
        print(f"{line:40} {answer}")
    for line, answer in zip(WRONG[recipe], answers, strict=True):
        assert WRONG[recipe][line] in answer, f"{line}: {answer}"
    assert list(tmp_path.iterdir()) == []
