"""Metadata of TFLite files: classes, pixels, crop, author.

Android Studio, MediaPipe's tasks and Android's label readers read two things: a
FlatBuffer named `TFLITE_METADATA` among the model's buffers, and a text file of
the class names in a zip archive that is appended to the model. This package
adds a file about how images are cropped, the same as in a `.keras` file.

The field numbers are from the published schema,
`tensorflow_lite_support/metadata/metadata_schema.fbs` in tensorflow's
repository `tflite-support`: version 1.1.0, file identifier "M001".
"""

import dataclasses
import io
import zipfile

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

from convmixer_tf.export.deploy import MAPS
from convmixer_tf.export.litert import litert_module
from convmixer_tf.export.tflite_model import pack
from convmixer_tf.export.tflite_model import unpack
from convmixer_tf.files import PathLike
from convmixer_tf.files import parse_lines
from convmixer_tf.files import replaced
from convmixer_tf.models.additions import EVALUATION_FILE
from convmixer_tf.models.additions import LABELS_FILE
from convmixer_tf.models.additions import ImageReading
from convmixer_tf.models.additions import parse_reading

_ENTRY = "TFLITE_METADATA"


@dataclasses.dataclass(frozen=True)
class TFLiteMetadata:
    """The metadata of a TFLite classifier.

    Attributes:
        name: Name of the model.
        description: Description of the model.
        version: Version of the model.
        author: Author of the model.
        license: License of the model.
        class_names: Names of the classes in the order of the outputs, or
            `None` if the file has none.
        mean: Mean to subtract from pixels in [0, 255], one number, or one for
            each channel. Models of this package use the default, 0.
        std: Standard deviation to divide by afterwards, likewise. Models of
            this package use the default, 1.
        crop_fraction: Fraction of an image's shorter side that is kept for
            evaluation, or `None` if the file doesn't say.
        orientation: `"exif"` or `"stored"`, as in `data.decode_image`, or
            `None` if the file doesn't say.
    """

    name: str
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""
    class_names: tuple[str, ...] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    crop_fraction: float | None = None
    orientation: str | None = None

    def reading(self):
        """Returns how images are read as an `ImageReading`."""
        return ImageReading(self.crop_fraction, self.orientation)


def write_metadata(path: PathLike, metadata: TFLiteMetadata) -> None:
    """Writes metadata and class names into a TFLite file.

    The outputs of the file stay the same to the bit.

    Args:
        path: Path of a TFLite file with one image input and one output, and
            optionally class activation maps. The file and its existing metadata
            are replaced.
        metadata: A `TFLiteMetadata`.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If `ai-edge-litert` is not installed.
        ValueError: If it is not such a file, or if the class names do not fit.

    Example:

    ```python
    write_metadata("model.tflite", TFLiteMetadata("Pets", class_names=names))
    ```
    """
    with open(path, "rb") as file:
        content = file.read()
    content = add_metadata(content, metadata)
    with replaced(path) as unfinished, open(unfinished, "wb") as file:
        file.write(content)


def read_metadata(path: PathLike) -> TFLiteMetadata | None:
    """Reads the metadata of a TFLite file, including class names.

    Args:
        path: Path of a TFLite file.

    Returns:
        A `TFLiteMetadata`, or `None` if the file has none.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If `ai-edge-litert` is not installed.
        ValueError: If it is not a TFLite file.
    """
    with open(path, "rb") as file:
        content = file.read()
    model = unpack(content)
    for entry in model.metadata or []:
        if entry.name == _ENTRY.encode():
            data = model.buffers[entry.buffer].data.tobytes()
            return _decode(_Reader.root(data), content)
    return None


def add_metadata(content, metadata):
    """Adds metadata to the bytes of a TFLite file.

    Args:
        content: Bytes of a TFLite file, as for `write_metadata`.
        metadata: A `TFLiteMetadata`.

    Returns:
        Bytes of the new file.

    Raises:
        ImportError: If `ai-edge-litert` is not installed.
        ValueError: As for `write_metadata`.
    """
    model = unpack(content)
    image, outputs, scores = _interface(model)
    check_class_names(metadata.class_names, outputs[scores][-1])
    entries = []
    for entry in model.metadata or []:
        if entry.name == _ENTRY.encode():
            model.buffers[entry.buffer].data = None
        else:
            entries.append(entry)
    schema = litert_module("schema_py_generated")
    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer = _ENTRY, len(model.buffers)
    buffer.data = _encode(metadata, image, len(outputs), scores)
    model.metadata = [*entries, entry]
    model.buffers.append(buffer)
    return _with_files(pack(model), metadata)


def _with_files(model, metadata):
    files = {}
    if metadata.class_names is not None:
        files[LABELS_FILE] = "\n".join(metadata.class_names) + "\n"
    if metadata.reading().text():
        files[EVALUATION_FILE] = metadata.reading().text()
    if not files:
        return model
    file = io.BytesIO(model)
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return file.getvalue()


def _interface(model):
    """Returns the image shape, the output shapes and the scores' index."""
    graph = model.subgraphs[0]
    inputs, outputs = (
        [tuple(map(int, graph.tensors[i].shape)) for i in numbers]
        for numbers in (graph.inputs, graph.outputs)
    )
    # There may be class activation maps beside the scores, (1, classes).
    scores = [i for i, shape in enumerate(outputs) if len(shape) == 2]
    scores = [0] if len(outputs) == 1 else scores
    if len(inputs) != 1 or len(inputs[0]) != 4 or len(scores) != 1:
        raise ValueError(
            "Metadata needs a model with one image input, (1, height, width, "
            "channels), and one output. Received: inputs of shapes "
            f"{inputs}, outputs of shapes {outputs}"
        )
    return inputs[0][1:], outputs, scores[0]


def check_class_names(names, count):
    """Checks that there is a one-line name for each output.

    Args:
        names: The user's argument, or `None`.
        count: Integer, the number of outputs.

    Raises:
        ValueError: If a name is missing or not a line of text.
    """
    if names is None:
        return
    bad = [
        name
        for name in names
        if not isinstance(name, str) or not name.strip() or "\n" in name
    ]
    if isinstance(names, str) or len(names) != count or bad:
        raise ValueError(
            f"There must be {count} class names, one line of text for each "
            f"output. Received: {len(names)}, such as "
            f"{[*bad, *names][:1]}, in a {type(names).__name__}"
        )


def _encode(metadata, image, num_outputs, number):
    """Encodes metadata as {field number: value}, following the schema."""
    height, width, channels = image
    normalization = {0: _floats(metadata.mean), 1: _floats(metadata.std)}
    pixels = {
        0: "image",
        1: f"{width} x {height} pixels, {channels} channels, in [0, 255].",
        4: [{0: 1, 1: normalization}],  # One step, of this kind.
        5: {0: [255.0], 1: [0.0]},  # The range.
    }
    if channels in (1, 3):
        color_space = {3: 1, 1: 2}[channels]  # RGB, gray
        pixels[3] = {0: 2, 1: {0: color_space}}  # An image.
    scores = {
        0: "scores",
        1: "A score for each class. The most probable class has the largest.",
        3: {0: 1, 1: {}},  # A feature.
    }
    if metadata.class_names is not None:
        scores[6] = [{0: LABELS_FILE, 1: "Names of the classes.", 2: 2}]
    outputs = num_outputs * [{0: MAPS, 1: "A map of each class's logits."}]
    outputs[number] = scores
    root = {
        0: metadata.name,
        1: metadata.description,
        2: metadata.version,
        3: [{2: [pixels], 3: outputs}],
        4: metadata.author,
        5: metadata.license,
        7: "1.0.0",  # The oldest parser that knows all these fields.
    }
    if metadata.reading().text():
        root[6] = [{0: EVALUATION_FILE, 1: "How images are read."}]
    builder = flatbuffers.Builder()
    builder.Finish(_write(builder, root), file_identifier=b"M001")
    return bytes(builder.Output())


def _decode(root, content):
    graph = root.tables(3)[0]
    mean, std = [0.0], [1.0]
    for step in graph.tables(2)[0].tables(4):
        if step.byte(0) == 1:
            mean, std = (step.table(1).vector(i, "f4") for i in (0, 1))
    names, reading = None, ImageReading()
    for file in (f for output in graph.tables(3) for f in output.tables(6)):
        if file.byte(2) == 2 and names is None:
            name = file.string(0)
            names = parse_lines(_read_file(content, name), name)
    if EVALUATION_FILE in {file.string(0) for file in root.tables(6)}:
        text = _read_file(content, EVALUATION_FILE)
        reading = parse_reading(text)
    return TFLiteMetadata(
        name=root.string(0),
        description=root.string(1),
        version=root.string(2),
        author=root.string(4),
        license=root.string(5),
        class_names=names,
        mean=tuple(_floats(mean)),
        std=tuple(_floats(std)),
        crop_fraction=reading.crop_fraction,
        orientation=reading.orientation,
    )


def _read_file(content, name):
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.read(name)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"The TFLite file is incomplete: its metadata refers to `{name}`, "
            "which is missing from the appended zip archive."
        ) from error


def _floats(values):
    return [float(value) for value in values]


def _write(builder, value):
    """Writes a value and its children into a FlatBuffer.

    Args:
        builder: A `flatbuffers.Builder`.
        value: A string, a list of floats or of other values, or a dictionary. A
            dictionary is a table, from field numbers to values or small
            integers.

    Returns:
        Integer, the offset of the value.
    """
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, list) and isinstance(value[0], float):
        return builder.CreateNumpyVector(np.float32(value))
    if isinstance(value, list):
        offsets = [_write(builder, item) for item in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    offsets = {
        slot: _write(builder, item)
        for slot, item in value.items()
        if not isinstance(item, int)
    }
    builder.StartObject(max(value, default=-1) + 1)
    for slot, item in value.items():
        if slot in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
        else:
            builder.PrependUint8Slot(slot, item, 0)
    return builder.EndObject()


class _Reader:
    """A table in a FlatBuffer. Fields are accessed by number."""

    def __init__(self, content, start):
        self._table = Table(content, start)

    @classmethod
    def root(cls, content):
        return cls(content, int.from_bytes(content[:4], "little"))

    def _field(self, slot):
        offset = self._table.Offset(4 + 2 * slot)
        return offset and self._table.Pos + offset

    def byte(self, slot):
        field = self._field(slot)
        return self._table.Bytes[field] if field else 0

    def string(self, slot):
        return self.vector(slot, np.uint8).tobytes().decode("utf-8")

    def vector(self, slot, dtype):
        """Returns a field's numbers as an array, empty if it is not set."""
        field = self._field(slot)
        if not field:
            return np.empty(0, dtype)
        start = self._table.Indirect(field)
        count = self._table.Get(number_types.UOffsetTFlags, start)
        return np.frombuffer(self._table.Bytes, dtype, count, start + 4)

    def table(self, slot):
        start = self._table.Indirect(self._field(slot))
        return _Reader(self._table.Bytes, start)

    def tables(self, slot):
        """Returns a field's tables as a list, empty if it is not set."""
        field = self._field(slot)
        first = field and self._table.Indirect(field) + 4
        return [
            _Reader(self._table.Bytes, first + 4 * i + int(offset))
            for i, offset in enumerate(self.vector(slot, np.uint32))
        ]
