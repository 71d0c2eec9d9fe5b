import sys

import numpy as np
import pytest
from PIL import Image

from convmixer_tf.data import Augmentation
from convmixer_tf.data import Mixing
from convmixer_tf.data import RandomErasing
from convmixer_tf.data import open_dataset
from convmixer_tf.data import save_contact_sheet
from convmixer_tf.data import train_batches
from convmixer_tf.data.augmentation import AUGMENTATIONS
from convmixer_tf.data.contact_sheet import describe_label
from convmixer_tf.data.contact_sheet import stages


def test_stages_build_on_each_other():
    names = ["crop and flip", "rand augment", "mixing", "erasing"]
    assert list(stages(AUGMENTATIONS["imagenet"])) == names
    assert (
        stages(AUGMENTATIONS["imagenet"])["erasing"]
        == AUGMENTATIONS["imagenet"]
    )
    assert "color jitter" in stages(AUGMENTATIONS["cifar10"])
    assert list(stages(AUGMENTATIONS["none"])) == ["crop and flip"]


@pytest.mark.slow
def test_later_stages_leave_earlier_ones_alone():
    dataset = open_dataset("digits", "train")
    augmentation = Augmentation(
        mixing=Mixing(mixup_alpha=100.0, cutmix_alpha=0.0),
        erasing=RandomErasing(probability=1.0),
    )
    last = None
    for stage in stages(augmentation).values():
        batches = train_batches(dataset, stage, 16, 6, seed=3, epoch=0)
        images = np.float32(next(iter(batches))[0])
        if last is not None:
            assert np.any(images != last)
        if stage.erasing:
            # Erased or the same.
            assert np.mean(images == last) > 0.3
        last = images


@pytest.mark.slow
def test_writes_a_picture(tmp_path):
    path = tmp_path / "sheet.png"
    save_contact_sheet(
        path,
        open_dataset("digits", "train"),
        Augmentation(mixing=Mixing()),
        16,
        columns=3,
    )
    sheet = Image.open(path)
    assert sheet.format == "PNG"
    assert sheet.size == (450, 2 * 190)
    assert len(np.unique(np.asarray(sheet.convert("L")))) > 100


def test_describes_labels():
    names = ["tench", "hen", "cock"]
    mixed = np.array([0.03, 0.64, 0.33])
    assert describe_label(mixed, names) == "0.64 hen +\n0.33 cock"
    smooth = np.array([0.93, 0.035, 0.035])
    assert describe_label(smooth, names) == "0.93 tench"


def test_refuses_columns(tmp_path):
    with pytest.raises(ValueError, match="`columns` must be a positive"):
        save_contact_sheet(
            tmp_path / "x.png", None, Augmentation(), 8, columns=0
        )


def test_names_the_missing_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"matplotlib.*\[train\]"):
        save_contact_sheet(tmp_path / "x.png", None, Augmentation(), 8)
