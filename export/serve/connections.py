"""How uvicorn listens: no connection waits forever for its client."""

import logging as system_logging
import math

import uvicorn
from absl import logging
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MAX_HEADER = 65_536


class ImpatientProtocol(HttpToolsProtocol):
    """Closes a connection on which no request begins in time.

    uvicorn closes one on which nothing comes after an answer. This one also
    closes those whose first request, or whose next, never gets to the end of
    its header, or has one that is too long. A client whose body was refused,
    and which still sends it, has as much time: if the connection were closed
    at once, it would not see why.
    """

    # Seconds.
    patience = 10.0

    _timer = None
    _header = None  # Bytes of it so far, while one is arriving.

    def connection_made(self, transport):
        super().connection_made(transport)
        self._watch()

    def on_message_begin(self):
        super().on_message_begin()
        self._header = 0

    def on_headers_complete(self):
        super().on_headers_complete()
        self._header = None

    def data_received(self, data):
        super().data_received(data)
        if self._header is not None:
            self._header += len(data)
            if self._header > _MAX_HEADER:
                self.send_400_response("The header is too long.")
        self._watch()

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self._forget()

    def _watch(self):
        """Runs the clock unless a request is being answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.patience, self._give_up)

    def _give_up(self):
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _forget(self):
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Server(uvicorn.Server):
    """Says where it listens, as soon as it does."""

    async def startup(self, sockets=None):
        await super().startup(sockets)
        host, port = sockets[0].getsockname()[:2]
        logging.info("Serving at http://%s:%d", host, port)


def server(service, limits, max_connections):
    """Makes the server.

    Args:
        service: A `Service`.
        limits: Its `Limits`.
        max_connections: Integer; what comes on more is answered with 503.

    Returns:
        A `Server`. Its `run` returns when all is answered that had
        begun at SIGTERM or Ctrl-C.
    """
    # They would write a line for each request that is refused.
    for name in ("uvicorn.error", "python_multipart"):
        system_logging.getLogger(name).setLevel("ERROR")
    protocol = type(
        "Protocol", (ImpatientProtocol,), {"patience": limits.body_seconds}
    )
    return Server(
        uvicorn.Config(
            service.application(),
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=max_connections,
            timeout_graceful_shutdown=math.ceil(
                1 + limits.body_seconds + limits.answer_seconds
            ),
        )
    )
