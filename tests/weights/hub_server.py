"""A Hugging Face hub on the loopback interface, for the real client.

It implements the part of the protocol for downloading a file (metadata with
HEAD, a redirect to another host with the content, ranges, and errors) and for a
commit of small files.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading

from huggingface_hub import constants


class HubServer:
    """A hub and, on a second port, the content network it redirects to.

    Attributes:
        files: Dictionary from (repository, file name) to content. For a
            revision other than `main`, the key is (repository@revision, file
            name).
        requests: List of `(host, method, path, headers)` in order. `host` is
            `"hub"` or `"cdn"`.
        status: The status of all answers, such as 503, or `None` for correct
            answers.
        cuts: Number of bytes that each of the next downloads sends before the
            connection breaks. Downloads are complete when the list is empty.
        announce_cuts: Whether a truncated download looks complete (its
            Content-Length is what it sends) instead of breaking off.
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
        """URL of the hub, for `HF_ENDPOINT`."""
        return _url(self._servers[0])

    @property
    def cdn_url(self):
        """URL of the content network."""
        return _url(self._servers[1])

    def count(self, host, method):
        """Counts requests of one kind."""
        return sum(r[:2] == (host, method) for r in self.requests)

    def close(self):
        """Shuts down: connections are refused from now on."""
        while self._servers:
            server = self._servers.pop()
            server.shutdown()
            server.server_close()


@contextlib.contextmanager
def running_hub():
    """Runs a `HubServer` and shuts it down."""
    server = HubServer()
    try:
        yield server
    finally:
        server.close()


def point_client_at(hub, cache, monkeypatch):
    """Points the client, in this process, at a hub and an empty cache."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        hub.url + template[template.index("/{repo_id}") :],
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def _serve(hub, handler):
    bound = type(handler.__name__, (handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), bound)
    # Each shutdown would wait for the default interval of 0.5 s.
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
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(.+?)/(.+)", self.path)
        repositories = {repository for repository, _ in self.hub.files}
        if match:
            repository, revision, name = match.groups()
            repository += "" if revision == "main" else f"@{revision}"
        if self.hub.status is not None:
            self.send(self.hub.status, {})
        elif match is None or repository not in repositories:
            self.send(404, {"X-Error-Code": "RepoNotFound"})
        elif (repository, name) not in self.hub.files:
            self.send(404, {"X-Error-Code": "EntryNotFound"})
        else:
            content = self.hub.files[repository, name]
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

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        lines = [json.loads(x) for x in self.rfile.read(size).splitlines()]
        request = ("hub", "POST", self.path, dict(self.headers))
        self.hub.requests.append(request)
        if self.hub.status is not None:
            self.send(self.hub.status, {"Content-Length": 0})
            return
        body = json.dumps(self._changed(lines)).encode()
        self.send(200, {"Content-Length": len(body)})
        self.wfile.write(body)

    def _changed(self, lines):
        """Handles a POST and returns the answer."""
        if self.path == "/api/repos/create":
            name = f"{lines[0].get('organization')}/{lines[0]['name']}"
            return {"url": f"{self.hub.url}/{name}"}
        if self.path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if "/preupload/" in self.path:
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            return {"files": [{**f, **mode} for f in lines[0]["files"]]}
        found = re.fullmatch(r"/api/models/(.+)/commit/main", self.path)
        assert found, self.path
        repository = found[1]
        oid = hashlib.sha1(repr(lines).encode()).hexdigest()
        for line in lines:
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                for name in (repository, f"{repository}@{oid}"):
                    self.hub.files[name, line["value"]["path"]] = content
        url = f"{self.hub.url}/{repository}/commit/{oid}"
        return {"commitOid": oid, "commitUrl": url, "success": True}


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
