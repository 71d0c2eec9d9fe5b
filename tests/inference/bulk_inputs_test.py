"""Tests how the images of a bulk prediction are found and read."""

import pytest
import tensorflow as tf

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

from convmixer_tf.inference.bulk_inputs import Part  # noqa: E402
from convmixer_tf.inference.bulk_inputs import find_parts  # noqa: E402
from convmixer_tf.inference.bulk_inputs import read_batches  # noqa: E402
from convmixer_tf.inference.bulk_inputs import why_not  # noqa: E402


def images_of(source, size=2):
    """Reads all images, in parts of `size` and batches of three."""
    return [
        image
        for whole in find_parts(str(source))
        for part in whole.divided(size)
        for batch in read_batches(part, 3)
        for image in batch
    ]


@pytest.fixture
def files(tmp_path):
    for name in ("b.png", "a/c.jpg", "a/notes.txt", ".hidden/d.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def test_a_folder(files):
    assert images_of(files) == [
        (str(files / "a" / "c.jpg"), b"a/c.jpg"),
        (str(files / "b.png"), b"b.png"),
    ]


def test_a_url_of_a_folder(files):
    expected = [
        (f"file://{name}", content) for name, content in images_of(files)
    ]
    assert images_of(files.as_uri()) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "label,Path\n1,b.png\n2,none.jpg\n2,b.png\n"),
        ("list.txt", "{0}/b.png\n\n{0}/none.jpg\n"),
    ],
)
def test_a_list(files, name, text):
    (files / name).write_text(text.format(files))
    assert images_of(files / name) == [
        (str(files / "b.png"), b"b.png"),
        (str(files / "none.jpg"), None),
    ]


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_records(tmp_path, compression):
    path = tmp_path / "train.tfrecord-00000-of-00001"
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for number in range(5):
            value = tf.train.BytesList(value=[b"image %d" % number])
            features = {"image": tf.train.Feature(bytes_list=value)}
            example = tf.train.Example(
                features=tf.train.Features(feature=features)
            )
            writer.write(example.SerializeToString())
    expected = [(f"{path}, record {i}", b"image %d" % i) for i in range(5)]
    assert images_of(tmp_path) == expected
    assert images_of(path, 3) == expected
    if not compression:  # The data of the third record.
        content = bytearray(path.read_bytes())
        content[content.index(b"image 2")] ^= 1
        path.write_bytes(content)
        found = [content for _, content in images_of(path, 4)]
        assert found == [b"image 0", b"image 1", None, b"image 3", b"image 4"]


def test_parquet_of_bytes(tmp_path):
    rows = [{"bytes": b"%d" % i, "path": f"{i}.jpg"} for i in range(7)]
    table = pa.table({"image": rows, "label": list(range(7))})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=3)
    expected = [(f"{i}.jpg", b"%d" % i) for i in range(7)]
    assert images_of(tmp_path) == expected
    assert images_of(tmp_path / "x.parquet", 5) == expected
    path = tmp_path / "y.parquet"
    parquet.write_table(pa.table({"bytes": [b"1", None]}), path)
    assert images_of(path) == [
        (f"{path}, row 0", b"1"),
        (f"{path}, row 1", b""),
    ]


def test_parquet_of_paths(files):
    parquet.write_table(pa.table({"path": ["b.png"]}), files / "x.parquet")
    assert images_of(files / "x.parquet") == [(str(files / "b.png"), b"b.png")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"a,b\n1,2\n", "must name the column `path`"),
        ("x.parquet", b"no table", "is damaged or not a Parquet file"),
        ("x.tfrecord", b"no records", "truncated or damaged"),
    ],
)
def test_a_damaged_source(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        find_parts(str(tmp_path / name))


def test_no_images(tmp_path):
    for source in (str(tmp_path), (tmp_path / "none").as_uri()):
        with pytest.raises(FileNotFoundError, match="no images in"):
            find_parts(source)
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        find_parts(str(tmp_path / "none"))


def test_why_an_image_cannot_be_read(tmp_path):
    records = Part("records", "x", 0, 1)
    assert "record is damaged" in why_not(records, "x, record 0", None)
    (tmp_path / "a.jpg").write_bytes(b"")
    files = Part("files", "", 0, 1, ("a.jpg",))
    why = why_not(files, str(tmp_path / "a.jpg"), b"")
    assert why == "unreadable: it is empty."
    table = Part("parquet", "x.parquet", 0, 1)
    assert "it is not an image" in why_not(table, "a.jpg", b"no image")


def test_a_table_without_images(tmp_path):
    table = pa.table({"label": [1]})
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="must have a column `bytes`"):
        find_parts(str(tmp_path))
