"""A small web server that can misbehave, for tests of downloads."""

import contextlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server does, and what it was asked.

    ``cuts``: after how many bytes of the body each of the first answers ends. ``ranges``: "yes" serves them,
    "no" sends everything, "refuse" answers 416, "wrong" sends from another place than was asked for.
    """

    content: bytes
    url: str = ""
    cuts: list[int] = field(default_factory=list)
    ranges: str = "yes"
    status: int = 200
    length: bool = True
    asked: list[str | None] = field(default_factory=list)


@contextmanager
def serving(content: bytes, name: str = "file.bin", **behavior) -> Iterator[Site]:
    site = Site(content, **behavior)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            site.asked.append(asked)
            start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1)) if asked and site.ranges != "no" else 0
            if site.status != 200:
                self.send_error(site.status)
                return
            if asked and (site.ranges == "refuse" or start >= len(site.content)):
                self.send_error(416)
                return
            if asked and site.ranges == "wrong":
                start = 1
            body = site.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}"
                )
            if site.length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body[: site.cuts.pop(0)] if site.cuts else body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/a%20folder/{name}"
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
