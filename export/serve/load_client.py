"""Clients of all kinds: good ones, and those that a server must survive."""

import asyncio
import collections
import dataclasses
import json
import struct
import time
import zlib

import aiohttp

# Seconds after which a client gives up.
PATIENCE = 60


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: HTTP status, or what happened in its place, a string.
        seconds: From the time at which the request was due.
        content: The answer, an object; `None` if there is none.
    """

    status: int | str
    seconds: float
    content: dict | None = None


def session():
    """Opens an HTTP client without a limit of its own."""
    # The server closes what is idle for 5 seconds, perhaps just as a request
    # is under way.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2),
        timeout=aiohttp.ClientTimeout(total=PATIENCE),
    )


async def post(client, url, body, due=None):
    """Sends an image.

    Args:
        client: What `session` returns.
        url: The server's.
        body: Bytes.
        due: When it was to be sent, in `time.perf_counter`'s seconds.

    Returns:
        An `Answer`.
    """
    due = due or time.perf_counter()
    content = None
    try:
        async with client.post(f"{url}/predict", data=body) as response:
            status = response.status
            content = json.loads(await response.read() or "null")
    except TimeoutError:
        status = "no answer"
    except ValueError:
        pass  # Plain text: there are more connections than it serves.
    except (aiohttp.ClientError, OSError):
        status = "closed"
    return Answer(status, time.perf_counter() - due, content)


async def closed_loop(send, clients, seconds):
    """Has clients that send again as soon as they are answered.

    Args:
        send: Coroutine function of the due time; returns what is collected.
        clients: Integer, how many.
        seconds: For how long.

    Returns:
        List of what `send` returned.
    """
    end = time.perf_counter() + seconds
    found = []

    async def client():
        while (now := time.perf_counter()) < end:
            found.append(await send(now))

    await asyncio.gather(*[client() for _ in range(clients)])
    return found


async def open_loop(send, rate, seconds, rng):
    """Sends at random times, whether or not answers have come.

    Args:
        send: As for `closed_loop`.
        rate: Requests a second, on average; arrivals are a Poisson process.
        seconds: For how long.
        rng: `numpy.random.Generator`.

    Returns:
        List of what `send` returned.
    """
    tasks = []
    due = time.perf_counter()
    end = due + seconds
    while (due := due + rng.exponential(1 / rate)) < end:
        await asyncio.sleep(max(0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(send(due)))
    return await asyncio.gather(*tasks)


def junk(photo):
    """Lists bodies that are not images to classify, or not only.

    Args:
        photo: Bytes of a JPEG file.

    Returns:
        Dictionary from names to the status that is due and the body.
    """
    return {
        "half a JPEG": (422, photo[: len(photo) // 2]),
        "a JPEG's first bytes": (422, photo[:20]),
        "text": (415, b"Is this a photograph?"),
        "empty": (415, b""),
        "PNG of 400 million pixels": (413, _bomb()),
        "PNG header only": (422, _png_header(8, 8)),
    }


def _bomb(side=20_000):
    deflate = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    rows = b"".join([deflate.compress(row) for _ in range(side)])
    pixels = _chunk(b"IDAT", rows + deflate.flush())
    return _png_header(side, side) + pixels + _chunk(b"IEND", b"")


def _png_header(width, height):
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)


def _chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return b"%s%s%s%s" % (
        struct.pack(">I", len(content)),
        kind,
        content,
        struct.pack(">I", checksum),
    )


def head(length):
    """Returns the header of a request whose body has that many bytes."""
    return (
        "POST /predict HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


async def dribble(port, pieces, pause):
    """Sends pieces, with pauses, until there is an answer.

    Args:
        port: The server's.
        pieces: Iterable of bytes.
        pause: Seconds between them.

    Returns:
        An `Answer`, of what the server said before it closed.
    """
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.create_task(reader.readline())
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if (await asyncio.wait([answer], timeout=pause))[0]:
                break
        line = await asyncio.wait_for(answer, PATIENCE)
    except TimeoutError:
        line = b"HTTP no-answer"
    except OSError:
        line = b""
    writer.close()
    words = line.split() or [b"", b"closed"]
    status = int(words[1]) if words[1].isdigit() else words[1].decode()
    return Answer(status, time.perf_counter() - start)


async def hang_up(port, body, seconds):
    """Sends an image, all of it or half, and leaves without a word.

    Args:
        port: The server's.
        body: Bytes.
        seconds: After what time it leaves. Half of the clients, those whose
            time is odd in microseconds, have not sent all by then.

    Returns:
        An `Answer`.
    """
    start = time.perf_counter()
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    length = len(body) // 2 if round(1e6 * seconds) % 2 else len(body)
    try:
        writer.write(head(len(body)) + body[:length])
        await asyncio.sleep(seconds)
    finally:
        writer.transport.abort()
    return Answer("hung up", time.perf_counter() - start)


def count(answers):
    """Counts answers by status, the most frequent first."""
    statuses = collections.Counter(str(x.status) for x in answers)
    return dict(statuses.most_common())
