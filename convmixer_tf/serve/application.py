"""The ASGI application, which returns the top classes of an image.

Everything that a client controls has a limit: the size of the body, the number
of pixels, the time for the request and the answer, and the number of concurrent
images. A request beyond a limit is rejected immediately, and its data is
discarded.
"""

import asyncio
import collections
import contextlib
import dataclasses
import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.responses import Response
from starlette.routing import Route

from convmixer_tf.inference.classification import Prediction
from convmixer_tf.serve import forms
from convmixer_tf.serve.batching import give_way

# Query parameters of a prediction.
_PARAMETERS = ("top",)
_ROUTES = "There are POST /predict, GET /health and GET /health/ready."
# Only counted, because the client is gone. The number is from nginx.
_GONE = Response(status_code=499)


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits for clients.

    Attributes:
        max_bytes: Maximum size of a body, in bytes.
        max_buffered: Maximum size of all bodies together, in bytes.
        max_pixels: Maximum number of pixels of an image.
        max_pending: Maximum number of images that are processed at once.
        max_connections: Maximum number of connections.
        body_seconds: Time limit for receiving a header, a body or the next
            request of a connection, in seconds.
        answer_seconds: Time limit for the answer after that, in seconds.
    """

    max_bytes: int = 25_000_000
    max_buffered: int = 128_000_000
    max_pixels: int = 50_000_000
    max_pending: int = 64
    max_connections: int = 512
    body_seconds: float = 10.0
    answer_seconds: float = 10.0


class Service:
    """Answers requests.

    Args:
        decode: Function from a file's bytes to an image. It raises
            `HTTPException`.
        classifier: A `BatchedClassifier`.
        limits: A `Limits`.
        name: Name of the model.
        class_names: Names of its classes, or `None`.
        top: Integer, the default number of top classes.
        threads: Integer, the number of images that are decoded at once.
    """

    def __init__(
        self,
        decode: Any,
        classifier: Any,
        limits: Limits,
        *,
        name: str,
        class_names: Sequence[str] | None,
        top: int,
        threads: int,
    ) -> None:
        self._decode = decode
        self._classifier = classifier
        self._limits = limits
        self._name = name
        self._class_names = class_names
        self._top = top
        self._decoders = ThreadPoolExecutor(threads, initializer=give_way)
        self._pending = self._buffered = 0
        self._answers: collections.Counter = collections.Counter()

    def application(self):
        """Builds the ASGI application."""
        routes = Starlette(
            routes=[
                Route("/predict", self.predict, methods=["POST"]),
                Route("/health", self.health),
                Route("/health/ready", self.ready),
            ],
            exception_handlers={
                HTTPException: _refuse,
                ClientDisconnect: _leave,
            },
        )
        routes.router.redirect_slashes = False  # curl doesn't follow redirects.
        busy = _response(self._busy())

        async def application(scope, receive, send):
            # The most frequent answers under overload must be the cheapest.
            if scope["path"] == "/predict" and self._is_full():
                self._answers[busy.status_code] += 1
                await busy(scope, receive, send)
            else:
                await routes(scope, receive, send)

        return application

    async def predict(self, request):
        """Returns the top classes of the image in the body."""
        body = bytearray()
        try:
            top = _read_top(request.query_params.multi_items(), self._top)
            await self._read(request, body)
            with self._place():
                kind = request.headers.get("content-type", "")
                work = self._classify(kind, bytes(body))
                scores = await self._in_time(request, work)
            response = JSONResponse(self._describe(scores, top))
        except HTTPException as error:
            response = _response(error)
        except ClientDisconnect:
            response = _GONE
        except Exception:
            logging.exception("A request failed.")
            response = _response(HTTPException(500, "The server failed."))
        finally:
            self._buffered -= len(body)
        self._answers[response.status_code] += 1
        return response

    async def health(self, request):
        """Returns that this process is alive, and its counters."""
        return JSONResponse(
            {
                "status": "live",
                "model": self._name,
                "pending": self._pending,
                "buffered_bytes": self._buffered,
                "answers": {str(k): n for k, n in self._answers.items()},
                "batches": self._classifier.batches,
                "images": self._classifier.images,
            }
        )

    async def ready(self, request):
        """Runs an image through the model and returns whether it works."""
        await self._in_time(request, self._ask(self._classifier.blank))
        return JSONResponse({"status": "ready", "model": self._name})

    async def _read(self, request, body):
        limits = self._limits
        too_long = HTTPException(
            413, f"The body is longer than {limits.max_bytes} bytes."
        )
        if int(request.headers.get("content-length", 0)) > limits.max_bytes:
            raise too_long
        try:
            async with asyncio.timeout(limits.body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    self._buffered += len(chunk)
                    if len(body) > limits.max_bytes:
                        raise too_long
                    if self._buffered > limits.max_buffered:
                        raise _try_later("All bodies together are too long.")
        except TimeoutError as error:
            raise HTTPException(
                408,
                f"The body took more than {limits.body_seconds:g} s.",
                {"Connection": "close"},
            ) from error

    def _is_full(self):
        return self._pending >= self._limits.max_pending

    def _busy(self):
        count = self._limits.max_pending
        return _try_later(f"{count} images are being worked on.")

    @contextlib.contextmanager
    def _place(self):
        if self._is_full():
            raise self._busy()
        self._pending += 1
        try:
            yield
        finally:
            self._pending -= 1

    async def _classify(self, kind, body):
        image = await asyncio.get_running_loop().run_in_executor(
            self._decoders, self._open, kind, body
        )
        return await self._ask(image)

    def _open(self, kind, body):
        if forms.is_form(kind):
            body = forms.read_file(kind, body)
        return self._decode(body)

    async def _ask(self, image):
        scores = await self._classifier(image)
        if not np.isfinite(scores).all():
            message = "The model's output is not a number (NaN) or infinite."
            logging.error(message)
            raise HTTPException(500, message)
        return scores

    async def _in_time(self, request, work):
        """Awaits work with a time limit. Drops work that has not started."""
        seconds = self._limits.answer_seconds
        work = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_hang_up(request))
        try:
            await asyncio.wait(
                (work, gone),
                timeout=seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                return work.result()
            if gone.done():
                raise ClientDisconnect
            raise HTTPException(504, f"There was no answer in {seconds:g} s.")
        finally:
            work.cancel()
            gone.cancel()

    def _describe(self, scores, top):
        best = Prediction("", scores).best(top, self._class_names)
        keys = ("class", "index", "probability")
        return {
            "model": self._name,
            "predictions": [dict(zip(keys, x, strict=True)) for x in best],
        }


def _read_top(parameters, default):
    """Parses the query and rejects unknown parameters."""
    for name, _ in parameters:
        if name not in _PARAMETERS:
            raise HTTPException(
                400,
                f"Unknown query parameter {name[:50]!r}. Known: "
                f"{', '.join(_PARAMETERS)}",
            )
    values = [value for _, value in parameters]
    if not values:
        return default
    if len(values) > 1 or not re.fullmatch("[1-9][0-9]{0,5}", values[0]):
        raise HTTPException(
            400,
            "The query parameter `top` must be given once, as a whole number "
            f"from 1 to 999999. Received: {', '.join(values)[:50]!r}",
        )
    return int(values[0])


def _try_later(reason):
    return HTTPException(
        503, f"{reason} Try again later.", {"Retry-After": "1"}
    )


def _response(error):
    return JSONResponse(
        {"error": error.detail}, error.status_code, error.headers
    )


async def _refuse(request, error):
    if error.status_code in (404, 405):  # No route takes it.
        error.detail = f"{error.detail}. {_ROUTES}"
    return _response(error)


async def _leave(request, error):
    return _GONE


async def _hang_up(request):
    """Returns when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
