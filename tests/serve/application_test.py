"""The server within its limits, at them and beyond, with real sockets."""

import re
import struct
import time
import zlib

import images
import numpy as np
import pytest

from convmixer_tf.data import decode_image
from convmixer_tf.data import resize_and_center_crop
from tests.helpers import oriented
from tests.serve.conftest import CLASSES
from tests.serve.conftest import PATIENCE
from tests.serve.conftest import SIZE
from tests.serve.conftest import decoder
from tests.serve.conftest import encoded
from tests.serve.conftest import head
from tests.serve.conftest import running

RED, GREEN, BLUE = ((200, 0, 0), (0, 200, 0), (0, 0, 200))


def png(width, height):
    """Returns the bytes of a PNG whose header says that it is so large."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1000))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def best(content):
    return content["predictions"][0]["class"]


@pytest.fixture(scope="module")
def server():
    with running(max_bytes=20_000) as (client, gate):
        yield client, gate


def test_a_photograph_is_turned():
    photo = oriented(6)
    expected = resize_and_center_crop(decode_image(photo), SIZE, 1.0)
    np.testing.assert_array_equal(decoder()(photo), expected)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_is_classified(server, kind):
    client, _ = server
    for name, colour in zip(CLASSES, (RED, GREEN, BLUE), strict=True):
        status, _, content = client.post(encoded(colour, kind=kind))
        assert status == 200
        assert content["model"] == "colours"
        first, second = content["predictions"]
        assert set(first) == {"class", "index", "probability"}
        assert first["class"] == CLASSES[first["index"]] == name
        assert 0.9 < first["probability"] < 1 > second["probability"] > 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_no_numbers(value):
    with running() as (client, gate):
        gate.value = value
        status, _, content = client.post(encoded(RED))
    assert status == 500
    assert "the model's outputs are NaN or infinite" in content["error"]


JPEG = encoded(RED, (90, 90), "JPEG")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 415, "must be a JPEG or PNG file.*Received: 0 bytes"),
        (b"text", 415, "curl --data-binary.* Received: 4 bytes.*b'text'"),
        (b"GIF89a" + bytes(99), 415, "must be a JPEG or PNG file"),
        (JPEG[:20], 422, "JPEG has no valid header"),
        (JPEG[: len(JPEG) // 2], 422, "can't be decoded|no valid header"),
        (JPEG[:-20], 422, "can't be decoded"),
        (png(9, 9)[:20], 422, "PNG has no valid header"),
        (png(9, 0), 422, "can't be decoded"),
        (png(50, 50), 422, "can't be decoded"),
        (png(20_000, 20_000), 413, "20000 x 20000 pixels, more than 10000"),
        (encoded(RED, (101, 100), "JPEG"), 413, "101 x 100 pixels, more"),
        (JPEG + 60 * b"\xff\xda", 413, "JPEG has more than 50 scans"),
        (bytes(20_001), 413, "body is longer than 20000 bytes"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_image_is_refused(server, body, status, message):
    client, gate = server
    asked = len(gate.sizes)
    found, _, content = client.post(body)
    assert found == status
    assert set(content) == {"error"}
    assert re.search(message, content["error"])
    assert len(gate.sizes) == asked


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_no_damage_is_worse_than_an_image_error(kind):
    rng = np.random.default_rng(0)
    original = np.frombuffer(encoded(RED, (30, 20), kind), np.uint8)
    fates = set()
    for _ in range(200):
        damaged = original.copy()
        places = rng.integers(0, len(damaged), 3)
        damaged[places] = rng.integers(0, 256, 3)
        try:
            assert decoder()(damaged.tobytes()).shape == (8, 8, 3)
            fates.add("decoded")
        except images.ImageError as error:
            fates.add(type(error).__name__)
    assert "DamagedImageError" in fates


def test_other_requests(server):
    client, _ = server
    assert client.get("/predict")[0] == 405
    assert client.get("/elsewhere") == (404, {"error": "Not Found"})
    status, content = client.get("/health/ready")
    assert (status, content["status"]) == (200, "ready")
    with client.connect(b"not HTTP\r\n\r\n") as opened:
        assert opened.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_body_without_a_length_has_the_same_limit(server):
    client, _ = server
    start = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked"
    chunk = b"2710\r\n" + 10_000 * b"x" + b"\r\n"
    with client.connect(start + b"\r\n\r\n", chunk, chunk, chunk) as opened:
        assert opened.recv(100).startswith(b"HTTP/1.1 413 ")
    client.until(buffered_bytes=0, pending=0)


def test_who_sent_too_much_learns_of_it_and_may_go_on(server):
    client, _ = server
    photo = encoded(BLUE)
    with client.connect(head(3_000_000), bytes(3_000_000)) as opened:
        assert opened.recv(4000).startswith(b"HTTP/1.1 413 ")
        opened.sendall(head(len(photo)) + photo)
        assert opened.recv(4000).startswith(b"HTTP/1.1 200 ")


def test_images_that_wait_form_batches():
    with running(max_batch=4) as (client, gate):
        gate.open.clear()
        first = client.background(encoded(RED))
        assert gate.entered.wait(PATIENCE)
        others = [
            client.background(encoded(colour))
            for colour in (GREEN, BLUE, RED, GREEN, BLUE, RED)
        ]
        client.wait(lambda: gate.asked() == 7)
        time.sleep(0.2)  # From being asked to being in the queue.
        gate.open.set()
        found = []
        for thread, answers in [first, *others]:
            thread.join()
            found.append(best(answers[0][2]))
        assert found == [CLASSES[i % 3] for i in range(7)]
        assert gate.sizes[0] == 1  # While it was computed, the others came.
        assert max(gate.sizes) == 4
        assert len(gate.sizes) <= 4
        health = client.health()
        assert health["batches"] == len(gate.sizes)
        assert health["images"] == sum(gate.sizes) == 7


def test_too_many_are_refused_at_once():
    with running(max_pending=2) as (client, gate):
        gate.open.clear()
        taken = [client.background(encoded(RED)) for _ in range(2)]
        client.until(pending=2)
        start = time.monotonic()
        status, headers, content = client.post(encoded(BLUE))
        assert time.monotonic() - start < 1
        assert (status, headers["Retry-After"]) == (503, "1")
        assert content["error"].startswith("2 images are being worked on.")
        assert client.health()["status"] == "live"
        gate.open.set()
        for thread, answers in taken:
            thread.join()
            assert answers[0][0] == 200
        assert client.post(encoded(BLUE))[0] == 200
        assert client.health()["answers"] == {"503": 1, "200": 3}


def test_too_many_connections_are_refused():
    with running(max_connections=3) as (client, _):
        opened = [client.connect() for _ in range(3)]
        time.sleep(0.2)
        with client.connect(head(0)) as one_more:
            assert one_more.recv(100).startswith(b"HTTP/1.1 503 ")
        for connection in opened:
            connection.close()
        time.sleep(0.2)
        assert client.post(encoded(BLUE))[0] == 200


def test_bodies_together_have_a_limit():
    with running(max_buffered=10_000) as (client, _):
        with client.connect(head(9_000), bytes(8_000)):
            client.until(buffered_bytes=8_000)
            status, headers, content = client.post(bytes(3_000))
            assert (status, headers["Retry-After"]) == (503, "1")
            assert "All bodies together" in content["error"]
        client.until(buffered_bytes=0, answers={"503": 1, "499": 1})
        assert client.post(encoded(BLUE))[0] == 200


def test_an_answer_has_its_time():
    with running(answer_seconds=0.3) as (client, gate):
        gate.open.clear()
        status, _, content = client.post(encoded(RED))
        assert (status, content) == (
            504,
            {"error": "There was no answer in 0.3 s."},
        )
        assert client.get("/health/ready")[0] == 504
        client.until(pending=0, status="live")
        gate.open.set()
        assert best(client.post(encoded(GREEN))[2]) == "green"


def test_a_request_has_its_time():
    with running(body_seconds=0.3) as (client, _):
        with client.connect(head(100), b"begun") as opened:
            assert opened.recv(100).startswith(b"HTTP/1.1 408 ")
        with client.connect(b"GET / HTTP/1.1\r\nX: ", 70_000 * b"x") as opened:
            assert opened.recv(100).startswith(b"HTTP/1.1 400 ")
        for start in (b"", b"POST /predict HTTP/1.1\r\nX-Slow: "):
            with client.connect(start) as opened:
                assert opened.recv(100) == b""
        photo = encoded(RED)
        request = head(len(photo)) + photo
        with client.connect(request) as opened:
            assert opened.recv(4000).startswith(b"HTTP/1.1 200 ")
            opened.sendall(b"POST /predict")  # And no more.
            assert opened.recv(100) == b""
        with client.connect(head(10**8), bytes(10**5)) as opened:
            answer = b""
            while piece := opened.recv(4000):
                answer += piece
            assert b"HTTP/1.1 413 " in answer
        client.until(buffered_bytes=0, pending=0)


def test_who_hangs_up_spoils_nothing(caplog):
    with running() as (client, gate):
        gate.open.clear()
        photo = encoded(RED)
        stays = client.background(encoded(BLUE))
        client.until(pending=1)
        request = head(len(photo)) + photo
        leave = [client.connect(request) for _ in range(3)]
        client.until(pending=4)
        for connection in leave:
            connection.close()
        client.connect(head(len(photo)) + photo[:9]).close()
        client.connect(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n").close()
        client.until(pending=1, answers={"499": 4})
        also = client.background(encoded(GREEN))
        client.until(pending=2)
        gate.open.set()
        for (thread, answers), name in ((stays, "blue"), (also, "green")):
            thread.join()
            assert (answers[0][0], best(answers[0][2])) == (200, name)
        client.until(pending=0, buffered_bytes=0)
    assert "Exception" not in caplog.text


def test_an_error_of_the_server_is_told_without_its_reasons(caplog):
    with running() as (client, gate):
        gate.fails = True
        status, _, content = client.post(encoded(RED))
        assert (status, content) == (500, {"error": "The server failed."})
        assert "A request failed." in caplog.text
