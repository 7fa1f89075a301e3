"""Byte ranges of one file on an HTTP server, read completely over an unreliable network."""

import ipaddress
import logging
import os
import random
import re
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, IncompleteRead, InvalidHeader
from urllib3.util import Retry

from lesionseg.common.text import printable

CHUNK = 1 << 18  # bytes handed on at a time, at most
PROGRESS = 1 << 20  # an attempt that brought this many bytes starts the count of failures anew
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # statuses worth another attempt
REDIRECTS = 5  # followed at most
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")  # environment variables

OTHERWISE = (
    "name another server in download.base_url, or get the archive yourself and name its folder in download.archives"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetryPolicy:
    """How patient to be. Pauses between attempts double, starting at `backoff`, or follow Retry-After."""

    connections: int = 8  # requests in flight
    connect_timeout: float = 10  # seconds to reach the server
    read_timeout: float = 30  # seconds without a byte
    first_attempts: int = 3  # to reach the server for the first time: without a network, fail soon
    attempts: int = 8  # in a row that bring nothing; about a minute with the pauses
    backoff: float = 0.5  # seconds before the second attempt
    longest_pause: float = 120  # seconds; bounds Retry-After too


class TransferError(Exception):
    """All attempts to read from the server failed. The message names the address and the cause."""


class Cancelled(Exception):
    """The reader cancelled a transfer."""


class _Fault(Exception):
    """A fault that another attempt may overcome."""

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after


class RemoteFile:
    """The file at `url`, of `size` bytes. Safe to read from several threads.

    Proxies (also SOCKS, with user and password), .netrc and certificate authorities are taken from the environment, as
    requests does. Unencrypted http is refused unless `allow_http` is set or the server is this machine itself; a
    server elsewhere may not redirect to this machine. Every later answer must agree with the size. Whether bytes of
    two versions of equal size are mixed is left to the checksums of what is read, since load-balanced servers may name
    one version differently.

    Raises TransferError if the server cannot be reached, lacks the file, or does not support byte ranges.
    """

    def __init__(self, url: str, policy: RetryPolicy | None = None, *, allow_http: bool = False):
        self.url, self.allow_http = url, allow_http
        self.policy = policy or RetryPolicy()
        self._require_secure(url)
        self._session = _session(url, self.policy)
        self.size = -1  # until the server has told
        attempt = 0
        while self.size < 0:
            try:
                with closing(self._get(0, 0)) as response:
                    self.size = self._size_of_whole(response)
                    if response.headers.get("Content-Length") == "1":
                        response.raw.drain_conn()  # so that the connection can serve the next request
            except _Fault as fault:
                attempt += 1
                reached = fault.__cause__ is None  # the server itself answered
                allowed = self.policy.attempts if reached else self.policy.first_attempts
                self._pause(fault, attempt, allowed, threading.Event())

    def __str__(self) -> str:
        """The address without user, password and query, which may be secret."""
        return _shown(self.url)

    def stream(self, start: int, stop: int, cancelled: threading.Event | None = None) -> Generator[bytes, None, None]:
        """Yield the bytes from `start` up to, but not including, `stop`, in pieces of any length.

        After an interruption the rest is requested again, with pauses, as long as something arrives. Raises
        TransferError if nothing does or the file has changed on the server; Cancelled soon after `cancelled` is set.
        """
        cancelled = cancelled or threading.Event()
        position, attempt = start, 0
        while position < stop:
            begun = position
            try:
                with closing(self._get(position, stop - 1)) as response:
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
                self._pause(fault, attempt, self.policy.attempts, cancelled)

    def _get(self, first: int, last: int) -> requests.Response:
        """Request a range of bytes; the caller reads the body. Raises _Fault, or TransferError for a refusal."""
        headers = {"Range": f"bytes={first}-{last}", "Accept-Encoding": "identity"}
        timeout = (self.policy.connect_timeout, self.policy.read_timeout)
        url = self.url
        for _ in range(REDIRECTS + 1):
            self._require_secure(url)
            try:
                response = self._session.get(url, headers=headers, timeout=timeout, stream=True, allow_redirects=False)
            except (requests.RequestException, HTTPError) as error:
                raise self._failure(error) from error
            if not response.is_redirect:
                return self._accepted(response)
            response.close()
            url = urljoin(url, response.headers["Location"])
        raise TransferError(f"{self}: more than {REDIRECTS} redirects")

    def _require_secure(self, url: str) -> None:
        """Refuse an address whose bytes anyone on the way could change, and redirects of a server elsewhere to this
        machine, whose services it has no business to reach."""
        try:
            address = urlsplit(url)
            here = _loopback(address.hostname) and _loopback(urlsplit(self.url).hostname)
            if address.scheme == "https" or (address.scheme == "http" and (self.allow_http or here)):
                return
        except ValueError as error:
            raise TransferError(f"{self}: not an address ({error})") from None
        way = "" if url == self.url else f" redirects to {_shown(url)}:"
        raise TransferError(
            f"{self}:{way} refused, expected https: anyone on the way can change what comes by {address.scheme}; "
            "set download.allow_http to true if you trust the network"
        )

    def _failure(self, error: Exception) -> Exception:
        """The exception for a request that got no answer."""
        cause = _cause(error)
        if isinstance(error, requests.exceptions.ProxyError):
            cause = f"the proxy that the environment names: {cause}"
        if "CERTIFICATE_VERIFY_FAILED" in cause:
            return TransferError(f"{self}: {cause}; name a private authority's certificates in SSL_CERT_FILE")
        if isinstance(error, ValueError):  # the address of the server or a proxy is malformed
            return TransferError(f"{self}: {cause}; see download.base_url, and the environment for proxies")
        return _Fault(cause)

    def _accepted(self, response: requests.Response) -> requests.Response:
        """The answer, if its body is what was requested."""
        if response.status_code in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding == "identity":
                return response
            response.close()
            raise TransferError(
                f"{self}: the server sends it compressed ({printable(encoding, 20)}), though asked not to, so byte "
                f"positions are meaningless; {OTHERWISE}"
            )
        response.close()
        answer = f"the server answers {response.status_code} {printable(response.reason or '', 60)}".rstrip()
        if response.status_code in TRANSIENT:
            raise _Fault(answer, _retry_after(response))
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self.size >= 0:
            raise TransferError(f"{self}: the file changed on the server while it was read")
        raise TransferError(f"{self}: {answer}")

    def _size_of_whole(self, response: requests.Response) -> int:
        """The size of the file, from the answer to the first request."""
        if response.status_code == HTTPStatus.OK:
            raise TransferError(f"{self}: the server has no byte ranges, so it gives all or nothing; {OTHERWISE}")
        size = _content_range(response)[1]
        if size is None:
            raise TransferError(f"{self}: the server does not say how long it is (Content-Range …/*); {OTHERWISE}")
        return size

    def _require_same(self, response: requests.Response, start: int) -> None:
        """Check an answer against the position requested and the size of the file."""
        if response.status_code == HTTPStatus.OK:
            raise _Fault("the server ignored the byte range")
        first, size = _content_range(response)
        if size not in (None, self.size):
            raise TransferError(f"{self}: the file changed on the server while it was read")
        if first != start:
            raise _Fault(f"the server sent the bytes from {first}, not from {start}")

    def _pause(self, fault: _Fault, attempt: int, allowed: int, cancelled: threading.Event) -> None:
        """Wait before the next attempt; raise TransferError if none is left."""
        if attempt >= allowed:
            times = f" ({attempt} attempts)" if attempt > 1 else ""
            raise TransferError(f"{self}: {fault}{times}") from fault
        pause = self.policy.backoff * 2 ** (attempt - 1)
        pause = max(pause * random.uniform(0.75, 1.25), fault.retry_after or 0)  # spread, as there are many connections
        pause = min(pause, self.policy.longest_pause)
        if pause >= 5:
            log.warning("%s: %s; trying again in %.0f s", self, fault, pause)
        if cancelled.wait(pause):
            raise Cancelled


class _Session(requests.Session):
    """Leaves redirects to `_get`: requests would read the body of a redirect, however long, before following it."""

    def get_redirect_target(self, response: requests.Response) -> None:
        return None


def _session(url: str, policy: RetryPolicy) -> requests.Session:
    """Connections to the server, through the proxy that the environment names, if any."""
    session = _Session()
    session.trust_env = not _loopback(urlsplit(url).hostname)  # no proxy between this machine and itself
    session.verify = _certificates()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=policy.connections))
    return session


def _certificates() -> str | bool:
    """The file or folder of certificate authorities to trust; True: those that come with requests."""
    for name in CERTIFICATES:
        if path := os.environ.get(name):
            if not Path(path).exists():
                raise TransferError(f"{name} in the environment: {path}: no such file; correct or unset it")
            return path
    return True


def _shown(url: str) -> str:
    """An address without user, password and query."""
    try:
        address = urlsplit(url)
        return printable(urlunsplit((address.scheme, address.netloc.rpartition("@")[2], address.path, "", "")), 500)
    except ValueError:
        return "a malformed address"


def _loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _body(response: requests.Response) -> Iterator[bytes]:
    """Yield the pieces of the answer as they arrive, so that those before an interruption count."""
    try:
        while piece := response.raw.read1(CHUNK):
            yield piece
    except HTTPError as error:
        raise _Fault(_cause(error)) from error


def _content_range(response: requests.Response) -> tuple[int, int | None]:
    """First byte and size of the whole file (None: not stated), from a 206 answer (RFC 9110, section 14.4)."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", text.strip())
    if not match:
        raise _Fault(f"found the header Content-Range {printable(text, 60)!r}, expected 'bytes <first>-<last>/<size>'")
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _retry_after(response: requests.Response) -> float | None:
    try:
        return Retry().get_retry_after(response.raw)
    except (InvalidHeader, ValueError, OverflowError):
        return None


def _cause(error: BaseException) -> str:
    """What went wrong, in one line: in the operating system's words if it is the cause, else in the first error's."""
    text = str(error)
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        if isinstance(link, IncompleteRead):
            return "the connection ended in mid-answer"
        text = str(link) or text
        reason = getattr(link, "reason", None)
        link = (reason if isinstance(reason, BaseException) else None) or link.__cause__ or link.__context__
    return printable(re.sub(r"^HTTPS?Connection(Pool)?\(.*?\): ", "", text), 200)
