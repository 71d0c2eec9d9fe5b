import errno
import os
import pathlib

import pytest
import tensorflow as tf
from absl import logging

from convmixer_tf.training.checkpoint import CheckpointStore
from convmixer_tf.training.checkpoint import checkpoint_name
from tests.helpers import files_up_to


@pytest.fixture
def variable():
    return tf.Variable([0.0] * 1000)


@pytest.fixture
def checkpoint(variable):
    return tf.train.Checkpoint(variable=variable)


def save(store, variable, step, **kwargs):
    variable.assign([float(step)] * 1000)
    checkpoint = tf.train.Checkpoint(variable=variable)
    name = checkpoint_name(step, False)
    store.save(checkpoint, name, {"at": step}, **kwargs)


def damage_nothing(path):
    pass


def truncate(path):
    data = path / "state.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-100])


def flip_a_bit(path):
    data = path / "state.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)


def empty_the_index(path):
    (path / "state.index").write_bytes(b"")


def lose_the_index(path):
    (path / "state.index").unlink()


def garble_the_record(path):
    (path / "info.json").write_text('{"info": ')


def lose_the_hashes(path):
    (path / "info.json").write_text('{"info": {"at": 2}}')


def test_what_is_saved_is_restored(tmp_path, variable, checkpoint):
    store = CheckpointStore(tmp_path / "new" / "folder")
    assert store.restore(checkpoint) is None
    save(store, variable, 7)
    variable.assign([0.0] * 1000)
    assert store.restore(checkpoint) == {"at": 7}
    assert variable.numpy()[-1] == 7


def test_the_last_and_the_best_are_kept(tmp_path, variable):
    store = CheckpointStore(tmp_path, keep=2)
    for step in range(1, 8):
        best = checkpoint_name(3, False) if step >= 3 else None
        save(store, variable, step, best=best)
    assert store.names() == [checkpoint_name(step, False) for step in (3, 6, 7)]
    assert {path.name[:5] for path in tmp_path.iterdir()} == {"step_"}


def test_saving_again_keeps_what_is_there(tmp_path, variable, checkpoint):
    store = CheckpointStore(tmp_path)
    save(store, variable, 5)
    store.save(checkpoint, checkpoint_name(5, False), {"at": "again"})
    assert store.restore(checkpoint) == {"at": 5}


def test_names_sort_as_they_are_written():
    names = [
        checkpoint_name(*what)
        for what in ((9, False), (9, True), (10, False), (1000, False))
    ]
    assert names == sorted(names)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_a_bit,
        empty_the_index,
        lose_the_index,
        garble_the_record,
        lose_the_hashes,
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path, variable, checkpoint, damage, caplog
):
    store = CheckpointStore(tmp_path)
    save(store, variable, 1)
    save(store, variable, 2)
    damage(pathlib.Path(store.path(checkpoint_name(2, False))))
    with caplog.at_level("ERROR", logger=logging.get_absl_logger().name):
        assert store.restore(checkpoint) == {"at": 1}
    assert variable.numpy()[0] == 1
    assert "checkpoint step_0000000002 is damaged" in caplog.text
    assert "Falling back to the previous one" in caplog.text
    save(store, variable, 2)
    assert store.restore(checkpoint) == {"at": 2}


def test_nothing_but_damage_is_an_error(tmp_path, variable, checkpoint):
    store = CheckpointStore(tmp_path)
    save(store, variable, 1)
    truncate(pathlib.Path(store.path(checkpoint_name(1, False))))
    with pytest.raises(OSError, match=r"All checkpoints in .* are damaged"):
        store.restore(checkpoint)
    # Another attempt does not start from the beginning either.
    with pytest.raises(OSError, match=r"All checkpoints in .* are damaged"):
        store.restore(checkpoint)


def test_a_checkpoint_of_something_else_is_an_error(tmp_path, variable):
    store = CheckpointStore(tmp_path)
    save(store, variable, 1)
    other = tf.train.Checkpoint(variable=tf.Variable([0.0] * 3))
    with pytest.raises(ValueError, match="for another model or other"):
        store.restore(other)
    other = tf.train.Checkpoint(another=tf.Variable([0.0] * 1000))
    with pytest.raises(ValueError, match="for another model or other"):
        store.restore(other)


def test_a_failed_write_leaves_what_was_there(tmp_path, variable, checkpoint):
    store = CheckpointStore(tmp_path)
    save(store, variable, 1)

    class Full:
        def write(self, path):
            raise OSError(errno.ENOSPC, "No space left on device")

    message = "Cannot write .* step_2 .* unchanged: step_0000000001. .*No space"
    with pytest.raises(OSError, match=message):
        store.save(Full(), "step_2", {})
    assert [path.name for path in tmp_path.iterdir()] == ["step_0000000001"]
    assert store.restore(checkpoint) == {"at": 1}


def test_a_disk_that_fills_up_loses_nothing(tmp_path, variable, checkpoint):
    """Writes until the signal arrives in the middle of a write."""
    store = CheckpointStore(tmp_path)
    save(store, variable, 1)
    message = "Cannot write the checkpoint step_0000000002"
    with files_up_to(2000), pytest.raises(OSError, match=message):
        save(store, variable, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_0000000001"]
    assert CheckpointStore(tmp_path).restore(checkpoint) == {"at": 1}
    assert variable.numpy()[0] == 1


def test_what_a_killed_write_left_is_removed(tmp_path, checkpoint):
    for name in ("tmp_123", "step_0000000007"):  # Old and new names.
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.index").write_text("half")
    assert CheckpointStore(tmp_path, writes=False).names() == []
    store = CheckpointStore(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert store.restore(checkpoint) is None


def test_lost_records_take_no_checkpoint_away(tmp_path, variable):
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        save(store, variable, step)
        os.remove(tmp_path / checkpoint_name(step, False) / "info.json")
    CheckpointStore(tmp_path)
    assert len(list(tmp_path.rglob("state.index"))) == 2


def test_an_object_store_keeps_its_promise(variable, checkpoint):
    """Tests kills, damage and pruning, as on a disk."""
    folder = "ram://checkpoints/run"
    store = CheckpointStore(folder, keep=2)
    for step in range(1, 5):
        save(store, variable, step, best=checkpoint_name(1, False))
    assert store.names() == [checkpoint_name(step, False) for step in (1, 3, 4)]
    half = store.path(checkpoint_name(5, False))
    tf.io.gfile.makedirs(half)
    tf.io.gfile.copy(
        os.path.join(store.path(checkpoint_name(3, False)), "state.index"),
        os.path.join(half, "state.index"),
    )
    data = os.path.join(store.path(checkpoint_name(4, False)), "state.index")
    with tf.io.gfile.GFile(data, "wb") as file:
        file.write(b"damaged")
    store = CheckpointStore(folder, keep=2)
    assert not tf.io.gfile.exists(half)
    assert store.restore(checkpoint) == {"at": 3}
    assert variable.numpy()[0] == 3
    names = sorted(tf.io.gfile.listdir(folder))
    assert [name.rstrip("/") for name in names] == [
        f"damaged_{checkpoint_name(4, False)}",
        *store.names(),
    ]


def test_a_worker_that_does_not_write_changes_nothing(
    tmp_path, variable, checkpoint
):
    save(CheckpointStore(tmp_path), variable, 1)
    (tmp_path / "step_0000000005").mkdir()
    store = CheckpointStore(tmp_path, writes=False)
    save(store, variable, 2)
    assert store.restore(checkpoint) == {"at": 1}
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"step_0000000005", "step_0000000001"}
