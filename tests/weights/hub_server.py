"""A Hugging Face hub on the loopback interface, for the real client.

It speaks the part of the protocol that fetching a file needs: metadata by
HEAD, a redirect to another host that holds the content, ranges, and errors.
"""

import contextlib
import hashlib
import http.server
import re
import threading


class HubServer:
    """A hub and, on a second port, the content network it redirects to.

    Attributes:
        files: Dictionary from (repository, file name) to content.
        requests: List of `(host, method, path, headers)` as they came in,
            `host` being `"hub"` or `"cdn"`.
        status: What the hub answers to everything, such as 503, or `None`
            to answer as it should.
        cuts: How many bytes each of the next downloads sends before the
            connection breaks; once the list is empty, downloads are whole.
        announce_cuts: Whether a cut download looks whole (its Content-Length
            is what it sends) instead of breaking off.
        corrupt: Whether one bit of each download is wrong.
    """

    def __init__(self):
        self.files = {}
        self.requests = []
        self.status = None
        self.cuts = []
        self.announce_cuts = False
        self.corrupt = False
        self._servers = [_serve(self, _Hub), _serve(self, _Cdn)]

    @property
    def url(self):
        """Address of the hub, for `HF_ENDPOINT`."""
        return _url(self._servers[0])

    @property
    def cdn_url(self):
        """Address of the content network."""
        return _url(self._servers[1])

    def count(self, host, method):
        """Counts requests of one kind."""
        return sum(r[:2] == (host, method) for r in self.requests)

    def close(self):
        """Goes down: connections are refused from now on."""
        while self._servers:
            server = self._servers.pop()
            server.shutdown()
            server.server_close()


@contextlib.contextmanager
def running_hub():
    """Runs a `HubServer` and takes it down."""
    server = HubServer()
    try:
        yield server
    finally:
        server.close()


def _serve(hub, handler):
    bound = type(handler.__name__, (handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), bound)
    # The default interval of 0.5 s would be waited for at each shutdown.
    thread = threading.Thread(
        target=server.serve_forever, args=(0.01,), daemon=True
    )
    thread.start()
    return server


def _url(server):
    return f"http://127.0.0.1:{server.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    host = None
    hub = None

    def do_HEAD(self):
        self._record_and_answer(with_body=False)

    def do_GET(self):
        self._record_and_answer(with_body=True)

    def _record_and_answer(self, with_body):
        request = (self.host, self.command, self.path, dict(self.headers))
        self.hub.requests.append(request)
        self.answer(with_body)

    def send(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, *args):
        pass


class _Hub(_Handler):
    host = "hub"

    def answer(self, with_body):
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.+)", self.path)
        repositories = {repository for repository, _ in self.hub.files}
        if self.hub.status is not None:
            self.send(self.hub.status, {})
        elif match is None or match[1] not in repositories:
            self.send(404, {"X-Error-Code": "RepoNotFound"})
        elif match.groups() not in self.hub.files:
            self.send(404, {"X-Error-Code": "EntryNotFound"})
        else:
            content = self.hub.files[match.groups()]
            digest = hashlib.sha256(content).hexdigest()
            self.send(
                302,
                {
                    "Location": f"{self.hub.cdn_url}/{digest}",
                    "ETag": '"of the redirect"',
                    "X-Linked-Etag": f'"{digest}"',
                    "X-Linked-Size": len(content),
                    "X-Repo-Commit": hashlib.sha1(content).hexdigest(),
                    "Content-Length": 0,
                },
            )


class _Cdn(_Handler):
    host = "cdn"

    def answer(self, with_body):
        content = self._content()
        total = len(content)
        start = int(
            re.fullmatch(
                r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-")
            )[1]
        )
        body = content[start:]
        cut = self.hub.cuts.pop(0) if with_body and self.hub.cuts else None
        sent = body[:cut]
        headers = {
            "Content-Length": len(sent if self.hub.announce_cuts else body),
            "Accept-Ranges": "bytes",
        }
        if "Range" in self.headers:
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        self.send(206 if "Range" in self.headers else 200, headers)
        if with_body:
            self.wfile.write(sent)

    def _content(self):
        contents = {
            hashlib.sha256(content).hexdigest(): content
            for content in self.hub.files.values()
        }
        content = contents[self.path.removeprefix("/")]
        if self.hub.corrupt:
            return content[:-1] + bytes([content[-1] ^ 1])
        return content
