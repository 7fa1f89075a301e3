"""Byte ranges of one file on an HTTP server, read whole through an unreliable network."""

import ipaddress
import logging
import random
import re
import threading
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead, InvalidHeader
from urllib3.util import Retry, Timeout

from lesionseg.common.files import atomic

CHUNK = 1 << 18  # most bytes handed on at a time
PROGRESS = 1 << 20  # an attempt that brought this many bytes is no failure in a row with the one before
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # statuses worth another attempt

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Network:
    """How patient to be. Pauses between attempts double from `backoff` on, or follow Retry-After."""

    connections: int = 8  # requests in flight
    connect_timeout: float = 10  # seconds to reach the server
    read_timeout: float = 30  # seconds without a byte
    first_attempts: int = 3  # to reach a server never reached before: with no network, say so soon
    attempts: int = 8  # in a row that bring nothing; with the pauses about a minute
    backoff: float = 0.5  # seconds before the second attempt
    longest_pause: float = 120  # seconds; bounds Retry-After too


class TransferError(Exception):
    """The server cannot be read, after every attempt. The message names the address and the cause."""


class Cancelled(Exception):
    """The reader gave up on purpose, while a transfer was going on."""


class _Fault(Exception):
    """A fault that another attempt may mend."""

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after


class RemoteFile:
    """One version of the file at `url`. Safe to read from several threads.

    `size` is in bytes; `ranges` says whether the server answers byte ranges: without them only `save` works.
    `version` is what the server calls this version (ETag, else Last-Modified). Every later answer is held
    against size and version, so bytes of two versions are never mixed. (That is all If-Range would do, and it
    also works with weak ETags, which If-Range rules out.)

    Raises TransferError when the server cannot be reached or has no such file.
    """

    def __init__(self, url: str, network: Network | None = None):
        self.url = url
        self.network = network or Network()
        self._pool = _pool(url, self.network)
        self.size: int | None = None
        attempt = 0
        while self.size is None:
            try:
                with closing(self._get({"Range": "bytes=0-0"})) as response:
                    self.ranges = response.status == HTTPStatus.PARTIAL_CONTENT
                    self.size = _content_range(response)[1] if self.ranges else _content_length(response)
                    self.version = _version(response)
                    if self.ranges and _content_length(response) == 1:
                        response.drain_conn()  # then the connection serves the next request
            except _Fault as fault:
                attempt += 1
                reached = fault.__cause__ is None  # the server itself answered
                allowed = self.network.attempts if reached else self.network.first_attempts
                self._pause(fault, attempt, allowed, threading.Event())

    def stream(self, start: int, stop: int, cancelled: threading.Event | None = None) -> Generator[bytes, None, None]:
        """Yield the bytes from `start` up to, not including, `stop`, in pieces of any length.

        A break is mended by asking again from the byte where it happened, with pauses, as long as something
        arrives. Raises TransferError when nothing does, or when the file is no longer the version that was
        opened; Cancelled soon after `cancelled` is set.
        """
        cancelled = cancelled or threading.Event()
        position, attempt = start, 0
        while position < stop:
            begun = position
            try:
                with closing(self._get({"Range": f"bytes={position}-{stop - 1}"})) as response:
                    self._require_same(response, position)
                    for piece in _body(response):
                        if cancelled.is_set():
                            raise Cancelled
                        piece = piece[: stop - position]
                        position += len(piece)
                        yield piece
                        if position == stop:
                            break
                if position < stop:
                    raise _Fault("the answer ended early")
            except _Fault as fault:
                attempt = 1 if position - begun >= PROGRESS else attempt + 1
                self._pause(fault, attempt, self.network.attempts, cancelled)

    def save(self, path: Path, progress: Callable[[int], object]) -> None:
        """Write the whole file to `path`, in one request; `progress` gets the number of bytes as they arrive.

        For servers without ranges: every break starts again from the first byte. Raises as `stream` does.
        """
        attempt = 0
        while True:
            written = 0
            try:
                with closing(self._get({})) as response, atomic(path) as temporary:
                    self._require_same(response)
                    with open(temporary, "wb") as file:
                        for piece in _body(response):
                            file.write(piece)
                            written += len(piece)
                            progress(len(piece))
                    if written != self.size:
                        raise _Fault(f"the answer has {written} bytes of {self.size}")
                return
            except _Fault as fault:
                progress(-written)
                attempt += 1
                self._pause(fault, attempt, self.network.attempts, threading.Event())

    def _get(self, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """One request, its body still to be read. Raises _Fault, or TransferError for a refusal."""
        try:
            response = self._pool.request(
                "GET",
                self.url,
                headers={"Accept-Encoding": "identity", **headers},
                preload_content=False,
                decode_content=False,
                redirect=True,
                retries=Retry(total=None, connect=0, read=0, other=0, status=0, redirect=5),
                timeout=Timeout(connect=self.network.connect_timeout, read=self.network.read_timeout),
            )
        except HTTPError as error:
            raise _Fault(_cause(error)) from error
        if response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return response
        with closing(response):
            answer = f"the server answers {response.status} {response.reason or ''}".rstrip()
            if response.status in TRANSIENT:
                raise _Fault(answer, _retry_after(response))
            if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self.size is not None:
                raise TransferError(f"{self.url}: the file changed on the server while it was read")
            raise TransferError(f"{self.url}: {answer}")

    def _require_same(self, response: urllib3.BaseHTTPResponse, start: int | None = None) -> None:
        """Hold an answer against the version opened, and against the position asked for unless None."""
        whole = response.status == HTTPStatus.OK
        first, size = (0, _content_length(response)) if whole else _content_range(response)
        if (size, _version(response)) != (self.size, self.version):
            raise TransferError(f"{self.url}: the file changed on the server while it was read")
        if start is not None and whole:
            raise _Fault("the server ignored the byte range")
        if start is not None and first != start:
            raise _Fault(f"the server sent the bytes from {first}, not from {start}")

    def _pause(self, fault: _Fault, attempt: int, allowed: int, cancelled: threading.Event) -> None:
        """Wait before the next attempt; raise TransferError when there is none."""
        if attempt >= allowed:
            times = f" ({attempt} attempts)" if attempt > 1 else ""
            raise TransferError(f"{self.url}: {fault}{times}") from fault
        pause = self.network.backoff * 2 ** (attempt - 1)
        pause = max(pause * random.uniform(0.75, 1.25), fault.retry_after or 0)  # spread: many connections
        pause = min(pause, self.network.longest_pause)
        if pause >= 5:
            log.warning("%s: %s; trying again in %.0f s", self.url, fault, pause)
        if cancelled.wait(pause):
            raise Cancelled


def _pool(url: str, network: Network) -> urllib3.PoolManager:
    """Connections to the server, through the proxy that the environment names, if any."""
    address = urlsplit(url)
    proxy = urllib.request.getproxies().get(address.scheme)
    if proxy and not _loopback(address.hostname) and not urllib.request.proxy_bypass(address.hostname):
        return urllib3.ProxyManager(proxy, maxsize=network.connections)
    return urllib3.PoolManager(maxsize=network.connections)


def _loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _body(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The pieces of the answer as they arrive: what was here before a break counts."""
    try:
        while piece := response.read1(CHUNK):
            yield piece
    except HTTPError as error:
        raise _Fault(_cause(error)) from error


def _content_range(response: urllib3.BaseHTTPResponse) -> tuple[int, int]:
    """First byte and size of the whole file, from a 206 answer (RFC 9110, section 14.4)."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", text.strip())
    if not match:
        raise _Fault(f"found the header Content-Range {text!r}, expected 'bytes <first>-<last>/<size>'")
    return int(match[1]), int(match[2])


def _content_length(response: urllib3.BaseHTTPResponse) -> int:
    text = response.headers.get("Content-Length", "")
    if not text.isdigit():
        raise _Fault("the answer does not say how long the file is (no Content-Length)")
    return int(text)


def _version(response: urllib3.BaseHTTPResponse) -> str | None:
    return response.headers.get("ETag") or response.headers.get("Last-Modified")


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    try:
        return Retry().get_retry_after(response)
    except InvalidHeader:
        return None


def _cause(error: HTTPError) -> str:
    """What went wrong, in one line: the operating system's words where the cause is its."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        if isinstance(link, IncompleteRead):
            return "the connection ended within the answer"
        link = getattr(link, "reason", None) or link.__cause__ or link.__context__
    text = str(getattr(error, "reason", None) or error)
    return re.sub(r"^HTTPS?Connection(Pool)?\(.*?\): ", "", text)
