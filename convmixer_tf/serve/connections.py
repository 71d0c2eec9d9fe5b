"""Time limits for uvicorn's connections."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from convmixer_tf.serve.application import Limits
    from convmixer_tf.serve.application import Service

_MAX_HEADER = 65_536


class ImpatientProtocol(HttpToolsProtocol):
    """Closes a connection if no complete header arrives in time.

    uvicorn starts its keep-alive timer after an answer and stops it at the next
    byte. Here it also runs before the first request, and until a header is
    complete. A client that still sends a rejected body has the same time; if
    the connection was closed immediately, it would not see the reason.
    """

    _header = None  # Number of bytes so far while a header is arriving.

    def connection_made(self, transport):
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def on_message_begin(self):
        super().on_message_begin()
        self._header = 0

    def on_headers_complete(self):
        super().on_headers_complete()
        self._header = None

    def data_received(self, data):
        clock, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        super().data_received(data)
        if self._header is not None:
            self._header += len(data)
            if self._header > _MAX_HEADER:
                self.send_400_response("The header is too long.")
        if self.cycle is None or self.cycle.response_complete:
            self.timeout_keep_alive_task = clock
        elif clock is not None:
            clock.cancel()


def uvicorn_server(service: Service, limits: Limits) -> uvicorn.Server:
    """Creates the `uvicorn.Server` of a `Service` and its `Limits`."""
    # They would write a line for each rejected request.
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel("ERROR")
    return uvicorn.Server(
        uvicorn.Config(
            service.application(),
            http=ImpatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=limits.max_connections,
            timeout_keep_alive=math.ceil(limits.body_seconds),
            timeout_graceful_shutdown=math.ceil(
                1 + limits.body_seconds + limits.answer_seconds
            ),
        )
    )
