"""benchmarks/gpu.py without a card: every part at a size at which only the arithmetic between the figures counts."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from lesionseg.sources import synthetic  # noqa: E402

from gpu_measurements import kernels, limits, pairs, step  # noqa: E402
from gpu_measurements.clock import WARM_UP  # noqa: E402
from gpu_measurements.report import Missing, Report  # noqa: E402
from gpu_measurements.scale import SMOKE  # noqa: E402
from lesionseg.common.errors import InputError  # noqa: E402
from lesionseg.formats.processed import open_arrays, read_samples  # noqa: E402
from tiny_training import arrays  # noqa: E402

BF16 = torch.bfloat16


def gpu(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    """Run the script; torch.compile passes networks on as they are, since compiling takes minutes here."""
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"TORCH_COMPILE_DISABLE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("gpu")
    done = gpu("--device", "cpu", "--smoke", "--minutes", 5, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "gpu-report/report.json").read_text())
    assert report["failed"] == report["left_out"] == [], done.stdout
    assert (folder / "gpu-report/report.md").read_text() in done.stdout
    return report


def test_every_part_is_measured(smoke):
    assert smoke["smoke"] is True
    assert set(smoke["parts"]) == {
        *("environment", "matrix_rate", "memory_rate", "cost", "limits", "steps", "loading", "loop", "recipe"),
        *("tests", "prediction", "profile", "profile_by_kind"),
    }
    assert all(row["images_per_second"] > 0 for part in ("steps", "loading", "loop") for row in smoke["parts"][part])
    assert {row["compile"] for row in smoke["parts"]["steps"]} == {None, "default", "reduce-overhead"}
    assert {row["views"] for row in smoke["parts"]["prediction"]} == {1, 4, 8}
    tests = smoke["parts"]["tests"][0]
    assert tests["skipped" if not torch.cuda.is_available() else "passed"] > 10


def test_figures_follow_from_each_other(smoke):
    parts = smoke["parts"]
    rate = {row["precision"]: row["tflops"] * 1e12 for row in parts["matrix_rate"]}
    cost = {row["precision"]: row for row in parts["cost"]}
    bare = {}
    for row in parts["steps"]:
        assert row["images_per_second"] * row["milliseconds"] / 1000 == pytest.approx(row["batch"])
        done = row["images_per_second"] * cost[row["precision"]]["operations"]
        assert row["share_of_matrix_rate"] == pytest.approx(done / rate[row["precision"]])
        bare[tuple(row[name] for name in step.Variant.__dataclass_fields__)] = row["images_per_second"]
    for row in parts["loop"]:
        ceiling = bare[tuple(row[name] for name in step.Variant.__dataclass_fields__)]
        assert row["below_bare_step"] == pytest.approx(1 - row["images_per_second"] / ceiling)
    for row in parts["limits"]:
        assert row["images_per_second_by_operations"] == pytest.approx(rate["bf16"] / cost["bf16"]["operations"])
        memory = parts["memory_rate"][0]["gb_per_second"] * 1e9
        counted = {name: row["batch"] * cost["bf16"][name] for name in ("image_bytes", "other_bytes")}
        moved = (counted["image_bytes"] + cost["bf16"]["step_bytes"]) / memory
        assert row["images_per_second_by_bytes"] == pytest.approx(row["batch"] / moved)
        after = (counted["other_bytes"] + cost["bf16"]["step_bytes"]) / memory
        turns = row["batch"] / row["images_per_second_by_operations"] + after
        assert row["images_per_second_in_turn"] == pytest.approx(row["batch"] / turns)


def test_recipe_is_trained_and_scored(smoke):
    rows = smoke["parts"]["recipe"]
    assert [row["seed"] for row in rows] == [0, 1]
    for row in rows:
        assert row["pooled_iou"] == pytest.approx(row["pooled_dice"] / (2 - row["pooled_dice"]))
        assert len(row["history"]) == 2
        # bfloat16 there, float32 here, and an untrained network whose probabilities lie near the threshold
        assert row["pooled_dice"] == pytest.approx(row["history"][-1]["val_dice"], abs=0.05)
    assert rows[0]["history"] != rows[1]["history"]


def test_profile_adds_up(smoke):
    totals = {row["batch"]: row for row in smoke["parts"]["profile"]}
    for batch, rows in groupby(smoke["parts"]["profile_by_kind"], key=lambda row: row["batch"]):
        rows = list(rows)
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        assert sum(row["milliseconds"] for row in rows) == pytest.approx(totals[batch]["busy_milliseconds"])
        # 19 convolutions of the U-Net and 4 transposed ones, forward and backward
        launches = {row["kind"]: row["launches"] for row in rows}
        assert launches["convolution"] >= 2 * (19 + 4)
        assert {"batch norm", "pooling", "optimiser", "concatenation"} <= launches.keys()


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_without_a_card_it_says_so_in_one_line(tmp_path):
    done = gpu(cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"gpu: error: torch {torch.__version__} finds no NVIDIA card, and a card is what this measures\n"
    )
    assert not list(tmp_path.iterdir())


# ---- the parts ----


def test_cost_of_the_published_network():
    """48.2 GMAC forward; backward takes twice that, less the gradient that the first convolution's images need not."""
    cost = limits.cost("unet", 64, 256, BF16)
    assert cost.parameters == 31_037_633
    assert cost.operations == pytest.approx(3 * 2 * 48.2e9, rel=0.002)
    assert 0 < cost.other_bytes < cost.image_bytes
    single = limits.cost("unet", 64, 256, torch.float32)
    assert single.operations == cost.operations
    assert single.image_bytes == pytest.approx(2 * cost.image_bytes, rel=0.05)


def test_documented_costs_are_those_counted():
    page = (BENCHMARKS.parent / "docs/gpu.md").read_text()
    half, single = (limits.cost("unet", 64, 256, dtype) for dtype in (BF16, torch.float32))
    for name in ("image_bytes", "other_bytes", "step_bytes"):
        assert f"| {getattr(half, name) / 1e9:.3f} · 10⁹ | {getattr(single, name) / 1e9:.3f} · 10⁹ |" in page
    h100 = (989e12, 3.35e12)
    small, large = (batch / half.by_bytes(batch, h100[1]) for batch in (8, 128))
    in_turn = [batch / half.in_turn(batch, *h100) for batch in (8, 128)]
    by_operations = 1 / half.by_operations(1, h100[0])
    row = f"| {by_operations:,.0f} | {small:,.0f} / {large:,.0f} | {in_turn[0]:,.0f} / {in_turn[1]:,.0f} |"
    assert row in page


def test_limits_of_a_step():
    cost = limits.Cost(parameters=1, operations=600, image_bytes=50, other_bytes=30, step_bytes=100)
    assert cost.by_operations(4, 1200) == 2
    assert cost.by_bytes(4, 100) == 3
    assert cost.in_turn(4, 1200, 100) == 2 + 2.2


def test_bytes_are_those_of_inputs_and_outputs():
    values = torch.zeros(4, 8, dtype=torch.float32)
    with limits._ByteCounter() as counter:
        values.view(8, 4).t()
        assert counter.bytes == 0
        values + values
        assert counter.bytes == 3 * 128
        values.relu_()
        assert counter.bytes == 5 * 128
        torch.cat([values, values])
        assert counter.bytes == 9 * 128
        assert counter.convolution_bytes == 0
    convolution, images = nn.Conv2d(1, 2, 1, bias=False), torch.zeros(1, 1, 4, 4)
    with torch.no_grad(), limits._ByteCounter() as counter:
        convolution(images)
        assert counter.bytes == counter.convolution_bytes == 4 * (16 + 2 + 32)


def test_a_folder_of_pairs_gives_the_published_number_and_all(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    synthetic.fetch(own, count=6, limit=None, seed=1, workers=1)
    with ExitStack() as stack:
        folders = pairs.processed(None, own, SMOKE, stack)
        samples = {name: read_samples(folder) for name, folder in folders.items()}
        assert [(name, len(found)) for name, found in samples.items()] == [("5 pairs", 5), ("6 pairs", 6)]
        assert {sample.id for sample in samples["5 pairs"]} < {sample.id for sample in samples["6 pairs"]}
        assert all({sample.split for sample in found} == {"train", "val"} for found in samples.values())
        assert open_arrays(folders["6 pairs"])[0].shape == (6, SMOKE.side, SMOKE.side, 3)
        assert pairs.processed(folders["5 pairs"], None, SMOKE, stack) == {str(folders["5 pairs"]): folders["5 pairs"]}
    assert not any(folder.exists() for folder in folders.values())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64", "convolution"),
        ("cutlass_tensorop_bf16_s16816wgrad_optimized_bf16_128x128_32x5_nhwc_align8", "convolution"),
        ("void cudnn::bn_fw_tr_1C11_kernel_NCHW<float, float, int, 512, true, 1, true>", "batch norm"),
        ("void at::native::batch_norm_backward_reduce_channels_last_kernel<4, c10::BFloat16>", "batch norm"),
        ("void cudnn::ops::nchwToNhwcKernel<__nv_bfloat16, __nv_bfloat16, float, false, true>", "layout"),
        (
            "void at::native::(anonymous namespace)::CatArrayBatchedCopy_contig<at::native::OpaqueType<2u>>",
            "concatenation",
        ),
        ("void at::native::(anonymous namespace)::max_pool_backward_nhwc<c10::BFloat16, float>", "pooling"),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdamMathFunctor<float>>", "optimiser"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::launch_clamp_scalar(...)>", "elementwise"),
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, MeanOps<float>>>", "reductions"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("triton_poi_fused__to_copy_convolution_3", "compiled"),
    ],
)
def test_kinds_of_kernels(name, kind):
    assert kernels.kind(name) == kind


def test_variants_change_one_setting_at_a_time():
    variants = step.variants((8, 32), ["bf16", "fp16", "tf32", "fp32"], "bf16", cuda=True)
    assert len(set(variants)) == len(variants)
    assert variants[:2] == [step.Variant(8, "bf16"), step.Variant(32, "bf16")]
    assert {variant.precision for variant in variants} == {"bf16", "fp16", "tf32", "fp32"}
    assert not any(variant.graph for variant in step.variants((8,), ["fp16"], "fp16", cuda=True))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_recorded_step_trains_like_the_launched_one():
    images, masks = arrays(4, 32)
    histories = []
    for graph in (False, True):
        call = step.build(step.Variant(4, "fp32", graph=graph), SMOKE, images, masks, torch.device("cuda"))
        for _ in range(0 if graph else WARM_UP):  # the recording takes its own
            call()
        histories.append([call().mean().item() for _ in range(5)])
    torch.use_deterministic_algorithms(False)
    launched, recorded = histories
    assert recorded[-1] != recorded[0], "the replays change the weights"
    assert recorded == pytest.approx(launched, rel=1e-3)


def test_report_goes_on_after_what_fails_and_ends_in_time(tmp_path):
    def fails():
        raise ValueError("first line\nsecond line")

    def lacks():
        raise Missing("no such package")

    def too_large():
        raise InputError("params.yaml: train.batch_size=4 does not fit into the memory of cuda:0: no")

    report = Report(tmp_path, 60, {"command": "x"})
    assert report.measure("a", {"batch": 1}, fails, 1) is None
    assert report.measure("a", {"batch": 2}, lacks, 1) is None
    assert report.measure("a", {"batch": 3}, too_large, 1) is None
    assert report.measure("a", {"batch": 4}, lambda: {"speed": 2.5, "list": [1]}, 1) == {
        "batch": 4,
        "speed": 2.5,
        "list": [1],
    }
    assert report.measure("b", {}, lambda: pytest.fail("there is no time for it"), 61) is None
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["parts"] == {"a": [{"batch": 4, "speed": 2.5, "list": [1]}]}
    assert [row["reason"] for row in saved["failed"]] == ["ValueError: first line", "out of memory"]
    assert [row["reason"] for row in saved["left_out"]] == ["no such package", "no time left"]
    table = (tmp_path / "report.md").read_text()
    assert "| batch | 4 |" in table
    assert "list" not in table
