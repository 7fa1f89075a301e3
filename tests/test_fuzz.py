"""Files and answers that nobody meant: nothing but a clear refusal comes of them, within bounded memory.

Each test takes something valid, or nothing, and lets hypothesis change it; two minutes for all of them.
"""

import io
import json
import resource
import tempfile
import zipfile
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from lesionseg import networks
from lesionseg.common.errors import InputError
from lesionseg.common.parameters import Field, Group, load
from lesionseg.download.archive import LocalFile, extract, read_directory
from lesionseg.download.http_range import RemoteFile, RetryPolicy, TransferError
from lesionseg.formats import weights_file
from lesionseg.images.decoding import read_rgb
from lesionseg.images.header import ImageError, oriented_size
from lesionseg.networks import weights
from loopback import Fault, Server

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

MEMORY = 1 << 30  # bytes that a run of these may add to the process: an image of the largest size, and then some
fuzz = settings(
    max_examples=400,
    deadline=timedelta(seconds=20),
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,  # the same inputs in every run
)


@pytest.fixture(autouse=True)
def bounded_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


@st.composite
def spoiled(draw, valid: list[bytes]) -> bytes:
    """One of the valid contents with some bytes replaced, put in, or cut off."""
    content = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 8))):
        # the front, where most headers lie, more often than not
        position = draw(st.one_of(st.integers(0, min(200, len(content))), st.integers(0, len(content))))
        piece = draw(st.one_of(st.binary(max_size=8), st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])))
        kept = draw(st.sampled_from([len(piece), 0]))
        content[position : position + kept] = piece
    return bytes(content[: draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])


@cache
def pictures() -> list[bytes]:
    found = []
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP"):
        for mode in ("RGB", "L", "P"):
            buffer = io.BytesIO()
            image = Image.radial_gradient("L").resize((24, 18)).convert(mode)
            image.convert("RGB" if kind in ("JPEG", "WEBP") else mode).save(buffer, kind, exif=exif)
            found.append(buffer.getvalue())
    buffer = io.BytesIO()
    Image.new("RGB", (24, 18)).save(buffer, "TIFF", compression="tiff_lzw")
    return [*found, buffer.getvalue()]


@cache
def archives() -> list[bytes]:
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as file:
            for number in range(3):
                file.writestr(f"a/ISIC_{number:07d}.jpg", bytes(range(200)) * (number + 1))
        found.append(buffer.getvalue())
    return found


@cache
def models() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "w")
        weights.save(path, networks.build_network("unet", 1).state_dict(), {"network": "unet", "base_width": 1})
        return [path.read_bytes()]


@fuzz
@given(st.data())
def test_images(data):
    content = data.draw(spoiled(pictures()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.jpg")
        path.write_bytes(content)
        oriented_size(path)
        try:
            pixels, _ = read_rgb(path, 16)
            assert pixels.shape == (16, 16, 3)
        except ImageError as error:
            assert str(error)  # noqa: PT017


@fuzz
@given(st.data())
def test_archives(data):
    content = data.draw(spoiled(archives()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.zip").write_bytes(content)
        file = LocalFile(folder / "a.zip")
        try:
            members = read_directory(file, "a.zip")
        except InputError:
            return
        damaged = extract(file, members, lambda member: folder / "out" / f"{member.start}")
        written = {path.stat().st_size for path in folder.glob("out/*")}
        assert len(members) == len(damaged) + len(list(folder.glob("out/*")))
        assert written <= {member.size for member in members}


@settings(fuzz, max_examples=150)
@given(
    status=st.sampled_from([200, 206, 206, 206, 301, 302, 404, 416, 503]),
    name=st.sampled_from(["Content-Range", "Content-Length", "Location", "Retry-After", "Content-Encoding", "ETag"]),
    value=st.one_of(
        st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40),
        st.sampled_from(["bytes 0-0/10", "bytes 3-5/9", "bytes 0-0/" + "9" * 5000, "-1", "9" * 30, "http://[", "//"]),
    ),
)
def test_answers(status, name, value):
    policy = RetryPolicy(
        connect_timeout=1, read_timeout=0.2, first_attempts=1, attempts=2, backoff=0.001, longest_pause=0.01
    )
    fault = Fault(code=status, headers={name: value})
    with Server({"file": bytes(10)}, lambda request, index: fault if index % 2 == 0 else None) as server:
        try:
            file = RemoteFile(f"{server.url}/file", policy)
            assert len(b"".join(file.stream(2, 8))) == 6
        except TransferError as error:
            assert str(error).isprintable()  # noqa: PT017


@fuzz
@given(st.data())
def test_model_files(data):
    content = data.draw(spoiled(models()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "w")
        path.write_bytes(content)
        try:
            model, _ = weights.load(path)
            assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
        except InputError:
            pass


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@settings(fuzz, max_examples=150)
@given(
    st.dictionaries(st.sampled_from(["network", "base_width", "members", "image_size", "preprocessing"]), json_values)
)
def test_model_metadata(metadata):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "w")
        path.write_bytes(save({"x": torch.zeros(1)}, {weights_file.FORMAT: json.dumps(metadata)}))
        with pytest.raises(InputError):
            weights.load(path)


class Parameters(Group):
    epochs: int = Field(ge=1)
    rate: float
    name: str | None


PARAMETERS = [b"train:\n  epochs: 3\n  rate: 1e-4\n  name: null\n", b"train: {epochs: 1, rate: .5, name: 'x'}\n"]


@fuzz
@given(st.one_of(spoiled(PARAMETERS), st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_parameter_files(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        path.write_bytes(content)
        try:
            load("train", Parameters, path)
        except InputError as error:
            assert all(problem.isprintable() for problem in error.problems)  # noqa: PT017


@pytest.mark.parametrize(
    "content", ["[" * 20_000, "train: 2001-99-99", "train: &a [*a, *a]", "a: &a [x]\nb: &b [*a,*a]\ntrain: *b"]
)
def test_parameter_files_that_yaml_itself_fails_on(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(InputError):
        load("train", Parameters, path)
