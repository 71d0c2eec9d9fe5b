"""Tests the README's requests to TensorFlow Serving.

Its REST interface is described in
https://www.tensorflow.org/tfx/serving/api_rest. The server does not run here; a
substitute runs a real SavedModel.
"""

import base64
import concurrent.futures
import contextlib
import http.server
import io
import json
import re
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.data import decode_image
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.export import export_saved_model
from convmixer_tf.models import ConvMixer
from tests.helpers import ROOT
from tests.helpers import asymmetric_image
from tests.helpers import randomize

README = (ROOT / "export" / "serve" / "README.md").read_text(encoding="utf-8")
REST, GRPC = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
NAMES = ("ant", "bee", "cat", "dog", "élan")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return randomize(ConvMixer(16, 2, 3, 4, input_shape=(32, 32, 3), classes=5))


@pytest.fixture(scope="module")
def signatures(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("serving") / "1"
    export_saved_model(model, path, class_names=NAMES, top=3)
    loaded = tf.saved_model.load(path)
    return {**loaded.signatures, "": loaded}  # Keeps the variables alive.


@pytest.fixture
def photo(tmp_path, monkeypatch):
    content = tf.io.encode_jpeg(asymmetric_image(40, 60, batch=1)[0]).numpy()
    (tmp_path / "photo.jpg").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return content


def expected(model, photo):
    """The top three classes of the photograph and their probabilities."""
    pixels = resize_and_center_crop(decode_image(photo), 32)
    scores = model(pixels[None]).numpy()[0]
    best = np.argsort(-scores)[:3]
    return [NAMES[i] for i in best], scores[best]


def from_json(value):
    """Parses a REST tensor: nested lists, with bytes as objects."""
    if isinstance(value, list):
        return [from_json(x) for x in value]
    if isinstance(value, dict):
        assert set(value) == {"b64"}
        return base64.b64decode(value["b64"], validate=True)
    return value


def to_json(name, tensor):
    """Formats a tensor. Binary strings would need a name with _bytes."""
    values = tensor.numpy()
    if values.dtype == object:
        assert not name.endswith("_bytes")
        values = np.vectorize(lambda x: x.decode("utf-8"))(values)
    return values.tolist()


def answer_rest(signatures, body):
    """Answers a request to `:predict` in row or column format."""
    request = json.loads(body)
    assert set(request) - {"signature_name"} in ({"instances"}, {"inputs"})
    signature = signatures[request.get("signature_name", "serving_default")]
    ((name, spec),) = signature.structured_input_signature[1].items()
    by_rows = "instances" in request
    given = request["instances" if by_rows else "inputs"]

    def value(x):
        # The name of a single input may be omitted.
        return x[name] if isinstance(x, dict) and set(x) != {"b64"} else x

    given = [value(x) for x in given] if by_rows else value(given)
    outputs = signature(**{name: tf.constant(from_json(given), spec.dtype)})
    found = {name: to_json(name, x) for name, x in outputs.items()}
    if not by_rows:
        return {"outputs": _unnamed(found)}
    rows = zip(*found.values(), strict=True)
    return {
        "predictions": [
            _unnamed(dict(zip(found, row, strict=True))) for row in rows
        ]
    }


def _unnamed(outputs):
    """Omits the name of a single output."""
    (first, *others) = outputs.values()
    return outputs if others else first


@contextlib.contextmanager
def rest_server(signatures):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/v1/models/mine:predict"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found = json.dumps(answer_rest(signatures, body)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(found)))
            self.end_headers()
            self.wfile.write(found)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(code):
    """Runs code of the README; returns its variables and stdout."""
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), names)
    return names, printed.getvalue().splitlines()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_requests_by_rest(model, signatures, photo):
    assert REST.count("localhost:8501") == 1
    with rest_server(signatures) as address:
        names, printed = run(REST.replace("localhost:8501", address))
    labels, scores = expected(model, photo)
    (row,) = names["rows"]["predictions"]
    assert row["top_labels"] == labels
    np.testing.assert_allclose(row["top_probabilities"], scores, atol=1e-6)
    assert names["columns"]["outputs"]["top_labels"] == [labels]
    assert printed[1] == str(labels)
    pixels = np.float32(names["pixels"])[None]
    for line in printed[2:]:
        np.testing.assert_allclose(
            json.loads(line), model(pixels).numpy()[0], atol=1e-6
        )
    assert len(printed) == 4


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_requests_by_grpc(model, signatures, photo):
    grpc = pytest.importorskip("grpc", reason="needs tensorflow-serving-api")
    apis = pytest.importorskip(
        "tensorflow_serving.apis.prediction_service_pb2_grpc",
        reason="needs tensorflow-serving-api",
    )
    from tensorflow_serving.apis import predict_pb2

    class Service(apis.PredictionServiceServicer):
        def Predict(self, request, context):
            assert request.model_spec.name == "mine"
            signature = signatures[request.model_spec.signature_name]
            inputs = {
                name: tf.constant(tf.make_ndarray(proto))
                for name, proto in request.inputs.items()
            }
            response = predict_pb2.PredictResponse()
            for name, tensor in signature(**inputs).items():
                proto = tf.make_tensor_proto(tensor.numpy())
                response.outputs[name].CopyFrom(proto)
            return response

    assert GRPC.count("localhost:8500") == 1
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    apis.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    names, printed = run(GRPC.replace("localhost:8500", f"127.0.0.1:{port}"))
    server.stop(None).wait()
    labels, scores = expected(model, photo)
    found = names["response"].outputs
    np.testing.assert_allclose(
        tf.make_ndarray(found["top_probabilities"])[0], scores, atol=1e-6
    )
    found = tf.make_ndarray(found["top_labels"])[0]
    assert [x.decode("utf-8") for x in found] == labels
    assert printed == [str(found)]


def test_a_broken_file_fails_the_batch_that_it_is_in(signatures, photo):
    encoded = [
        {"b64": base64.b64encode(x).decode()} for x in (photo, photo[:99])
    ]
    body = {"signature_name": "serve_encoded", "instances": encoded}
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="cannot be decoded"
    ):
        answer_rest(signatures, json.dumps(body))
    body["instances"] = encoded[:1]
    assert len(answer_rest(signatures, json.dumps(body))["predictions"]) == 1
