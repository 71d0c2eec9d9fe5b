"""Runs TFLite files in LiteRT."""

import importlib
import os

import numpy as np

from convmixer_tf.files import PathLike


def litert_module(name):
    """Imports a module of `ai-edge-litert`.

    Args:
        name: Name of the submodule.

    Returns:
        The module.

    Raises:
        ImportError: If `ai-edge-litert` is not installed.
    """
    try:
        return importlib.import_module(f"ai_edge_litert.{name}")
    except ImportError as error:
        raise ImportError(
            "TFLite files need `ai-edge-litert`. Install the extra: "
            'pip install "convmixer_tf[export]".'
        ) from error


def open_interpreter(path, num_threads=1):
    """Opens a TFLite file in LiteRT.

    Args:
        path: Path of a `.tflite` file.
        num_threads: Integer, how many threads to use.

    Returns:
        An `ai_edge_litert.interpreter.Interpreter`. The memory of its tensors
        is not allocated yet.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If `ai-edge-litert` is not installed.
        ValueError: If the file is not a TFLite file.
    """
    interpreter = litert_module("interpreter")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"The file `{path}` does not exist.")
    try:
        return interpreter.Interpreter(
            model_path=os.fspath(path), num_threads=num_threads
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"`{path}` is not a complete TFLite file: {error}"
        ) from error


def allocate(interpreter, path):
    """Allocates the tensors of an interpreter.

    Args:
        interpreter: Interpreter from `open_interpreter`.
        path: Path of its file, for messages.

    Raises:
        ValueError: If LiteRT does not have an operator of the file.
    """
    try:
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"LiteRT can't run `{path}`: {error}") from error


def names_of_tensors(interpreter):
    """Returns the names of inputs and outputs in a file's signature.

    Args:
        interpreter: Interpreter from `open_interpreter`.

    Returns:
        Dictionary from tensor indices to names. It is empty if the file has no
        signature.
    """
    for signature in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(signature)
        details = {**runner.get_input_details(), **runner.get_output_details()}
        return {tensor["index"]: name for name, tensor in details.items()}
    return {}


class LiteRTModel:
    """Runs a TFLite file in the LiteRT interpreter, one image at a time.

    Args:
        path: Path of a `.tflite` file with one input, and with one output or
            several named outputs.
        num_threads: Integer, how many threads to use.
        output: Name of the output to return, if there are several.

    Attributes:
        input_shape: (height, width, channels) of an image.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If `ai-edge-litert` is not installed.
        ValueError: If the file is not a TFLite file, or has no such output.

    Example:

    ```python
    LiteRTModel("model.tflite").predict(images).shape  # (images, classes)
    ```
    """

    def __init__(
        self,
        path: PathLike,
        num_threads: int = 1,
        output: str | int = "predictions",
    ) -> None:
        self._interpreter = open_interpreter(path, num_threads)
        allocate(self._interpreter, path)
        (self._input,) = self._interpreter.get_input_details()
        names = names_of_tensors(self._interpreter)
        outputs = {
            names.get(tensor["index"], tensor["name"]): tensor
            for tensor in self._interpreter.get_output_details()
        }
        if len(outputs) > 1 and output not in outputs:
            raise ValueError(
                f"`{path}` must have a single output or an output named "
                f"`{output}`. Received: {sorted(outputs)}"
            )
        (first, *_) = outputs.values()
        self._output = outputs.get(output, first)
        self.input_shape = tuple(map(int, self._input["shape"][1:]))

    def predict(self, images):
        """Runs the model on images, one by one.

        Args:
            images: Pixels in [0, 255], (batch, height, width, channels). They
                are rounded for a file that takes uint8.

        Returns:
            float32 array of shape (batch, ...), the outputs. uint8 outputs are
            multiplied by their scale.

        Raises:
            ValueError: If the images have another shape.
        """
        images = np.asarray(images)
        shape = self.input_shape
        if images.shape[1:] != shape or not len(images):
            raise ValueError(
                "Argument `images` must be an array of shape (batch, "
                f"{', '.join(map(str, shape))}). Received: shape {images.shape}"
            )
        if self._input["dtype"] == np.uint8:
            images = np.rint(images)
        outputs = []
        for image in images.astype(self._input["dtype"]):
            self._interpreter.set_tensor(self._input["index"], image[None])
            self._interpreter.invoke()
            outputs.append(self._interpreter.get_tensor(self._output["index"]))
        outputs = np.concatenate(outputs)
        scale, zero_point = self._output["quantization"]
        if scale:
            outputs = np.float32(scale) * (np.float32(outputs) - zero_point)
        return outputs


def compiled_predict(path, num_threads=1):
    """Opens a TFLite file with one output in LiteRT's `CompiledModel`.

    It is LiteRT's newer interface. As of LiteRT 2.3, it always writes a dozen
    lines about accelerators to stderr. `LiteRTModel` therefore uses the
    interpreter.

    Args:
        path: Path of a `.tflite` file.
        num_threads: Integer, how many threads to use.

    Returns:
        A function of a batch of pixels, like `LiteRTModel.predict`, except that
        8-bit outputs are returned unchanged.

    Raises:
        ImportError: If `ai-edge-litert` is not installed or too old.
        ValueError: If the file is not a TFLite file, or has several outputs.
    """
    options = litert_module("options").Options()
    options.cpu_options.num_threads = num_threads
    try:
        model = litert_module("compiled_model").CompiledModel.from_file(
            os.fspath(path), options=options
        )
    except RuntimeError as error:
        raise ValueError(
            f"`{path}` is not a complete TFLite file: {error}"
        ) from error
    (key, tensors), *_ = model.get_signature_list().items()
    if len(tensors["outputs"]) != 1:
        raise ValueError(
            f"`{path}` must have one output. Received: {tensors['outputs']}"
        )
    pixels = model.get_input_tensor_details(key)[tensors["inputs"][0]]
    scores = model.get_output_tensor_details(key)[tensors["outputs"][0]]
    (source,), (result,) = (
        model.create_input_buffers(0),
        model.create_output_buffers(0),
    )
    dtypes = np.dtype(pixels["dtype"]), np.dtype(scores["dtype"])
    count = int(np.prod(scores["shape"]))

    def predict(images):
        images = np.rint(images) if dtypes[0] == np.uint8 else images
        outputs = []
        for image in images:
            source.write(np.asarray(image, dtypes[0]))
            model.run_by_index(0, [source], [result])
            outputs.append(result.read(count, dtypes[1]))
        return np.reshape(outputs, (-1, *scores["shape"][1:]))

    return predict
