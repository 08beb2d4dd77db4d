"""The few calls of S3 that a store makes, answered from a dictionary over real HTTP on loopback."""

import re
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape


class S3Server:
    """A bucket in RAM; `url` is its endpoint, `objects` maps `/bucket/key` to bytes."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        objects = self.objects

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                objects[self._key()] = self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(200)

            def do_HEAD(self) -> None:
                self._object(body=False)

            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                if "list-type" in query:
                    self._list(query.get("prefix", [""])[0])
                else:
                    self._object(body=True)

            def do_POST(self) -> None:
                """Delete many; one that is not there is no error, as in the real service."""
                asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
                keys = re.findall("<Key>(.*?)</Key>", asked)
                for key in keys:
                    objects.pop(f"{self._key().rstrip('/')}/{unescape(key)}", None)
                deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
                self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

            def _key(self) -> str:
                return unquote(urlsplit(self.path).path)

            def _object(self, *, body: bool) -> None:
                content = objects.get(self._key())
                if content is None:
                    self._answer(404)
                    return
                status, headers = 200, {"ETag": '"1"', "Last-Modified": formatdate(usegmt=True)}
                asked = self.headers.get("Range")
                if asked is not None:
                    first, last = asked.removeprefix("bytes=").split("-")
                    start = int(first) if first else len(content) - int(last)
                    stop = min(int(last) + 1, len(content)) if first and last else len(content)
                    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
                    status, content = 206, content[start:stop]
                self._answer(status, content, headers, body=body)

            def _list(self, prefix: str) -> None:
                bucket = self._key().rstrip("/")
                entries = "".join(
                    f"<Contents><Key>{escape(key.removeprefix(bucket + '/'))}</Key><Size>{len(content)}</Size>"
                    "<LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>1</ETag></Contents>"
                    for key, content in objects.items()
                    if key.startswith(f"{bucket}/{prefix}")
                )
                text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
                self._answer(200, text.encode(), {"Content-Type": "application/xml"})

            def _answer(
                self, status: int, content: bytes = b"", headers: dict[str, str] | None = None, *, body: bool = True
            ) -> None:
                self.send_response(status)
                for name, value in {"ETag": '"1"', **(headers or {}), "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, format: str, *arguments: object) -> None:
                """Keep the test's output quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
