"""The server behind the page: Python's own, on the loopback interface, in front of a model.

Other pages in the same browser can send requests here too. So the Host must be this machine's (not a name that somebody
points here), a photograph must come with a header that a foreign page may not send, and no other origin is allowed.
"""

import base64
import io
import json
import sys
import tempfile
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from lesionseg.common.text import printable
from lesionseg.images.decoding import ImageError, read_rgb
from lesionseg.predict.model import Model

LARGEST = 64 << 20  # bytes of a photograph
SHOWN = 1280  # pixels: longer side of the pictures sent to the page
LOOPBACK = "127.0.0.1"
PAGES = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript")}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Server(ThreadingHTTPServer):
    """Serves the page for one model at `address`. `port` 0 takes any free one."""

    daemon_threads = True

    def __init__(self, model: Model, port: int):
        self.model, self.turn = model, threading.Lock()
        super().__init__((LOOPBACK, port), Handler)
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}
        self.address = f"http://{LOOPBACK}:{self.server_port}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Print the error, unless the browser just went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def answer(self, photograph: bytes) -> dict:
        """What the page shows of an encoded photograph. Raises ImageError if it is none."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "photograph")
            path.write_bytes(photograph)
            with self.turn:  # one photograph at a time
                picture, (width, height) = read_rgb(path)
                [segmentation] = self.model.segment([read_rgb(path, self.model.image_size)])
        mask = segmentation.mask
        return {
            "width": width,
            "height": height,
            "lesion_pixels": int(mask.sum()),  # at the model's threshold, at native size
            "threshold": self.model.settings.threshold,
            "picture": _encoded(picture, "JPEG"),
            "probabilities": _encoded(segmentation.probabilities, "PNG"),
        }


class Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = "lesionseg"
    timeout = 60  # seconds for a client that stops sending

    def do_GET(self) -> None:
        if not self._welcome():
            return
        if self.path not in PAGES:
            self._say(HTTPStatus.NOT_FOUND, {"error": "there is no such page"})
            return
        name, kind = PAGES[self.path]
        self._send(HTTPStatus.OK, kind, files("lesionseg.demo").joinpath(name).read_bytes())

    def do_POST(self) -> None:
        if not self._welcome():
            return
        length = self.headers.get("Content-Length", "")
        if self.path != "/predict" or self.headers.get("X-Lesionseg") != "photograph":
            self._say(HTTPStatus.FORBIDDEN, {"error": "only the page itself may send photographs"})
        elif not (length.isdecimal() and len(length) < 20):
            self._say(HTTPStatus.LENGTH_REQUIRED, {"error": "Content-Length is missing or not a number"})
        elif int(length) > LARGEST:
            self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": f"larger than {LARGEST >> 20} MiB"})
        else:
            try:
                self._say(HTTPStatus.OK, self.server.answer(self.rfile.read(int(length))))
            except ImageError as error:
                self._say(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": printable(str(error))})
            except MemoryError:
                self._say(HTTPStatus.INSUFFICIENT_STORAGE, {"error": "it does not fit into this machine's memory"})

    def _welcome(self) -> bool:
        """Whether the request is for this machine and from this page; answers it if not."""
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in self.server.hosts and (
            origin is None or origin.removeprefix("http://") in self.server.hosts
        ):
            return True
        self._say(HTTPStatus.FORBIDDEN, {"error": f"open {self.server.address}"})
        return False

    def _say(self, status: HTTPStatus, content: dict) -> None:
        self._send(status, "application/json", json.dumps(content).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.close_connection = True  # the body of a refused request is not read
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Log nothing: what is looked at here is nobody's business."""


def _encoded(pixels: np.ndarray, format: str) -> str:
    """The picture as a data: address, its longer side at most `SHOWN` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((SHOWN, SHOWN), Image.Resampling.BILINEAR)
    content = io.BytesIO()
    image.save(content, format, **({"quality": 90} if format == "JPEG" else {"compress_level": 1}))
    return f"data:image/{format.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
