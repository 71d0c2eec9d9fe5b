"""How uvicorn listens: no connection waits forever for its client."""

import logging
import math

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol


class ImpatientProtocol(H11Protocol):
    """Closes a connection on which no request begins in time.

    uvicorn closes one on which nothing comes after an answer. This one also
    closes those whose first request, or whose next, never gets to the end of
    its header. A client whose body was refused, and which still sends it, has
    as much time: if the connection were closed at once, it would not see why.
    """

    # Seconds.
    patience = 10.0

    _timer = None

    def connection_made(self, transport):
        super().connection_made(transport)
        self._watch()

    def data_received(self, data):
        super().data_received(data)
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


def server(service, limits, max_connections):
    """Makes the server.

    Args:
        service: A `Service`.
        limits: Its `Limits`.
        max_connections: Integer; what comes on more is answered with 503.

    Returns:
        A `uvicorn.Server`. Its `run` returns when all is answered that had
        begun at SIGTERM or Ctrl-C.
    """
    # It would write a line for each request that is refused.
    logging.getLogger("uvicorn.error").setLevel("ERROR")
    protocol = type(
        "Protocol", (ImpatientProtocol,), {"patience": limits.body_seconds}
    )
    return uvicorn.Server(
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
