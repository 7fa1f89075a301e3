"""A file read by byte range through every fault a network has."""

import base64
import io
import random
import socket
import socketserver
import threading
import time

import pytest
import requests

from lesionseg.download.http_range import CERTIFICATES, Cancelled, RemoteFile, RetryPolicy, TransferError, _session
from loopback import Fault, Server

CONTENT = random.Random(0).randbytes(3_000_000)
QUICK = RetryPolicy(connect_timeout=2, read_timeout=0.3, attempts=4, backoff=0.01, longest_pause=1)


def first(count: int, fault: Fault):
    """The fault for the `count` requests after the one that opens the file."""
    return lambda request, index: fault if 1 <= index <= count else None


def read(file: RemoteFile, start: int = 0, stop: int = len(CONTENT)) -> bytes:
    return b"".join(file.stream(start, stop))


def test_any_range_is_what_lies_there():
    with Server({"file": CONTENT}) as server:
        file = RemoteFile(f"{server.url}/file")
        assert file.size == len(CONTENT)
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
        file = RemoteFile(f"{server.url}/file", RetryPolicy(backoff=0.001, longest_pause=5))
        begun = time.monotonic()
        assert read(file, 0, 3) == b"abc"
        assert 0.9 < time.monotonic() - begun < 3


def test_retry_after_is_bounded():
    with Server({"file": b"abc"}, first(1, Fault(status=503, headers={"Retry-After": "86400"}))) as server:
        assert read(RemoteFile(f"{server.url}/file", RetryPolicy(longest_pause=0.1)), 0, 3) == b"abc"


def test_a_lasting_fault_ends_after_the_bound():
    with Server({"file": CONTENT}, lambda request, index: Fault(status=503) if index else None) as server:
        file = RemoteFile(f"{server.url}/file", QUICK)
        with pytest.raises(TransferError, match=r"/file: the server answers 503.* \(4 attempts\)"):
            read(file)
        assert len(server.requests) == 1 + QUICK.attempts


def test_progress_renews_the_patience_and_a_trickle_does_not():
    for cut, survives in ((1 << 20, True), (1000, False)):
        with Server({"file": CONTENT}, lambda request, index, cut=cut: Fault(cut=cut) if index else None) as server:
            file = RemoteFile(f"{server.url}/file", RetryPolicy(attempts=2, backoff=0.01))
            if survives:
                assert read(file) == CONTENT
            else:
                with pytest.raises(TransferError, match="ended in mid-answer"):
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


@pytest.mark.parametrize("content", [CONTENT + b"x", CONTENT[:10]])
def test_a_file_of_another_size_is_not_mixed_with_the_one_opened(content):
    with Server({"file": CONTENT}) as server:
        file = RemoteFile(f"{server.url}/file", QUICK)
        server.files["file"] = content
        with pytest.raises(TransferError, match="the file changed on the server"):
            read(file, 100, 200)


def test_balanced_servers_may_name_the_same_file_differently():
    def fault(request, index):
        return Fault(headers={"ETag": f'"{index}"'}, cut=2_000_000)

    with Server({"file": CONTENT}, fault) as server:
        assert read(RemoteFile(f"{server.url}/file", QUICK)) == CONTENT


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            Fault(ignore_range=True),
            r"/file: the server has no byte ranges.*; name another server in download\.base_url",
        ),
        (Fault(headers={"Content-Encoding": "gzip"}), r"sends it compressed \(gzip\), though asked not to"),
        (Fault(headers={"Content-Range": "bytes 0-0/*"}), r"does not say how long it is \(Content-Range …/\*\)"),
    ],
)
def test_a_server_that_cannot_serve_ranges_is_refused_at_once(fault, message):
    with Server({"file": CONTENT}, lambda *_: fault) as server:
        with pytest.raises(TransferError, match=message):
            RemoteFile(f"{server.url}/file", QUICK)
        assert len(server.requests) == 1


def test_answers_need_not_say_the_size_again():
    headers = {"Content-Range": "bytes 5-9/*"}
    with Server({"file": CONTENT}, first(1, Fault(headers=headers))) as server:
        assert read(RemoteFile(f"{server.url}/file", QUICK), 5, 10) == CONTENT[5:10]


def test_a_body_longer_than_said_is_not_read():
    """64 MB for 1,000 bytes."""
    headers = {"Content-Range": f"bytes 0-999/{LENGTH}", "Content-Length": str(LENGTH)}
    with Server({"file": bytes(LENGTH)}, first(1, Fault(ignore_range=True, headers=headers))) as server:
        assert read(RemoteFile(f"{server.url}/file", QUICK), 0, 1000) == bytes(1000)
        assert server.sent < 16 << 20, "what fits into the buffers of the two ends, no more"


def test_the_body_of_a_redirect_is_not_read():
    headers = {"Location": "/file", "Content-Length": str(LENGTH)}

    def fault(request, index):
        return Fault(code=302, ignore_range=True, headers=headers) if request.path == "old" else None

    with Server({"file": b"abc", "old": bytes(LENGTH)}, fault) as server:
        assert read(RemoteFile(f"{server.url}/old", QUICK), 0, 3) == b"abc"
        assert server.sent < 16 << 20


LENGTH = 64 << 20


def test_opening_does_not_read_a_file_that_the_server_sends_whole():
    headers = {"Content-Range": f"bytes 0-{LENGTH - 1}/{LENGTH}"}
    with Server({"file": bytes(LENGTH)}, lambda *_: Fault(ignore_range=True, headers=headers)) as server:
        assert RemoteFile(f"{server.url}/file", QUICK).size == LENGTH
        assert server.sent < 16 << 20


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


def test_the_proxy_of_the_environment_is_used_with_its_user_and_password(monkeypatch):
    with Server({"http://mirror.invalid/file": b"abc"}) as proxy:
        for address in (proxy.url, proxy.url.removeprefix("http://"), proxy.url.replace("//", "//me:p%40ss@")):
            monkeypatch.setenv("ALL_PROXY", address)
            assert read(RemoteFile("http://mirror.invalid/file", QUICK, allow_http=True), 0, 3) == b"abc"
        sent = proxy.requests[-1].headers["Proxy-Authorization"]
        assert base64.b64decode(sent.removeprefix("Basic ")) == b"me:p@ss"
        before = len(proxy.requests)
        with Server({"file": b"def"}) as server:
            assert read(RemoteFile(f"{server.url}/file", QUICK), 0, 3) == b"def"
        assert len(proxy.requests) == before, "loopback needs no proxy"


def test_a_proxy_may_speak_socks(monkeypatch):
    greetings = []

    class Socks(socketserver.BaseRequestHandler):
        def handle(self):
            greetings.append(self.request.recv(3))

    with socketserver.TCPServer(("127.0.0.1", 0), Socks) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setenv("https_proxy", f"socks5h://127.0.0.1:{proxy.server_address[1]}")
        with pytest.raises(TransferError, match=r"mirror\.invalid/file: "):
            RemoteFile("https://mirror.invalid/file", QUICK)
        proxy.shutdown()
    assert greetings[0][0] == 5, "the version of SOCKS"


@pytest.mark.parametrize("proxy", ["http://", "http://user:secret@:80:80", "nonsense://user:secret@host"])
def test_a_proxy_that_is_none_is_one_line_without_its_password(monkeypatch, proxy):
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(TransferError) as caught:
        RemoteFile("https://mirror.invalid/file", QUICK)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", CERTIFICATES)
def test_a_private_authority_is_trusted(monkeypatch, tmp_path, name):
    for other in CERTIFICATES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, str(tmp_path / "ours.pem"))
    with pytest.raises(TransferError, match=rf"{name} in the environment: .*ours\.pem: no such file"):
        RemoteFile("https://mirror.invalid/file", QUICK)
    (tmp_path / "ours.pem").touch()
    session = _session("https://mirror.invalid/file", QUICK)
    settings = session.merge_environment_settings("https://mirror.invalid/file", {}, True, None, None)
    assert settings["verify"] == str(tmp_path / "ours.pem")


def test_plain_http_is_refused_unless_allowed():
    with pytest.raises(TransferError, match=r"refused, expected https.*set download\.allow_http to true"):
        RemoteFile("http://mirror.invalid/file", QUICK)
    with pytest.raises(TransferError, match=r"refused, expected https: .* comes by ftp"):
        RemoteFile("ftp://mirror.invalid/file", QUICK)
    with pytest.raises(TransferError, match=r"mirror\.invalid/file: .*\(3 attempts\)"):
        RemoteFile("http://mirror.invalid/file", QUICK, allow_http=True)


@pytest.mark.parametrize("target", ["http://mirror.invalid/file", "//mirror.invalid/x", "ftp://mirror.invalid/file"])
def test_a_redirect_to_plain_http_is_refused(target):
    with Server({"file": b"abc"}) as server:
        server.fault = lambda *_: Fault(status=302, headers={"Location": target})
        with pytest.raises(TransferError, match=r"/old: redirects to \w+://mirror\.invalid/\w+: refused"):
            RemoteFile(f"{server.url}/old", QUICK)


def test_a_server_elsewhere_cannot_have_this_machine_asked(monkeypatch):
    """What listens on the loopback interface trusts whoever asks."""
    with Server({"file": b"abc"}) as server:
        answer = requests.Response()
        answer.status_code, answer.raw = 302, io.BytesIO()
        answer.headers["Location"] = f"{server.url}/file"
        monkeypatch.setattr(requests.Session, "get", lambda *_, **__: answer)
        with pytest.raises(TransferError, match=r"invalid/file: redirects to http://127\.0\.0\.1:\d+/file: refused"):
            RemoteFile("https://mirror.invalid/file", QUICK)
        assert server.requests == []


def test_redirects_are_followed_a_few_times():
    with Server({"file": b"abc"}) as server:
        server.fault = lambda request, index: (
            Fault(status=302, headers={"Location": "/file"}) if request.path == "old" else None
        )
        assert read(RemoteFile(f"{server.url}/old", QUICK), 0, 3) == b"abc"
        server.fault = lambda *_: Fault(status=302, headers={"Location": "/old"})
        with pytest.raises(TransferError, match="more than 5 redirects"):
            RemoteFile(f"{server.url}/old", QUICK)


def test_what_a_server_says_is_printed_quoted_and_secrets_are_not():
    with Server({}) as server:
        server.fault = lambda *_: Fault(status=404)
        with pytest.raises(TransferError) as caught:
            RemoteFile(server.url.replace("//", "//user:secret@") + "/file?signature=secret", QUICK)
        assert "secret" not in str(caught.value)
        assert server.requests[0].path == "file?signature=secret"
        server.fault = lambda *_: Fault(
            status=200, headers={"Content-Range": "\x1b[2J" + "9" * 5000, "Content-Length": "0"}
        )
        with pytest.raises(TransferError) as caught:
            RemoteFile(f"{server.url}/file", QUICK)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300
