"""Damages weights files."""

from convmixer_tf.weights import read_weights


def count_found(path, offsets, mask, check):
    """Flips bits of one byte at a time and counts detections.

    Args:
        path: `pathlib.Path` of a file of weights, which is changed.
        offsets: Iterable of integers, the bytes to damage, one at a time.
        mask: Integer, the bits that are flipped.
        check: Function that checks the weights if there is no error.
    """
    content = path.read_bytes()
    found = 0
    for offset in offsets:
        damaged = bytearray(content)
        damaged[offset] ^= mask
        path.write_bytes(damaged)
        try:
            weights = read_weights(path)
        except ValueError:  # Any other error would fail the test.
            found += 1
        else:
            check(weights)
    return found


def check_flipped_bytes(path, step, names):
    """Checks that flipped bytes are detected or leave weights of `names`.

    Args:
        path: `pathlib.Path` of a file of weights, which is changed.
        step: Integer, the distance between flipped bytes.
        names: Set of the names that weights may have.
    """

    def check(weights):
        assert set(weights) <= names

    offsets = range(0, path.stat().st_size, step)
    assert count_found(path, offsets, 0xFF, check)
