"""Byte ranges of one file on an HTTP server, read whole through an unreliable network."""

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

CHUNK = 1 << 18  # most bytes handed on at a time
PROGRESS = 1 << 20  # an attempt that brought this many bytes is no failure in a row with the one before
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # statuses worth another attempt
REDIRECTS = 5  # followed at most
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")  # environment variables

OTHERWISE = (
    "name another server in download.base_url, or get the archive by hand and name its folder in download.archives"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetryPolicy:
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
    """The file at `url`, of `size` bytes. Safe to read from several threads.

    Proxies (also SOCKS, with user and password), .netrc and certificate authorities are those of the environment, as
    requests reads it. Unencrypted http is refused but for this machine itself, and there too where a server elsewhere
    sends on to it, unless `allow_http`. Every later answer is held against the size; that bytes of two versions of the
    same size are not mixed is left to the checksums of what is read, since balanced servers may name one version
    differently.

    Raises TransferError when the server cannot be reached, has no such file, or has no byte ranges.
    """

    def __init__(self, url: str, policy: RetryPolicy | None = None, *, allow_http: bool = False):
        self.url, self.allow_http = url, allow_http
        self.policy = policy or RetryPolicy()
        self._require_secure(url)
        self._session = _session(url, self.policy)
        self.size = -1  # until the server has said it
        attempt = 0
        while self.size < 0:
            try:
                with closing(self._get(0, 0)) as response:
                    self.size = self._size_of_whole(response)
                    if response.headers.get("Content-Length") == "1":
                        response.raw.drain_conn()  # then the connection serves the next request
            except _Fault as fault:
                attempt += 1
                reached = fault.__cause__ is None  # the server itself answered
                allowed = self.policy.attempts if reached else self.policy.first_attempts
                self._pause(fault, attempt, allowed, threading.Event())

    def __str__(self) -> str:
        """The address without user, password and query: those may be secrets."""
        return _shown(self.url)

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
        """Ask for a range of bytes; the body is still to be read. Raises _Fault, or TransferError for a refusal."""
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
        """Refuse an address whose bytes anyone on the way could change, and one of this machine that a server names:
        what listens here is not its to ask."""
        try:
            address = urlsplit(url)
            here = _loopback(address.hostname) and _loopback(urlsplit(self.url).hostname)
            if address.scheme == "https" or (address.scheme == "http" and (self.allow_http or here)):
                return
        except ValueError as error:
            raise TransferError(f"{self}: no address ({error})") from None
        way = "" if url == self.url else f" sends on to {_shown(url)}:"
        raise TransferError(
            f"{self}:{way} refused, expected https: anyone on the way can change what comes by {address.scheme}; "
            "set download.allow_http to true to take it from a network that you trust"
        )

    def _failure(self, error: Exception) -> Exception:
        """What to raise for a request without an answer."""
        cause = _cause(error)
        if isinstance(error, requests.exceptions.ProxyError):
            cause = f"the proxy that the environment names: {cause}"
        if "CERTIFICATE_VERIFY_FAILED" in cause:
            return TransferError(f"{self}: {cause}; name a private authority's certificates in SSL_CERT_FILE")
        if isinstance(error, ValueError):  # an address, the server's or a proxy's, that is none
            return TransferError(f"{self}: {cause}; see download.base_url, and the environment for proxies")
        return _Fault(cause)

    def _accepted(self, response: requests.Response) -> requests.Response:
        """The answer, if its body is what was asked for."""
        if response.status_code in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding == "identity":
                return response
            response.close()
            raise TransferError(
                f"{self}: the server sends it compressed ({printable(encoding, 20)}), though asked not to, so that "
                f"positions in it mean nothing; {OTHERWISE}"
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
            raise TransferError(f"{self}: the server has no byte ranges, so that it gives all or nothing; {OTHERWISE}")
        size = _content_range(response)[1]
        if size is None:
            raise TransferError(f"{self}: the server does not say how long it is (Content-Range …/*); {OTHERWISE}")
        return size

    def _require_same(self, response: requests.Response, start: int) -> None:
        """Hold an answer against the position asked for and the size of the file."""
        if response.status_code == HTTPStatus.OK:
            raise _Fault("the server ignored the byte range")
        first, size = _content_range(response)
        if size not in (None, self.size):
            raise TransferError(f"{self}: the file changed on the server while it was read")
        if first != start:
            raise _Fault(f"the server sent the bytes from {first}, not from {start}")

    def _pause(self, fault: _Fault, attempt: int, allowed: int, cancelled: threading.Event) -> None:
        """Wait before the next attempt; raise TransferError when there is none."""
        if attempt >= allowed:
            times = f" ({attempt} attempts)" if attempt > 1 else ""
            raise TransferError(f"{self}: {fault}{times}") from fault
        pause = self.policy.backoff * 2 ** (attempt - 1)
        pause = max(pause * random.uniform(0.75, 1.25), fault.retry_after or 0)  # spread: many connections
        pause = min(pause, self.policy.longest_pause)
        if pause >= 5:
            log.warning("%s: %s; trying again in %.0f s", self, fault, pause)
        if cancelled.wait(pause):
            raise Cancelled


class _Session(requests.Session):
    """requests reads the body of a redirect, however long, before it follows; here nobody follows but `_get`."""

    def get_redirect_target(self, response: requests.Response) -> None:
        return None


def _session(url: str, policy: RetryPolicy) -> requests.Session:
    """Connections to the server, through the proxy that the environment names, if any."""
    session = _Session()
    session.trust_env = not _loopback(urlsplit(url).hostname)  # no proxy on the way to this machine itself
    session.verify = _certificates()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=policy.connections))
    return session


def _certificates() -> str | bool:
    """The file or folder of the authorities to trust; True: those that come with requests."""
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
        return "an address that is none"


def _loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _body(response: requests.Response) -> Iterator[bytes]:
    """The pieces of the answer as they arrive: what was here before a break counts."""
    try:
        while piece := response.raw.read1(CHUNK):
            yield piece
    except HTTPError as error:
        raise _Fault(_cause(error)) from error


def _content_range(response: requests.Response) -> tuple[int, int | None]:
    """First byte and size of the whole file (None: not said), from a 206 answer (RFC 9110, section 14.4)."""
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
    """What went wrong, in one line: the operating system's words where the cause is its, else those of the first."""
    text = str(error)
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        if isinstance(link, IncompleteRead):
            return "the connection ended within the answer"
        text = str(link) or text
        reason = getattr(link, "reason", None)
        link = (reason if isinstance(reason, BaseException) else None) or link.__cause__ or link.__context__
    return printable(re.sub(r"^HTTPS?Connection(Pool)?\(.*?\): ", "", text), 200)
