"""Measures the server under load, overload, junk and clients that vanish.

    python export/serve/load_test.py --model runs/mine/saved_model \
        --images FOLDER --output export/results/serve.json

It starts `server.py` on one core, drives it from another with the JPEG files
of FOLDER, and writes a JSON file and, beside it, a picture. Flags of the
server go into `--server_flags`. A single client gives the latency, 32 that
send without pause the capacity; all other load is open: requests come at
random times, whether or not the server keeps up, and are timed from when they
were due. Every answer is compared with the first to the same image.

Time: a quarter of a minute for each of the dozen phases, with the default
`--seconds`. Results: results/serve_*.json, and README.md in this folder.
"""

import asyncio
import itertools
import os
import pathlib
import shlex
import sys
import time

import load_client
import load_report
import numpy as np
from absl import app
from absl import flags
from absl import logging
from load_report import CLIENTS
from server_process import ServerProcess

from convmixer_tf.files import check_destination
from convmixer_tf.inference import find_images

_MODEL = flags.DEFINE_string("model", None, "As for server.py.", required=True)
_IMAGES = flags.DEFINE_string(
    "images", None, "Folder of JPEG files to send.", required=True
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "JSON file to write; a PNG beside it.", required=True
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what is there.")
_SECONDS = flags.DEFINE_float("seconds", 10.0, "Length of a phase.", 0.1)
_LIMIT = flags.DEFINE_integer("limit", 64, "Images to send, by turns.", 1)
_LOADS = flags.DEFINE_list(
    "loads",
    ["0.1", "0.3", "0.5", "0.7", "0.9", "1.2", "2", "5", "10"],
    "Loads, as multiples of the capacity.",
)
_SERVER_FLAGS = flags.DEFINE_string("server_flags", "", "As on a command line.")
_REMARK = flags.DEFINE_string("remark", "", "What else to keep in the record.")

# Of what is sent among good images: junk, and clients that hang up.
SHARE = 0.5
# The load under which they come, a multiple of the capacity.
LOAD = 0.5
SLOW_CLIENTS = 20
# Seconds a request may take to arrive: a phase must see what is beyond.
BODY_SECONDS = 2
TOLERANCE = 1e-3


class LoadTest:
    """Drives one server through all phases.

    Args:
        server: A running `ServerProcess`.
        client: What `load_client.session` returns.
        images: List of bytes, JPEG files.
        seconds: Length of a phase.
    """

    def __init__(self, server, client, images, seconds):
        self._server = server
        self._client = client
        self._turns = itertools.cycle(enumerate(images))
        self._images = images
        self._seconds = seconds
        self._rng = np.random.default_rng(0)
        self._first = {}
        self.phases = []

    async def good(self, due):
        """Sends the next image; a wrong answer has the status `wrong`."""
        number, body = next(self._turns)
        answer = await load_client.post(
            self._client, self._server.url, body, due
        )
        if answer.status == 200 and not self._is_right(number, answer):
            return load_client.Answer("wrong", answer.seconds)
        return answer

    def _is_right(self, number, answer):
        found = {
            x["index"]: x["probability"] for x in answer.content["predictions"]
        }
        first = self._first.setdefault(number, found)
        # Classes that are equally likely may change places.
        both = found.keys() & first.keys()
        return bool(both) and all(
            abs(found[k] - first[k]) < TOLERANCE for k in both
        )

    async def run(self, name, answers, offered=None):
        """Runs a phase, and keeps its figures.

        Args:
            name: What stands in the table.
            answers: Coroutine that returns those to good clients.
            offered: Requests a second that are to be sent.

        Returns:
            The figures, a dictionary.
        """
        logging.info("%s", name)
        processor = self._server.seconds_of_processor()
        own, start = time.process_time(), time.perf_counter()
        found = await answers
        seconds = time.perf_counter() - start
        figures = {
            "phase": name,
            "aimed_at": offered,
            **load_report.summary(found, self._seconds, seconds),
            "server_processor_share": (
                self._server.seconds_of_processor() - processor
            )
            / seconds,
            "client_processor_share": (time.process_time() - own) / seconds,
            "server_megabytes": self._server.memory()[0],
        }
        self.phases.append(figures)
        logging.info("%s", load_report.line(figures))
        return figures

    def steady(self, clients):
        """Has clients that send again as soon as they are answered."""
        return load_client.closed_loop(self.good, clients, self._seconds)

    def arriving(self, rate, send=None):
        """Sends at random times."""
        return load_client.open_loop(
            send or self.good, rate, self._seconds, self._rng
        )

    async def with_junk(self, rate):
        """Sends good images and junk, while slow clients hold connections.

        Returns:
            The answers to good clients, and a dictionary of what became of
            each kind of junk.
        """
        kinds = load_client.junk(self._images[0])
        names = itertools.cycle(kinds)
        fates = {name: [] for name in kinds}

        async def send(due):
            if self._rng.random() >= SHARE:
                return await self.good(due)
            name = next(names)
            answer = await load_client.post(
                self._client, self._server.url, kinds[name][1], due
            )
            fates[name].append(answer)
            return None

        slow = {
            "50 MB body": [self._dribble(50 * [bytes(10**6)], 50 * 10**6, 0)],
            "body that never ends": [
                self._dribble(itertools.repeat(b"x"), 1000, 0.5)
                for _ in range(SLOW_CLIENTS)
            ],
            "header that never ends": [
                load_client.dribble(
                    self._server.port,
                    itertools.chain([b"GET / HTTP/1.1\r\n"], _headers()),
                    0.5,
                )
                for _ in range(SLOW_CLIENTS)
            ],
        }
        answers, *others = await asyncio.gather(
            self.arriving(rate, send),
            *[asyncio.gather(*clients) for clients in slow.values()],
        )
        fates |= dict(zip(slow, others, strict=True))
        due = {name: status for name, (status, _) in kinds.items()}
        due |= dict(zip(slow, (413, 408, "closed"), strict=True))
        report = {
            name: {"due": due[name], **load_client.count(fate)}
            for name, fate in fates.items()
        }
        return [x for x in answers if x], report

    def _dribble(self, pieces, length, pause):
        pieces = itertools.chain([load_client.head(length)], pieces)
        return load_client.dribble(self._server.port, pieces, pause)

    async def with_hang_ups(self, rate, longest):
        """Sends good images, and others whose senders don't wait.

        Args:
            rate: Requests a second.
            longest: The most seconds they wait.

        Returns:
            The answers to good clients.
        """

        async def send(due):
            if self._rng.random() >= SHARE:
                return await self.good(due)
            body = next(self._turns)[1]
            seconds = self._rng.uniform(0, longest)
            await load_client.hang_up(self._server.port, body, seconds)
            return None

        return [x for x in await self.arriving(rate, send) if x]

    async def health(self):
        """Asks whether the server is well."""
        answers = {}
        for path in ("/health", "/health/ready"):
            async with self._client.get(self._server.url + path) as response:
                answers[path] = await response.json()
        return answers


def _headers():
    return (f"X-{i}: 1\r\n".encode() for i in itertools.count())


async def measure(server, images, seconds, loads):
    """Runs all phases.

    Args:
        server: A running `ServerProcess`.
        images: List of bytes.
        seconds: Length of a phase.
        loads: List of floats, multiples of the capacity.

    Returns:
        Dictionary of results, as it is written.
    """
    async with load_client.session() as client:
        test = LoadTest(server, client, images, seconds)
        for _ in images:  # The first answers, with nothing else to do.
            await test.good(time.perf_counter())
        idle = server.memory()[0]
        alone = await test.run("one client", test.steady(1))
        full = await test.run(f"{CLIENTS} clients", test.steady(CLIENTS))
        capacity = full["answered_per_second"]
        for load in loads:
            rate = load * capacity
            await test.run(f"{load:g} x capacity", test.arriving(rate), rate)
        again = await test.run("one client again", test.steady(1))

        fates = {}

        async def junk():
            answers, found = await test.with_junk(LOAD * capacity)
            fates.update(found)
            return answers

        await test.run("junk among images", junk(), LOAD * capacity)
        before = (await test.health())["/health"]["answers"]
        await test.run(
            "clients that hang up",
            test.with_hang_ups(LOAD * capacity, 2 * full["p50_ms"] / 1e3),
            LOAD * capacity,
        )
        last = await test.run("one client at the end", test.steady(1))
        health = await test.health()
    after = health["/health"]["answers"]
    return {
        "capacity_per_second": capacity,
        "phases": test.phases,
        "junk": fates,
        "hang_ups_noticed": after.get("499", 0) - before.get("499", 0),
        "recovery": {
            name: figures["p50_ms"] / alone["p50_ms"]
            for name, figures in (("overload", again), ("all", last))
        },
        "server_megabytes": {
            "before": idle,
            "after": server.memory()[0],
            "most": server.memory()[1],
        },
        "health_at_the_end": health,
    }


def read_images(folder, limit):
    """Reads the JPEG files to send.

    Args:
        folder: Path of a folder.
        limit: Integer, the most images, spread over the folder.

    Returns:
        List of bytes.

    Raises:
        FileNotFoundError: If there are none.
    """
    paths = [
        path
        for path in find_images([folder])
        if path.lower().endswith((".jpg", ".jpeg"))
    ]
    if not paths:
        raise FileNotFoundError(f"There are no JPEG files in `{folder}`.")
    step = max(1, len(paths) // limit)
    return [pathlib.Path(x).read_bytes() for x in paths[::step][:limit]]


def pin():
    """Binds this process to a core, if there is another for the server.

    Returns:
        The core that is left, or `None`.
    """
    own, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return None
    os.sched_setaffinity(0, {own})
    return others[0]


def main(argv):
    """Measures the server that the flags describe."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.INFO)
    output = pathlib.Path(_OUTPUT.value)
    try:
        for suffix in (".json", ".png"):
            check_destination(
                output.with_suffix(suffix) if suffix == ".png" else output,
                (suffix,),
                _OVERWRITE.value,
            )
        loads = [float(x) for x in _LOADS.value]
        images = read_images(_IMAGES.value, _LIMIT.value)
        given = shlex.split(_SERVER_FLAGS.value)
        arguments = [
            f"--model={_MODEL.value}",
            f"--body_seconds={BODY_SECONDS}",
            *given,
        ]
        core = pin()
        logging.info("Starting the server on core %s", core)
        with ServerProcess(arguments, core) as server:
            results = asyncio.run(
                measure(server, images, _SECONDS.value, loads)
            )
            status, seconds = server.stop()
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    results["sigterm"] = {"status": status, "seconds": seconds}
    record = {
        "server_flags": given,
        "remark": _REMARK.value,
        "images": {
            "files": len(images),
            "mean_bytes": float(np.mean([len(x) for x in images])),
        },
        "seconds_of_a_phase": _SECONDS.value,
        **results,
    }
    load_report.write(record, output)
    print(load_report.table(record))


if __name__ == "__main__":
    app.run(main)
