"""The demonstration page: what its server answers, whom it refuses, and the page in a real browser."""

import base64
import http.client
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image

import lesionseg
from chromium import browser, needed
from lesionseg.__main__ import main
from lesionseg.demo import server as server_module
from lesionseg.demo.server import LOOPBACK, Server
from lesionseg.networks import weights
from tiny_data import lesion, picture

ASKED = {"X-Lesionseg": "photograph"}


@pytest.fixture(scope="module")
def server(tmp_path_factory, network):
    path = tmp_path_factory.mktemp("demo") / "model.safetensors"
    weights.save(path, *network)
    with Server(lesionseg.load(path, "cpu"), 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def photograph() -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture(2, lesion(2, 120, 90))).save(content, "PNG")
    return content.getvalue()


def ask(server, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, dict]:
    connection = http.client.HTTPConnection(LOOPBACK, server.server_port, timeout=60)
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, content, dict(reply.headers)


def pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))


def test_it_answers_with_the_models_probabilities(server, photograph, tmp_path):
    status, content, _ = ask(server, "POST", "/predict", photograph, **ASKED)
    answer = json.loads(content)
    assert status == 200
    (tmp_path / "a.png").write_bytes(photograph)
    mask = server.model.predict(tmp_path / "a.png")
    assert (answer["width"], answer["height"]) == (120, 90)
    assert answer["lesion_pixels"] == mask.sum() > 0
    np.testing.assert_array_equal(pixels(answer["probabilities"]) >= server.model.settings.level, mask)
    assert pixels(answer["picture"]).shape == (90, 120, 3)


def test_it_listens_on_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    status, content, headers = ask(server, "GET", "/")
    assert status == 200
    assert b"<title>lesionseg</title>" in content
    assert b"://" not in content, "nothing is loaded from elsewhere"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "headers",
    [ASKED | {"Host": "evil.example:80"}, ASKED | {"Origin": "http://evil.example"}, ASKED | {"Origin": "null"}, {}],
    ids=["host", "origin", "sandboxed", "no header"],
)
def test_it_refuses_what_other_pages_send(server, photograph, headers):
    status, content, _ = ask(server, "POST", "/predict", photograph, **headers)
    assert status == 403
    assert b"probabilities" not in content


def test_bad_photographs_are_one_line(server, photograph, monkeypatch):
    status, content, _ = ask(server, "POST", "/predict", photograph[:300], **ASKED)
    assert status == 422
    assert "\n" not in json.loads(content)["error"]
    assert ask(server, "POST", "/predict", b"", **ASKED)[0] == 422
    assert ask(server, "GET", "/../server.py")[0] == 404
    assert ask(server, "POST", "/predict", b"", **ASKED, **{"Content-Length": "9" * 5000})[0] == 411
    monkeypatch.setattr(server_module, "LARGEST", 10)
    assert ask(server, "POST", "/predict", b"x" * 11, **ASKED)[0] == 413


def test_a_port_that_is_taken_is_one_line(server, capsys):
    arguments = ["demo", "--model", str(server.model.path), "--no-browser", "--device", "cpu"]
    assert main([*arguments, "--port", str(server.server_port)]) == 1
    assert main([*arguments, "--port", "70000"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("demo: error: --port") for line in lines] == [True, True]


DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], arguments[1]));
document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
"""
MOVE = """
const slider = document.getElementById("threshold");
slider.value = arguments[0];
slider.dispatchEvent(new Event("input"));
return document.getElementById("share").textContent;
"""


@needed
def test_a_photograph_is_dropped_and_the_threshold_moved(server, photograph, tmp_path):
    with browser(tmp_path) as window:
        window.open(server.address, 1200, 900)
        window.run(DROP, base64.b64encode(photograph).decode(), "a.png")
        wait(window, "return !document.getElementById('result').hidden")
        probabilities = pixels(json.loads(ask(server, "POST", "/predict", photograph, **ASKED)[1])["probabilities"])
        for level in (128, 20, 250):
            assert window.run(MOVE, level) == f"{100 * (probabilities >= level).mean():.1f} % of the photograph"
        window.run(DROP, base64.b64encode(b"no photograph").decode(), "b.png")
        wait(window, "return document.getElementById('error').textContent.startsWith('b.png:')")
        assert window.run("return document.getElementById('result').hidden")
        assert all(url.startswith((server.address, "data:")) for url in window.requests())
        assert [entry for entry in window.console() if "422" not in entry and "favicon" not in entry] == []


def wait(window, condition: str) -> None:
    for _ in range(300):
        if window.run(condition):
            return
        threading.Event().wait(0.1)
    pytest.fail(f"still not: {condition}")
