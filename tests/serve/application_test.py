"""Tests the server within, at and beyond its limits, with real sockets."""

import base64
import importlib
import io
import re
import struct
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from starlette.exceptions import HTTPException

from convmixer_tf.data import decode_image
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.serve.application import Limits
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
    """Returns the bytes of a PNG with a given size in its header."""
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


def test_photographs_of_phones_are_within_the_limits():
    limits = Limits()
    assert (limits.max_bytes, limits.max_pixels) == (25_000_000, 50_000_000)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", ["exif", "stored"])
def test_a_photograph_is_turned_as_the_model_says(kind, orientation):
    photo = oriented(6, kind=kind)
    expected = decode_image(photo, orientation)
    assert (expected.shape[0] < expected.shape[1]) == (orientation == "stored")
    np.testing.assert_array_equal(
        decoder(orientation)(photo),
        resize_and_center_crop(expected, SIZE, 1.0),
    )


LOSSY, LOSSLESS = {"quality": 90}, {"lossless": True}
EXIF = Image.Exif()
EXIF[0x0112] = 1
TAGGED = {**LOSSY, "exif": EXIF}  # EXIF causes a VP8X header.


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", LOSSY),
        ("WEBP", LOSSLESS),
        ("WEBP", TAGGED),
        ("BMP", {}),
        ("GIF", {}),
    ],
)
def test_an_image_is_classified(server, kind, options):
    client, _ = server
    for name, color in zip(CLASSES, (RED, GREEN, BLUE), strict=True):
        status, _, content = client.post(encoded(color, kind=kind, **options))
        assert status == 200
        assert content["model"] == "colors"
        first, second = content["predictions"]
        assert set(first) == {"class", "index", "probability"}
        assert first["class"] == CLASSES[first["index"]] == name
        assert 0.9 < first["probability"] < 1 > second["probability"] > 0


FILES = {
    "JPEG": encoded(RED, (90, 90), "JPEG"),
    "PNG": encoded(RED, (90, 90)),
    "VP8": encoded(RED, (90, 90), "WEBP", **LOSSY),
    "VP8L": encoded(RED, (90, 90), "WEBP", **LOSSLESS),
    "VP8X": encoded(RED, (90, 90), "WEBP", **TAGGED),
    "BMP": encoded(RED, (30, 30), "BMP"),
    "GIF": encoded(RED, (90, 90), "GIF"),
}
JPEG = FILES["JPEG"]


def frames(kind, *sizes):
    """Returns the bytes of an animation."""
    first, *others = (
        Image.new("RGB", size, (80 * i, 0, 0)) for i, size in enumerate(sizes)
    )
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=others)
    return file.getvalue()


def declared(kind, width, height):
    """Returns a file with a given size in its header."""
    file = bytearray(FILES[kind])
    if kind == "VP8":
        struct.pack_into("<HH", file, 26, width, height)
    elif kind == "VP8L":
        struct.pack_into("<I", file, 21, width - 1 | height - 1 << 14)
    elif kind == "VP8X":
        for place, side in ((24, width), (27, height)):
            file[place : place + 3] = (side - 1).to_bytes(3, "little")
    elif kind == "BMP":
        struct.pack_into("<ii", file, 18, width, -height)
    elif kind == "GIF":  # The frame, not the screen.
        struct.pack_into(
            "<HH", file, file.index(b",\0\0\0\0") + 5, width, height
        )
    elif kind == "JPEG":
        struct.pack_into(
            ">HH", file, file.index(b"\xff\xc0") + 5, height, width
        )
    return bytes(file)


def ftyp(brand):
    return b"\0\0\0\x18ftyp" + brand + bytes(99)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 415, "There is no image: the body is empty. Send the file it"),
        (b"text", 415, "It is not an image; JPEG, PNG, WebP, GIF and BMP"),
        (b"RIFF\0\0\0\0WAVEfmt", 415, "It is not an image; .* b'RIFF"),
        (b'{"image": "/9j/4AAQ"}', 415, "JSON is not accepted. Send the file"),
        (base64.b64encode(JPEG), 415, "Base64 is not accepted. Send the file"),
        (b"data:image/png;base64,iV", 415, "Base64 is not accepted"),
        (b"--x\r\n\r\n", 415, "form needs the header Content-Type: multipart/"),
        (ftyp(b"heic"), 415, "HEIC photograph, .* save it as JPEG"),
        (ftyp(b"mif1"), 415, "HEIC photograph"),
        (ftyp(b"avif"), 415, "AVIF image"),
        (encoded(RED, kind="TIFF"), 415, "TIFF image"),
        (b"GIF89a" + bytes(99), 422, "can't be decoded"),
        (JPEG[:20], 422, "JPEG file has no valid header .*--data-binary"),
        (JPEG[: len(JPEG) // 2], 422, "can't be decoded|no valid header"),
        (JPEG[:-20], 422, "can't be decoded"),
        (png(9, 9)[:20], 422, "PNG file has no valid header"),
        (png(9, 0), 422, "can't be decoded"),
        (png(50, 50), 422, "can't be decoded"),
        (png(20_000, 20_000), 413, "20000 x 20000 pixels, 400000000 in all"),
        (encoded(RED, (101, 100), "JPEG"), 413, "The limit is 10000"),
        (JPEG + 60 * b"\xff\xda", 413, "JPEG has more than 50 scans"),
        (frames("WEBP", (9, 9), (9, 9)), 415, "WebP is animated"),
        (frames("GIF", *[(99, 99)] * 3), 413, "99 x 99 pixels, 29403 in all"),
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


@pytest.mark.parametrize("kind", ["JPEG", "VP8", "VP8L", "VP8X", "BMP", "GIF"])
def test_pixels_are_limited_before_they_are_decoded(server, kind):
    client, _ = server
    for width, height in ((101, 100), (16_000, 3), (16_000, 16_000)):
        status, _, content = client.post(declared(kind, width, height))
        assert status == 413
        pixels = f"{width} x {height} pixels"
        if kind == "GIF":  # Its frames are placed on a screen.
            pixels = f"{width} x {max(height, 90)} pixels"
        assert pixels in content["error"]


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_ends_early_is_refused(server, kind):
    client, _ = server
    file = FILES[kind]
    for length in (12, len(file) // 2, len(file) - 9):
        status, _, content = client.post(file[:length])
        assert status == 422, length
        assert re.search("ends early|can't be decoded", content["error"])


def test_a_gif_has_a_limit_of_blocks():
    gif = FILES["GIF"]
    start = gif.index(b",\0\0\0\0")
    gif = gif[:start] + b"!\xfe" + 250_000 * b"\1x" + b"\0" + gif[start:]
    with pytest.raises(HTTPException, match="more than 200000 blocks"):
        decoder()(gif)


def form(*parts, boundary=b"x", end=b"--x--\r\n"):
    """Returns the bytes of a form and its type."""
    body = b"".join(
        b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n"
        % (boundary, *part)
        for part in parts
    )
    return body + end, f"multipart/form-data; boundary={boundary.decode()}"


PHOTO = (b'name="file"; filename="photo.webp"', FILES["VP8"])


def test_a_form_is_taken(server):
    client, _ = server
    body, kind = form(PHOTO)
    found = client.post(body, kind=kind)
    assert found[0] == 200
    assert found[2] == client.post(PHOTO[1])[2]
    # Data that only looks like a boundary belongs to the file.
    body, kind = form((PHOTO[0], PHOTO[1] + b"\r\n--xx--\r"))
    assert client.post(body, kind=kind)[2] == found[2]
    name = b'name="%s"; filename="x"' % (2000 * b"n")
    body, kind = form((name, PHOTO[1]))
    assert client.post(body, kind=kind)[2] == found[2]
    start = (
        "POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        f"Content-Type: {form(PHOTO)[1]}\r\n\r\n"
    ).encode()
    chunks = [b"%x\r\n%s\r\n" % (len(x), x) for x in (body[:50], body[50:])]
    with client.connect(start, *chunks, b"0\r\n\r\n") as opened:
        assert opened.recv(4000).startswith(b"HTTP/1.1 200 ")
    # curl's default type of a plain body.
    kind = "application/x-www-form-urlencoded"
    assert client.post(PHOTO[1], kind=kind)[2] == found[2]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (form(PHOTO, PHOTO), 400, "more than one part"),
        (form(PHOTO, (b'name="top"', b"3")), 400, "more than one part"),
        (form(*[(b"", b"")] * 200), 400, "too many parts"),
        (form(PHOTO, end=b"--x" + 200 * b" "), 400, "too many spaces"),
        (form(), 400, "has no file"),
        (form((b'name="file"; filename=""', b"")), 415, "body is empty"),
        (form((b'name="text"', b"hello")), 415, "It is not an image"),
        (form(PHOTO, end=b""), 400, "ends early"),
        ((form(PHOTO)[0], "multipart/form-data"), 400, "no boundary"),
        (
            (form(PHOTO)[0], "multipart/x; boundary=y"),
            400,
            "can't be parsed",
        ),
        ((JPEG, "multipart/form-data; boundary=x"), 400, "can't be parsed"),
        ((b"", "multipart/form-data; boundary=x"), 400, "ends early"),
        (form(PHOTO, boundary=300 * b"x"), 400, "can't be parsed"),
        (form((9000 * b"x", b"")), 400, "can't be parsed"),
        (form((PHOTO[0], png(101, 100))), 413, "101 x 100 pixels"),
        (form((PHOTO[0], bytes(20_001))), 413, "longer than 20000 bytes"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_other_forms_are_refused(server, body, status, message):
    client, _ = server
    found, _, content = client.post(body[0], kind=body[1])
    assert found == status
    assert re.search(message, content["error"])


def test_top_is_read_and_what_is_unknown_is_refused(server):
    client, gate = server
    photo = encoded(GREEN)
    for top, count in ((1, 1), (3, 3), (50, 3)):
        found = client.post(photo, f"/predict?top={top}")[2]["predictions"]
        assert len(found) == count
        assert found[0]["class"] == "green"
    asked = len(gate.sizes)
    for query, message in (
        ("size=3", "Unknown query parameter 'size'. Known: top"),
        ("top=3&size=3", "Unknown query parameter 'size'. Known: top"),
        ("top=0", "whole number from 1 to 999999. Received: '0'"),
        ("top=-1", "Received: '-1'"),
        ("top=", "Received: ''"),
        ("top=%D9%A3", "Received: '\u0663'"),
        (f"top={5000 * '9'}", "Received: '9999"),
        ("top=3&top=4", "given once.* Received: '3, 4'"),
    ):
        status, _, content = client.post(photo, f"/predict?{query}")
        assert status == 400
        assert re.search(message, content["error"])
    assert len(gate.sizes) == asked


def test_what_is_no_number_is_an_error(caplog):
    with running() as (client, gate):
        gate.scale = np.nan
        message = "The model's output is not a number (NaN) or infinite."
        assert client.post(encoded(RED))[::2] == (500, {"error": message})
        assert client.get("/health/ready") == (500, {"error": message})
        assert message in caplog.text


def test_rounding_changes_no_probability(server):
    client, gate = server
    before = client.post(encoded(RED))[2]["predictions"][0]["probability"]
    gate.scale = 1.0 / before + 1e-6
    after = client.post(encoded(RED))[2]["predictions"][0]["probability"]
    gate.scale = 1.0
    assert after == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", FILES)
def test_no_damage_is_worse_than_an_image_error(kind):
    rng = np.random.default_rng(0)
    original = np.frombuffer(FILES[kind], np.uint8)
    fates = set()
    for _ in range(200):
        damaged = original.copy()
        places = rng.integers(0, len(damaged), 3)
        damaged[places] = rng.integers(0, 256, 3)
        try:
            assert decoder()(damaged.tobytes()).shape == (8, 8, 3)
            fates.add("decoded")
        except HTTPException as error:
            fates.add(error.status_code)
    assert 422 in fates
    assert fates <= {"decoded", 413, 415, 422}


def test_other_requests(server):
    client, _ = server
    for path, expected in (
        ("/predict", 405),
        ("/elsewhere", 404),
        ("/health/", 404),
    ):
        status, content = client.get(path)
        assert status == expected
        assert "There are POST /predict, GET /health" in content["error"]
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
            client.background(encoded(color))
            for color in (GREEN, BLUE, RED, GREEN, BLUE, RED)
        ]
        client.wait(lambda: gate.asked() == 7)
        time.sleep(0.2)  # Until the requests are in the queue.
        gate.open.set()
        found = []
        for thread, answers in [first, *others]:
            thread.join()
            found.append(best(answers[0][2]))
        assert found == [CLASSES[i % 3] for i in range(7)]
        assert gate.sizes[0] == 1  # The others arrived during its computation.
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
        gate.open.set()  # On a busy machine, one answer may come too late.
        client.wait(lambda: client.post(encoded(GREEN))[0] == 200)


@pytest.mark.slow
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
            opened.sendall(b"POST /predict")  # And nothing else.
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
        assert gate.entered.wait(PATIENCE)
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
        assert sum(gate.sizes) == 2  # Images that had not started were skipped.
    assert "Exception" not in caplog.text


def test_an_error_of_the_server_is_told_without_its_reasons(caplog):
    with running() as (client, gate):
        gate.fails = True
        status, _, content = client.post(encoded(RED))
        assert (status, content) == (500, {"error": "The server failed."})
        assert "A request failed." in caplog.text
        gate.fails = False
        assert best(client.post(encoded(RED))[2]) == "red"


def test_a_missing_package_is_named(monkeypatch):
    for name in [x for x in sys.modules if x.startswith("convmixer_tf.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "python_multipart", None)
    with pytest.raises(ImportError, match=r"python_multipart.*tf\[serve"):
        importlib.import_module("convmixer_tf.serve")
