"""Every network: shapes, size, alignment of output and input, learning, repeatability."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from lesionseg import networks
from lesionseg.common.errors import InputError
from lesionseg.networks import quarter_unet, unet
from lesionseg.networks.bilinear import upsample
from lesionseg.train import losses

SMALL = 4  # base width


pytestmark = pytest.mark.usefixtures("one_thread")


def logits_of(output):
    return output[0] if isinstance(output, list) else output


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "base_width", "expected"),
    [
        ("unet", 64, 31_037_633),  # the published network
        # torchvision's deeplabv3_resnet50 with one class has 39,633,729: its 512 of the image view's batch norm
        # are not here, the 256 of a bias are
        ("deeplabv3", 64, 39_633_729 - 512 + 256),
        # nnU-Net's own code (dynamic-network-architectures 0.4.4) has 105,915,878 with seven stages: the head
        # of the deepest decoder stage (512 + 1), which its loss gives the weight 0, is not here
        ("nnunet_resenc", 32, 105_915_878 - 513),
        ("quarter_unet", 24, 1_975_636),
    ],
)
def test_published_parameter_count(name, base_width, expected):
    with torch.device("meta"):
        assert parameters(networks.build_network(name, base_width)) == expected


def test_table_of_the_documentation():
    """Parameters and multiply-adds of docs/training-options.md, row by row."""
    text = (Path(__file__).parents[1] / "docs/training-options.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:`(\w+)`[^|]*)?\| (\d+)[^|]*\| ([\d,]+) \| ([\d.]+) \|", text, re.MULTILINE)
    names = []
    for name, base_width, count, gmac in rows:
        names.append(name or names[-1])
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as flops:
            network = networks.build_network(names[-1], int(base_width)).eval()
            network(torch.empty(1, 3, 256, 256))
        assert count == f"{parameters(network):,}", (names[-1], base_width)
        assert gmac == f"{flops.get_total_flops() / 2e9:.1f}", (names[-1], base_width)
    assert names


def test_unknown_network_and_width_are_named_together():
    with pytest.raises(InputError) as caught:
        networks.build_network("vnet", 0)
    assert "'vnet'" in caught.value.problems[0]
    assert "unet, deeplabv3, nnunet_resenc" in caught.value.problems[0]
    assert "found 0" in caught.value.problems[1]


def test_a_width_at_which_torch_corrupts_memory_is_refused():
    with pytest.raises(InputError, match="found 3, expected at least 4 for the network deeplabv3"):
        networks.build_network("deeplabv3", 3)


@pytest.mark.parametrize("name", networks.NAMES)
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 48, 80)])
def test_logits_have_the_size_of_the_image_in_both_modes(name, shape):
    batch, height, width = shape
    network = networks.build_network(name, SMALL)
    images = torch.rand(batch, 3, height, width)
    for output in (logits_of(network.train()(images)), network.eval()(images)):
        assert output.shape == (batch, 1, height, width)
        assert output.dtype == torch.float32
        assert output.isfinite().all()


@pytest.mark.parametrize("name", networks.NAMES)
def test_every_parameter_learns_from_a_batch_of_one_image(name):
    network = networks.build_network(name, SMALL).train()
    loss = losses.build_loss("bce_dice", dice_weight=1.0)(network(torch.rand(1, 3, 64, 64)), torch.ones(1, 1, 64, 64))
    loss.mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", networks.NAMES)
def test_prediction_for_an_image_does_not_depend_on_its_batch(name):
    torch.manual_seed(0)
    network = networks.build_network(name, SMALL).eval()
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", networks.NAMES)
def test_training_after_inference_mode(name):
    """Nothing made under inference mode is kept: autograd would refuse it."""
    network = networks.build_network(name, SMALL)
    with torch.inference_mode():
        network.eval()(torch.rand(1, 3, 32, 32))
    logits_of(network.train()(torch.rand(1, 3, 32, 32))).sum().backward()


@pytest.mark.parametrize("name", networks.NAMES)
def test_channels_last_computes_the_same(name):
    torch.manual_seed(0)
    network = networks.build_network(name, SMALL).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        plain = network(images)
        network.to(memory_format=torch.channels_last)
        torch.testing.assert_close(network(images.to(memory_format=torch.channels_last)), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", networks.NAMES)
def test_bf16_autocast_trains_and_stays_close_to_fp32(name):
    torch.manual_seed(0)
    network = networks.build_network(name, SMALL).train().to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    targets = torch.rand(2, 1, 64, 64) > 0.5
    gradients = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.build_loss("bce_dice", dice_weight=1.0)(network(images), targets).mean().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert gradients[1].dtype == torch.float32
    assert gradients[1].isfinite().all()
    assert functional.cosine_similarity(*gradients, dim=0) > 0.9


@pytest.mark.parametrize("name", networks.NAMES)
def test_overfits_one_batch(name):
    """A shape without symmetry, off the centre: what is mirrored, shifted or cut on the way cannot fit it."""
    torch.manual_seed(0)
    targets = torch.zeros(2, 1, 64, 64)
    targets[0, 0, 8:40, 5:17] = 1
    targets[0, 0, 30:40, 17:50] = 1
    targets[1, 0, 45:60, 30:62] = 1
    images = (0.6 + 0.1 * torch.rand(2, 3, 64, 64)) * (1 - 0.3 * targets)
    network = networks.build_network(name, SMALL).train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    criterion = losses.build_loss("bce_dice", dice_weight=1.0)
    for _ in range(60):
        optimiser.zero_grad()
        output = network(images)
        criterion(output, targets).mean().backward()
        optimiser.step()
    predicted = logits_of(output) > 0
    dice = 2 * (predicted * targets).sum() / (predicted.sum() + targets.sum())
    assert dice > 0.9


def train_three_steps(name, device="cpu"):
    torch.manual_seed(7)
    network = networks.build_network(name, SMALL).to(device).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        images = torch.rand(2, 3, 64, 64, generator=generator).to(device)
        targets = (torch.rand(2, 1, 64, 64, generator=generator) > 0.5).to(device)
        optimiser.zero_grad()
        losses.build_loss("focal_tversky", tversky_beta=0.7, focal_tversky_gamma=4 / 3)(
            network(images), targets
        ).mean().backward()
        optimiser.step()
    return network.state_dict()


@pytest.fixture
def deterministic(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", networks.NAMES)
def test_trains_twice_to_the_same_bits(name, deterministic):
    first, second = train_three_steps(name), train_three_steps(name)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("name", networks.NAMES)
def test_trains_twice_to_the_same_bits_on_cuda(name, deterministic):
    first, second = train_three_steps(name, "cuda"), train_three_steps(name, "cuda")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_unet_sees_far_and_at_the_right_place():
    """The logit of a pixel depends on the pixels around it, and on none beyond the receptive field."""
    torch.manual_seed(0)
    network = networks.build_network("unet", SMALL).eval()
    images = torch.rand(1, 3, 384, 384, requires_grad=True)
    network(images)[0, 0, 192, 192].backward()
    seen = images.grad[0].abs().sum(0) > 0
    rows = seen.any(1).nonzero()
    assert seen[192, 192]
    # Two 3×3 convolutions reach 2 pixels of their level to each side: 2·(1 + 2 + 4 + 8) down, 2·16 at the bottom,
    # 2·(1 + 2 + 4 + 8) up make 92; where the pixel lies in its block of 16 adds up to 15.
    assert 92 <= 192 - rows.min() <= 92 + 15
    assert 92 <= rows.max() - 192 <= 92 + 15


def test_unet_begins_with_logits_that_tell_pixels_apart():
    torch.manual_seed(0)
    for base_width in (4, 16):  # whatever the width
        logits = networks.build_network("unet", base_width).train()(torch.rand(2, 3, 64, 64))
        assert 0.8 < logits.std() < 3


def test_unet_begins_with_the_share_of_lesion_that_photographs_have():
    assert networks.build_network("unet", SMALL).head.bias.sigmoid().item() == pytest.approx(0.2)


def train_unet(scale: float = 1) -> tuple[torch.Tensor, float, float]:
    """First logits, and the losses in training and in evaluation after thirty steps at the published rate, where the
    weights before each batch norm were scaled."""
    torch.manual_seed(0)
    network = networks.build_network("unet", 8).train()
    for module in network.modules():
        if isinstance(module, unet.DoubleConv):
            module[0].weight.data *= scale
            module[3].weight.data *= scale
    images = torch.rand(4, 3, 32, 32)
    masks = (functional.avg_pool2d(images, 9, 1, 4).mean(1, keepdim=True) > 0.5).float()
    optimiser = torch.optim.Adam(network.parameters(), 1e-4)
    first = network(images).detach()
    for _ in range(30):
        loss = functional.binary_cross_entropy_with_logits(network(images), masks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    return first, loss.item(), functional.binary_cross_entropy_with_logits(network(images), masks).item()


def test_unet_begins_with_small_weights_that_learn_sooner_at_the_published_rate():
    (logits, small, _), (default_logits, default, _) = train_unet(), train_unet(1 / unet.CONVOLUTION_SCALE)
    torch.testing.assert_close(logits, default_logits, atol=0.02, rtol=0.02)  # the same function at first
    assert small < 0.8 * default


@pytest.mark.parametrize("base_width", [4, 32])
def test_unet_begins_with_a_quarter_of_the_default_but_not_with_less_than_a_hundredth(base_width):
    torch.manual_seed(0)
    deviations = []
    for module in networks.build_network("unet", base_width).modules():
        if isinstance(module, unet.DoubleConv):
            for convolution in (module[0], module[3]):
                default = 1 / math.sqrt(3 * convolution.weight[0].numel())  # of uniform numbers up to 1 / √inputs
                deviations.append(convolution.weight.std().item())
                assert deviations[-1] == pytest.approx(max(default / 4, 0.01), rel=0.25)
    assert max(deviations) > 2 * min(deviations)  # both cases are among them


def test_unet_is_in_evaluation_soon_as_good_as_in_training():
    _, training, evaluation = train_unet()
    assert evaluation < 1.2 * training


def test_nnunet_supervises_five_resolutions_in_training_and_gives_one_in_evaluation():
    network = networks.build_network("nnunet_resenc", SMALL)
    outputs = network.train()(torch.rand(2, 3, 128, 128))
    assert [tuple(output.shape) for output in outputs] == [(2, 1, 128 // 2**i, 128 // 2**i) for i in range(5)]
    assert isinstance(network.eval()(torch.rand(1, 3, 128, 128)), torch.Tensor)


@pytest.mark.parametrize("sides", [(36, 52), (44, 100)])
def test_quarter_unet_takes_sides_that_are_odd_on_the_way_down(sides):
    network = networks.build_network("quarter_unet", SMALL)
    assert network.train()(torch.rand(2, 3, *sides)).shape == (2, 1, *sides)


def test_quarter_unet_shuffles_like_torch():
    logits = torch.rand(2, 16, 3, 5)
    assert torch.equal(quarter_unet.shuffle(logits), functional.pixel_shuffle(logits, 4))


def test_quarter_unet_begins_near_the_share_of_lesion():
    """So that the first epochs are not spent on finding that most of a photograph is skin."""
    torch.manual_seed(0)
    network = networks.build_network("quarter_unet", 24).train()
    assert 0.1 < torch.sigmoid(network(torch.rand(4, 3, 64, 64))).mean() < 0.4


def test_quarter_unet_costs_a_sixth_of_the_default_unet():
    def gmac(name, base_width):
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as flops:
            networks.build_network(name, base_width).eval()(torch.empty(1, 3, 256, 256))
        return flops.get_total_flops() / 2e9

    assert gmac("quarter_unet", 24) < gmac("unet", 16) / 6


@pytest.mark.parametrize(("inputs", "outputs"), [((7, 5), (56, 40)), ((1, 3), (8, 24)), ((4, 4), (4, 4))])
def test_upsample_is_bilinear_interpolation_with_its_gradient(inputs, outputs):
    ours = torch.randn(2, 3, *inputs, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    weight = torch.randn(2, 3, *outputs)
    result = upsample(ours, outputs)
    expected = functional.interpolate(theirs, outputs, mode="bilinear", align_corners=False)
    torch.testing.assert_close(result, expected)
    (result * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_upsample_by_eight_is_exact_enough_in_bfloat16():
    """Its weights are multiples of 1/16: bf16 holds them exactly, so only the products round."""
    features = torch.randn(1, 1, 32, 32).bfloat16()
    expected = functional.interpolate(features.float(), (256, 256), mode="bilinear")
    torch.testing.assert_close(upsample(features, (256, 256)).float(), expected, rtol=2e-2, atol=2e-2)
