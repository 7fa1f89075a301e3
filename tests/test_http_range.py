"""A file read by byte range through every fault a network has."""

import random
import socket
import threading
import time

import pytest

from lesionseg.download.http_range import Cancelled, Network, RemoteFile, TransferError
from loopback import Fault, Server

CONTENT = random.Random(0).randbytes(3_000_000)
QUICK = Network(connect_timeout=2, read_timeout=0.3, attempts=4, backoff=0.01, longest_pause=1)


def first(count: int, fault: Fault):
    """The fault for the `count` requests after the one that opens the file."""
    return lambda request, index: fault if 1 <= index <= count else None


def read(file: RemoteFile, start: int = 0, stop: int = len(CONTENT)) -> bytes:
    return b"".join(file.stream(start, stop))


def test_any_range_is_what_lies_there():
    with Server({"file": CONTENT}) as server:
        file = RemoteFile(f"{server.url}/file")
        assert (file.size, file.ranges) == (len(CONTENT), True)
        chance = random.Random(1)
        for _ in range(20):
            start, stop = sorted(chance.sample(range(len(CONTENT) + 1), 2))
            assert read(file, start, stop) == CONTENT[start:stop]
        assert read(file, 5, 5) == b""
        assert server.connections == 1, "a connection is used again"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(cut=1_234_567, reset=True), id="reset in the body"),
        pytest.param(Fault(cut=1_234_567), id="short body"),
        pytest.param(Fault(cut=0, reset=True), id="reset before the body"),
        pytest.param(Fault(cut=100_000, stall=0.6), id="time-out in the body"),
        pytest.param(Fault(shorter=500_000), id="fewer bytes than asked for"),
        pytest.param(Fault(ignore_range=True), id="range ignored once"),
        pytest.param(Fault(headers={"Content-Range": f"bytes 7-99/{len(CONTENT)}"}), id="another range"),
        pytest.param(Fault(headers={"Content-Range": "nonsense"}), id="nonsense for a range"),
        *(pytest.param(Fault(status=status), id=str(status)) for status in (408, 429, 500, 502, 503, 504)),
        pytest.param(Fault(status=503, headers={"Retry-After": "nonsense"}), id="nonsense for Retry-After"),
    ],
)
def test_a_passing_fault_is_mended(fault):
    with Server({"file": CONTENT}, first(3, fault)) as server:
        assert read(RemoteFile(f"{server.url}/file", QUICK)) == CONTENT


@pytest.mark.parametrize("fault", [Fault(cut=700_000, reset=True), Fault(cut=700_000), Fault(cut=700_000, stall=0.6)])
def test_what_arrived_before_a_break_is_not_asked_for_again(fault):
    with Server({"file": CONTENT}, first(2, fault)) as server:
        assert read(RemoteFile(f"{server.url}/file", QUICK)) == CONTENT
        starts = [request.range[0] for request in server.requests[1:]]
    assert len(starts) == 3
    # a reset may throw away what was still in the client's buffers; an orderly end may not
    assert starts == [0, 700_000, 1_400_000] or (fault.reset and starts == sorted(starts))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("text", ["1", "date"])
def test_retry_after_is_kept_to(status, text):
    wait = text if text == "1" else time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2))
    with Server({"file": b"abc"}, first(1, Fault(status=status, headers={"Retry-After": wait}))) as server:
        file = RemoteFile(f"{server.url}/file", Network(backoff=0.001, longest_pause=5))
        begun = time.monotonic()
        assert read(file, 0, 3) == b"abc"
        assert 0.9 < time.monotonic() - begun < 3


def test_retry_after_is_bounded():
    with Server({"file": b"abc"}, first(1, Fault(status=503, headers={"Retry-After": "86400"}))) as server:
        assert read(RemoteFile(f"{server.url}/file", Network(longest_pause=0.1)), 0, 3) == b"abc"


def test_a_lasting_fault_ends_after_the_bound():
    with Server({"file": CONTENT}, lambda request, index: Fault(status=503) if index else None) as server:
        file = RemoteFile(f"{server.url}/file", QUICK)
        with pytest.raises(TransferError, match=r"/file: the server answers 503.* \(4 attempts\)"):
            read(file)
        assert len(server.requests) == 1 + QUICK.attempts


def test_progress_renews_the_patience_and_a_trickle_does_not():
    for cut, survives in ((1 << 20, True), (1000, False)):
        with Server({"file": CONTENT}, lambda request, index, cut=cut: Fault(cut=cut) if index else None) as server:
            file = RemoteFile(f"{server.url}/file", Network(attempts=2, backoff=0.01))
            if survives:
                assert read(file) == CONTENT
            else:
                with pytest.raises(TransferError, match="ended within the answer"):
                    read(file)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_repeated(status):
    with Server({"file": CONTENT}, lambda *_: Fault(status=status)) as server:
        with pytest.raises(TransferError, match=f"/file: the server answers {status}"):
            RemoteFile(f"{server.url}/file", QUICK)
        assert len(server.requests) == 1


def test_no_network_is_said_soon():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: nobody else takes the port
        begun = time.monotonic()
        with pytest.raises(TransferError, match=r"Connection refused \(3 attempts\)"):
            RemoteFile(f"http://127.0.0.1:{closed.getsockname()[1]}/file")
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("change", ["etag", "size", "shrunk"])
def test_a_file_that_changes_is_not_mixed(change):
    with Server({"file": CONTENT}) as server:
        file = RemoteFile(f"{server.url}/file", QUICK)
        if change == "etag":
            server.etag = '"2"'
        else:
            server.files["file"] = CONTENT + b"x" if change == "size" else CONTENT[:10]
        with pytest.raises(TransferError, match="the file changed on the server"):
            read(file, 100, 200)


def test_a_file_that_changes_between_two_pieces_is_not_mixed():
    def fault(request, index):
        if index == 1:
            server.etag = '"2"'
            return Fault(cut=1000, headers={"ETag": '"1"'})
        return None

    with Server({"file": CONTENT}, fault) as server, pytest.raises(TransferError, match="the file changed on the"):
        read(RemoteFile(f"{server.url}/file", QUICK))


def test_without_ranges_the_whole_file_is_saved_or_nothing(tmp_path):
    def fault(request, index):
        return Fault(ignore_range=True, cut=2_000_000 if index in (1, 2) else None)

    with Server({"file": CONTENT}, fault) as server:
        file = RemoteFile(f"{server.url}/file", QUICK)
        assert (file.size, file.ranges) == (len(CONTENT), False)
        arrived = []
        file.save(tmp_path / "file", arrived.append)
        assert (tmp_path / "file").read_bytes() == CONTENT
        assert sum(arrived) == len(CONTENT)
    with Server({"file": CONTENT}, lambda *_: Fault(ignore_range=True, cut=2_000_000)) as server:
        server.fault = lambda request, index: Fault(ignore_range=True, cut=2_000_000 if index else None)
        file = RemoteFile(f"{server.url}/file", QUICK)
        with pytest.raises(TransferError, match="ended within the answer"):
            file.save(tmp_path / "other", lambda count: None)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


LENGTH = 64 << 20


@pytest.mark.parametrize("headers", [{}, {"Content-Range": f"bytes 0-{LENGTH - 1}/{LENGTH}"}])
def test_opening_does_not_read_a_file_that_the_server_sends_whole(headers):
    with Server({"file": bytes(LENGTH)}, lambda *_: Fault(ignore_range=True, headers=headers)) as server:
        file = RemoteFile(f"{server.url}/file", QUICK)
        assert (file.ranges, file.size) == (bool(headers), LENGTH)
        del file
        assert server.sent < 16 << 20, "what fits into the buffers of the two ends, no more"


def test_cancelling_ends_a_pause_and_a_transfer():
    cancelled = threading.Event()
    with Server({"file": CONTENT}, first(9, Fault(status=503, headers={"Retry-After": "60"}))) as server:
        pieces = RemoteFile(f"{server.url}/file").stream(0, 10, cancelled)
        threading.Timer(0.2, cancelled.set).start()
        begun = time.monotonic()
        with pytest.raises(Cancelled):
            next(pieces)
        assert time.monotonic() - begun < 5
    with Server({"file": CONTENT}) as server, pytest.raises(Cancelled):
        next(RemoteFile(f"{server.url}/file").stream(0, 10, cancelled))


def test_the_proxy_of_the_environment_is_used(monkeypatch):
    with Server({"http://mirror.invalid/file": b"abc"}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert read(RemoteFile("http://mirror.invalid/file", QUICK), 0, 3) == b"abc"
        with Server({"file": b"def"}) as server:
            assert read(RemoteFile(f"{server.url}/file", QUICK), 0, 3) == b"def"
            assert len(proxy.requests) == 2, "loopback needs no proxy"


def test_redirects_are_followed():
    with Server({"file": b"abc"}) as server:
        server.fault = lambda request, index: (
            Fault(status=302, headers={"Location": "/file"}) if request.path == "old" else None
        )
        assert read(RemoteFile(f"{server.url}/old", QUICK), 0, 3) == b"abc"
