"""Damage to files of weights."""

from convmixer_tf.weights import read_weights


def check_flipped_bytes(path, step, names):
    """Checks that each flipped byte is found, or leaves weights of `names`.

    Args:
        path: `pathlib.Path` of a file of weights, which is changed.
        step: Integer, from one byte that is flipped to the next.
        names: Set of the names that weights may have.
    """
    content = path.read_bytes()
    found = 0
    for offset in range(0, len(content), step):
        damaged = bytearray(content)
        damaged[offset] ^= 0xFF
        path.write_bytes(damaged)
        try:
            weights = read_weights(path)
        except ValueError:  # Any other error would fail the test.
            found += 1
        else:
            assert set(weights) <= names
    assert found
