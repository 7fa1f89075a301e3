"""The weights file: what went in comes out, the same bytes each time, and a wrong file is named."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from lesionseg import networks
from lesionseg.common.errors import InputError
from lesionseg.formats import weights_file
from lesionseg.networks import weights

METADATA = {"network": "unet", "base_width": 4, "image_size": 64, "threshold": 0.5, "kept": "best", "note": None}


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = networks.build_network("unet", 4)
    network(torch.rand(2, 3, 32, 32))  # so that the running statistics are not the initial ones
    return network.eval()


def test_an_ensemble_comes_back_as_the_mean_of_its_members_probabilities(tmp_path):
    ensemble = networks.build_network("unet", 2, members=3).eval()
    weights.save(
        tmp_path / "weights.safetensors", ensemble.state_dict(), {"network": "unet", "base_width": 2, "members": 3}
    )
    loaded, metadata = weights.load(tmp_path / "weights.safetensors")
    assert metadata["members"] == len(loaded.members) == 3
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        found = loaded(images)
        each = [member(images) for member in ensemble.members]
    torch.testing.assert_close(found.sigmoid(), torch.stack([one.sigmoid() for one in each]).mean(0))
    assert len({one.sum().item() for one in each}) == 3


def test_an_ensemble_of_certain_members_has_finite_logits():
    class Says(torch.nn.Module):
        def __init__(self, logit):
            super().__init__()
            self.logit = logit

        def forward(self, images):
            return torch.full((1, 1, 1, 1), self.logit)

    def together(*logits):
        return networks.Ensemble(map(Says, logits))(torch.zeros(1)).item()

    assert together(1e4, 1e4) == 1e4
    assert together(1e4, -1e4) == pytest.approx(0)
    assert together(-200.0, -300.0) == pytest.approx(-200 - math.log(2))


@pytest.mark.parametrize("name", networks.NAMES)
def test_nothing_is_drawn_for_a_network_that_is_read(tmp_path, name):
    """On the meta device torch imports its compiler for it: two seconds."""

    class Called(TorchFunctionMode):
        def __torch_function__(self, function, types, arguments=(), keywords=None):
            names.add(getattr(function, "__name__", ""))
            return function(*arguments, **(keywords or {}))

    names = set()
    original = networks.build_network(name, 4)
    weights.save(tmp_path / "weights.safetensors", original.state_dict(), {"network": name, "base_width": 4})
    with Called():
        loaded, _ = weights.load(tmp_path / "weights.safetensors")
    assert names
    assert "normal_" not in names
    for key, tensor in original.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("members", [0, -1, 65, 2.0, 2.5, "2", None, True])
def test_a_number_of_members_that_cannot_be_is_refused(tmp_path, members):
    metadata = {"network": "unet", "base_width": 4, "members": members}
    weights.save(tmp_path / "weights.safetensors", networks.build_network("unet", 4).state_dict(), metadata)
    with pytest.raises(InputError, match="its metadata is"):
        weights.load(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", networks.NAMES)
def test_the_file_alone_rebuilds_the_network(tmp_path, name):
    network = networks.build_network(name, 4).eval()
    weights.save(tmp_path / "new/weights.safetensors", network.state_dict(), {"network": name, "base_width": 4})
    loaded, metadata = weights.load(tmp_path / "new/weights.safetensors")
    assert metadata == {"network": name, "base_width": 4}
    assert not loaded.training
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded(images), network(images))


def test_metadata_keeps_its_types(tmp_path, network):
    weights.save(tmp_path / "w", network.state_dict(), METADATA)
    assert weights.load(tmp_path / "w")[1] == METADATA


def test_same_content_same_bytes(tmp_path, network):
    """However often it is written, in whatever order the entries come and however the tensors lie in memory."""
    state = network.state_dict()
    weights.save(tmp_path / "first", state, METADATA)
    first = (tmp_path / "first").read_bytes()
    for _ in range(8):
        weights.save(tmp_path / "again", state, METADATA)
        assert (tmp_path / "again").read_bytes() == first
    weights.save(tmp_path / "again", dict(reversed(state.items())), dict(reversed(METADATA.items())))
    assert (tmp_path / "again").read_bytes() == first
    weights.save(tmp_path / "again", network.to(memory_format=torch.channels_last).state_dict(), METADATA)
    assert (tmp_path / "again").read_bytes() == first


def test_metadata_that_could_not_rebuild_the_network_is_refused(tmp_path, network):
    with pytest.raises(ValueError, match="base_width"):
        weights.save(tmp_path / "w", network.state_dict(), {"network": "unet"})
    with pytest.raises(ValueError, match="JSON"):
        weights.save(tmp_path / "w", network.state_dict(), METADATA | {"threshold": float("nan")})
    assert not list(tmp_path.iterdir())


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"weights\.safetensors: not found; train first"):
        weights.load(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("content", ["", "empty", "garbage", "truncated"])
def test_file_that_is_no_safetensors_file(tmp_path, network, content):
    path = tmp_path / "weights.safetensors"
    if content == "":
        path.mkdir()
    elif content == "truncated":
        weights.save(path, network.state_dict(), METADATA)
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_bytes(b"" if content == "empty" else b"PK\x03\x04 a zip file, as torch.save writes it" * 9)
    with pytest.raises(InputError, match=r"weights\.safetensors: not a readable safetensors file"):
        weights.load(path)


@pytest.mark.parametrize("header", [None, {"format": "pt"}])
def test_safetensors_file_of_another_program(tmp_path, network, header):
    save_file({"x": torch.zeros(3)}, tmp_path / "other.safetensors", header)
    with pytest.raises(InputError, match=r"other\.safetensors: its metadata has .*, expected 'lesionseg'"):
        weights.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"network": "unet", "base_width": 8}, "do not fit the network 'unet' of base width 8"),
        ({"network": "deeplabv3", "base_width": 4}, "do not fit the network 'deeplabv3'"),
        ({"network": "segformer", "base_width": 4}, "network: found 'segformer'"),
    ],
)
def test_metadata_and_tensors_that_do_not_belong_together(tmp_path, network, metadata, problem):
    weights.save(tmp_path / "w", network.state_dict(), metadata)
    with pytest.raises(InputError, match=problem):
        weights.load(tmp_path / "w")


@pytest.mark.parametrize("base_width", [1025, 10**9, 10**400])
def test_a_small_file_cannot_ask_for_a_large_network(tmp_path, monkeypatch, base_width):
    save_file(
        {"x": torch.zeros(3)}, tmp_path / "w", {weights_file.FORMAT: json.dumps({**METADATA, "base_width": base_width})}
    )
    with pytest.raises(InputError, match=r"w: base_width: found .*, expected at most 1024"):
        weights.load(tmp_path / "w")


def test_nothing_is_allocated_or_read_for_a_network_that_the_tensors_are_not_of(tmp_path):
    """Of base width 1024 it would take 32 GB."""
    save_file({"x": torch.zeros(3)}, tmp_path / "w", {weights_file.FORMAT: json.dumps(METADATA | {"base_width": 1024})})
    with pytest.raises(InputError, match=r"do not fit the network .* \(missing: .* more; unknown: x\)"):
        weights.load(tmp_path / "w")


@pytest.mark.parametrize(
    ("name", "tensor", "problem"),
    [
        ("head.weight", None, "missing: head.weight"),
        ("head.weight", torch.zeros(2, 4, 1, 1), r"different: head.weight is F32 \[2, 4, 1, 1\], expected F32"),
        ("head.weight", torch.zeros(1, 4, 1, 1, dtype=torch.float16), r"different: head.weight is F16"),
        ("head.bias", torch.tensor([float("nan")]), "NaN or infinite values in head.bias"),
        ("\x1b[2Jhead", torch.zeros(1), r"unknown: '\\x1b\[2Jhead'"),
    ],
)
def test_one_wrong_tensor_is_named(tmp_path, network, name, tensor, problem):
    state = network.state_dict() | {name: tensor}
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    weights.save(tmp_path / "w", state, METADATA)
    with pytest.raises(InputError, match=problem):
        weights.load(tmp_path / "w")


@pytest.mark.parametrize(
    "entry",
    [
        "[" * 100_000,
        '{"network": "unet", "base_width": true}',
        "no JSON",
        "[1]",
        json.dumps({"network": "unet"}),
        '{"network": 1, "base_width": "x"}',
    ],
)
def test_damaged_metadata(tmp_path, network, entry):
    save_file(network.state_dict(), tmp_path / "w", {weights_file.FORMAT: entry})
    with pytest.raises(InputError, match="w: its metadata"):
        weights.load(tmp_path / "w")


def test_only_one_member_is_laid_out_before_the_file_is_known_to_hold_them_all(tmp_path, network, monkeypatch):
    """64 networks of the widest kind take minutes."""
    built = []
    build = weights.build_network
    monkeypatch.setattr(weights, "build_network", lambda *named: built.append(named) or build(*named))
    weights.save(tmp_path / "w", network.state_dict(), METADATA | {"members": 64})
    with pytest.raises(InputError, match=r"missing: members\.0\."):
        weights.load(tmp_path / "w")
    assert built == [("unet", 4, 1)]


def test_a_header_longer_than_any_of_ours_is_refused_unread(tmp_path):
    path = tmp_path / "w"
    with path.open("wb") as file:
        file.write((9 << 20).to_bytes(8, "little"))
        file.truncate(10 << 20)
    with pytest.raises(InputError, match="a header of 9437184 bytes, expected at most 8388608"):
        weights.load(path)


@pytest.mark.parametrize("header", ["[1]", '{"__metadata__": 3}', '{"__metadata__": {"lesionseg": 3}}', "[" * 100_000])
def test_a_header_that_safetensors_cannot_read(tmp_path, header):
    (tmp_path / "w").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(InputError, match="w: not a readable safetensors file"):
        weights_file.read_metadata(tmp_path / "w")
