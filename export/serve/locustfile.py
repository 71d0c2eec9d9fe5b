"""Load test of the server: images from a folder, and invalid requests.

    pip install locust
    locust -f export/serve/locustfile.py --host http://127.0.0.1:8000 \
        --headless --users 8 --run-time 20s --images FOLDER

The JPEG, PNG and WebP files in FOLDER are sent in turn, half of them as a form.
One request in ten is invalid. A rejection because the server is busy (503) is
listed separately and is not a failure. Any other unexpected status is a
failure. The exit status is 1 if a request failed.
"""

import itertools
import pathlib

from locust import HttpUser
from locust import events
from locust import task

# Invalid bodies and the expected status.
JUNK = {
    "empty": (415, b""),
    "text": (415, b"Is this a photograph?"),
    "JPEG of 3 bytes": (422, b"\xff\xd8\xff"),
    "HEIC": (415, b"\0\0\0\x18ftypheic"),
}
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_images = []


@events.init_command_line_parser.add_listener
def _add_flags(parser):
    parser.add_argument("--images", required=True, help="folder of files")


@events.test_start.add_listener
def _read_images(environment, **_):
    folder = pathlib.Path(environment.parsed_options.images)
    _images[:] = [
        path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _SUFFIXES
    ]
    if not _images:
        raise FileNotFoundError(f"No JPEG, PNG or WebP files in {folder}")


class Client(HttpUser):
    """Sends the next request as soon as it gets an answer."""

    def on_start(self):
        self._turns = itertools.cycle(_images)
        self._junk = itertools.cycle(JUNK)

    @task(9)
    def send_image(self):
        image = next(self._turns)
        self._send("body", 200, data=image)
        self._send("form", 200, files={"file": ("photo", image)})

    @task(2)
    def send_junk(self):
        name = next(self._junk)
        status, body = JUNK[name]
        self._send(f"junk: {name}", status, data=body)

    def _send(self, name, due, **body):
        with self.client.post(
            "/predict", name=name, catch_response=True, **body
        ) as response:
            if response.status_code == 503:
                response.request_meta["name"] = f"{name}: busy, 503"
                response.success()
            elif response.status_code == due:
                response.success()
            else:
                response.failure(f"{response.status_code}, expected: {due}")
