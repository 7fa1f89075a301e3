"""A range-capable HTTP server on 127.0.0.1 that counts what it sends and does what a bad network does."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """What to do instead of a proper answer."""

    status: int | None = None  # answer with this status and no content
    headers: Mapping[str, str] = field(default_factory=dict)  # sent in place of, or beside, the usual ones
    cut: int | None = None  # stop after so many bytes of the body...
    reset: bool = False  # ...with a TCP reset rather than an orderly close
    stall: float = 0  # seconds of silence after what is sent of the body
    ignore_range: bool = False  # 200 and the whole file
    code: int | None = None  # answer with this status, and the content all the same
    shorter: int | None = None  # a valid answer, but for so many bytes only
    corrupt: bool = False  # the last byte of the body is wrong
    pause: float = 0  # seconds before each piece of the body


@dataclass
class Request:
    path: str
    range: tuple[int, int] | None  # first and last byte asked for
    sent: int = 0  # bytes of body
    headers: Mapping[str, str] = field(default_factory=dict)


class Server:
    """Serve `files` (path without leading slash -> bytes or a file). `fault(request, index)` may spoil an answer."""

    def __init__(self, files: Mapping[str, bytes | Path], fault: Callable[[Request, int], Fault | None] | None = None):
        self.files = dict(files)
        self.etag = '"1"'
        self.fault = fault or (lambda request, index: None)
        self.latency = 0.0  # seconds before each answer
        self.requests: list[Request] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._http = _Listener(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def sent(self) -> int:
        return sum(request.sent for request in self.requests)

    def record(self, request: Request) -> Fault:
        with self._lock:
            self.requests.append(request)
            index = len(self.requests) - 1
        return self.fault(request, index) or Fault()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    owner: Server

    def handle_error(self, request, client_address) -> None:
        """A client that goes away is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        with self.server.owner._lock:
            self.server.owner.connections += 1

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        owner = self.server.owner
        content = owner.files.get(self.path.lstrip("/"))
        size = None if content is None else content.stat().st_size if isinstance(content, Path) else len(content)
        asked = self._range(size)
        request = Request(self.path.lstrip("/"), asked, headers=dict(self.headers))
        fault = owner.record(request)
        time.sleep(owner.latency)
        if fault.status or content is None:
            self._empty(fault.status or 404, fault.headers)
            return
        if asked and not fault.ignore_range:
            first, last = asked
            if first >= size:
                self._empty(416, {"Content-Range": f"bytes */{size}"})
                return
            if fault.shorter is not None:
                last = min(last, first + fault.shorter - 1)
            headers = {"Content-Range": f"bytes {first}-{last}/{size}"}
        else:
            first, last, headers = 0, size - 1, {}
        headers |= {"ETag": owner.etag, "Content-Length": str(last - first + 1), **fault.headers}
        self.send_response(fault.code or (206 if "Content-Range" in headers else 200))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self._body(content, first, last + 1, request, fault)

    def _range(self, size: int | None) -> tuple[int, int] | None:
        text = self.headers.get("Range")
        if not text or size is None:
            return None
        first, last = text.removeprefix("bytes=").split("-")
        return int(first), min(int(last or size - 1), size - 1)

    def _empty(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, content: bytes | Path, start: int, stop: int, request: Request, fault: Fault) -> None:
        end = stop if fault.cut is None else min(stop, start + fault.cut)
        for piece, last in _pieces(content, start, end):
            if fault.corrupt and last:
                piece = piece[:-1] + bytes([piece[-1] ^ 0xFF])
            time.sleep(fault.pause)
            request.sent += len(piece)  # before the client can have it and look
            self.wfile.write(piece)
        self.wfile.flush()
        time.sleep(fault.stall)
        if fault.cut is not None:
            if fault.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True


def _pieces(content: bytes | Path, start: int, stop: int, length: int = 1 << 16):
    """Pieces of content[start:stop], each with whether it is the last."""
    if isinstance(content, bytes):
        for position in range(start, stop, length):
            yield content[position : min(position + length, stop)], position + length >= stop
        return
    with open(content, "rb") as file:
        file.seek(start)
        for position in range(start, stop, length):
            yield file.read(min(length, stop - position)), position + length >= stop
