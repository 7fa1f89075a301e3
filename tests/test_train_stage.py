"""stages/train.py as DVC runs it, in a directory of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lesionseg.common.errors import InputError
from lesionseg.common.files import read_csv
from lesionseg.common.hardware import choose_device, describe_device, use_deterministic_algorithms
from lesionseg.formats.processed import Sample, write_samples
from lesionseg.networks import weights
from lesionseg.train import precision
from lesionseg.train.recipe import Machine
from tiny_training import arrays

REPOSITORY = Path(__file__).parents[1]
TINY = {"base_width": 2, "epochs": 3, "batch_size": 4, "learning_rate": 1e-3}


def workspace(folder: Path, count: int = 12, val: tuple[int, ...] = (1, 4, 7), runtime: dict | None = None, **train):
    """A directory with params.yaml, the repository's with changes, and a tiny processed data set."""
    parameters = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    parameters["train"] |= TINY | train
    parameters["runtime"] |= {"device": "cpu"} | (runtime or {})
    processed = folder / "data/processed"
    processed.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters))
    images, masks = arrays(count)
    np.save(processed / "images.npy", images)
    np.save(processed / "masks.npy", masks)
    rows = [
        Sample(f"T_{row:02d}", "val" if row in val else "train", 32, 32, float(masks[row].mean()), f"T_{row:02d}")
        for row in range(count)
    ]
    write_samples(processed, rows)
    return folder


def start(folder: Path, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "stages/train.py")],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(folder: Path, **environment: str) -> tuple[int, str, str]:
    stage = start(folder, **environment)
    output, errors = stage.communicate(timeout=300)
    return stage.returncode, output, errors


def outputs(folder: Path) -> dict[str, bytes]:
    files = [path for name in ("models", "plots", "metrics") for path in sorted((folder / name).rglob("*"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}


def wait_for(condition, stage: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert stage.poll() is None, stage.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_writes_weights_history_and_metrics_and_resumes_to_the_same(tmp_path, one_thread):
    """One whole run; the same interrupted by Ctrl-C, then killed, then finished."""
    whole = workspace(tmp_path / "whole", epochs=30)
    code, output, errors = finish(whole)
    assert (code, errors) == (0, "")
    assert "images/s" in output
    history = read_csv(whole / "plots/history.csv")
    expected = "epoch train_loss train_dice train_iou val_loss val_dice val_iou learning_rate"
    assert " ".join(history[0]) == expected
    assert [int(row["epoch"]) for row in history] == list(range(1, 31))
    model, metadata = weights.load(whole / "models/trained/weights.safetensors")
    kept = {"network": "unet", "base_width": 2, "members": 1, "keep": "last", "epoch": 30, "image_size": 32}
    kept |= {"average": False, "precision": metadata["precision"], "device": describe_device(torch.device("cpu"))}
    assert metadata["precision"] in ("bfloat16", "float32")
    recipe = yaml.safe_load((whole / "params.yaml").read_text())["train"]
    assert metadata.pop("versions")["torch"] == version("torch")  # the CUDA build calls itself +cu130 besides
    assert metadata == kept | {f"train.{name}": value for name, value in recipe.items()}
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 1, 32, 32)
    last = {name: float(history[-1][name]) for name in ("train_loss", "val_loss", "val_dice")}
    assert json.loads((whole / "metrics/training.json").read_text()) == {"epoch": 30} | last
    assert not list((whole / ".cache/train").glob("*")) if (whole / ".cache/train").exists() else True
    assert not (whole / "dvc.yaml").exists()

    stopped = workspace(tmp_path / "stopped", epochs=30, runtime={"checkpoint_minutes": 0})
    stage = start(stopped)
    wait_for(lambda: list(stopped.glob(".cache/train/*/checkpoint_1.pt")), stage)
    stage.send_signal(signal.SIGINT)
    _, errors = stage.communicate(timeout=100)
    assert stage.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("train: interrupted; `dvc repro`")
    assert "models/trained/weights.safetensors" not in outputs(stopped)
    assert read_csv(stopped / "plots/history.csv"), "the epochs done show while it runs"

    stage = start(stopped)
    resumed = []
    wait_for(lambda: resumed or resumed.append(stage.stdout.readline()), stage)
    stage.kill()
    stage.communicate()

    code, output, errors = finish(stopped)
    assert code == 0, errors
    assert "resuming from .cache/train/" in output
    assert outputs(stopped) == outputs(whole)
    assert not list((stopped / ".cache/train").iterdir())


def test_the_parameters_reach_the_training(tmp_path):
    folder = workspace(
        tmp_path,
        network="unet",
        loss="tversky",
        tversky_beta=0.5,
        keep="best",
        ema_decay=0.9,
        schedule="cosine",
        warmup_epochs=1,
        accumulation=2,
        precision="fp32",
        augment_colour="strong",
    )
    code, output, errors = finish(folder)
    assert (code, errors) == (0, "")
    assert ", float32" in output
    metadata = weights.load(folder / "models/trained/weights.safetensors")[1]
    assert (metadata["keep"], metadata["average"], metadata["precision"]) == ("best", True, "float32")
    history = read_csv(folder / "plots/history.csv")
    assert float(history[0]["learning_rate"]) < 1e-3
    assert 0 < float(history[0]["train_loss"]) < 1  # Tversky alone, where BCE + Dice starts above 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val": ()}, "no sample of the split 'val'"),
        ({"epochs": 0}, "train.epochs: found 0"),
        ({"seed": 2**64}, "train.seed: found 18446744073709551616"),
        ({"members": 0}, "train.members: found 0"),
        ({"learning_rate": "fast"}, "train.learning_rate: found 'fast'"),
        ({"network": "unett"}, "train.network: found 'unett'"),
        ({"learning_rat": 1}, "did you mean train.learning_rate?"),
        ({"warmup_epochs": 3}, "warmup_epochs"),
        ({"precision": "tf32"}, "train.precision: found 'tf32'"),
        ({"precision": "tf32", "compile": True}, "train.compile: found true with train.precision=tf32"),
        ({"runtime": {"device": "cuda:99"}}, "runtime.device: found 'cuda:99'"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, change, message):
    """In this process: what the stage's `main` raises, which run_stage prints."""
    monkeypatch.chdir(workspace(tmp_path, **change))
    with pytest.raises(InputError) as error:
        _main()()
    assert len(error.value.problems) == 1
    assert message in error.value.problems[0]
    assert not (tmp_path / "models").exists()


def test_a_second_training_in_the_folder_is_refused_and_disturbs_nothing(tmp_path, monkeypatch):
    """As after a kill of dvc alone; in a process of its own, which a kill frees of the lock."""
    holding = (
        "from pathlib import Path\nfrom lesionseg.train.single import only_training\n"
        "with only_training(Path('.cache/train.lock')):\n    print('holds', flush=True)\n    input()\n"
    )
    monkeypatch.chdir(workspace(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "src"))
    command = [sys.executable, "-c", holding]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout.readline() == "holds\n"
            with pytest.raises(InputError) as error:
                _main()()
            assert error.value.problems == [
                f".cache/train.lock: another training runs in this folder as process {first.pid}; `kill {first.pid}` "
                "ends it and its checkpoint stays, then run again"
            ]
            assert not (tmp_path / "models").exists()
        finally:
            first.kill()
    _main()()
    assert (tmp_path / "models/trained/weights.safetensors").exists()


def test_processes_that_torchrun_started_must_be_as_many_as_the_parameter_says(tmp_path, monkeypatch):
    monkeypatch.chdir(workspace(tmp_path))
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"train\.processes: found 1, but torchrun started 4"):
        _main()()


def test_the_key_depends_on_parameters_data_device_format_and_code(tmp_path, monkeypatch):
    import train as stage

    monkeypatch.chdir(workspace(tmp_path))
    parameters = stage.load("train", stage.Parameters)
    half, single = (Machine(torch.device("cpu"), dtype) for dtype in (torch.bfloat16, torch.float32))

    def key(parameters, machine):
        return stage.key(parameters, stage.computed_with(parameters, machine))

    keys = [key(parameters, half), key(parameters.model_copy(update={"seed": 9}), half), key(parameters, single)]
    assert key(parameters, half) == keys[0]
    samples = tmp_path / "data/processed/samples.csv"
    samples.write_text(samples.read_text().replace("T_03,train", "T_03,val"))
    keys.append(key(parameters, half))
    monkeypatch.setattr(stage, "describe_device", lambda hardware: "another machine")
    keys.append(key(parameters, half))
    monkeypatch.setattr(stage.checkpoint, "source_files", list)
    keys.append(key(parameters, half))
    assert len(set(keys)) == 6


def test_members_are_trainings_of_their_own_and_resume_as_one(tmp_path, monkeypatch):
    """Member n is what seed + n - 1 gives; a run killed in the second member goes on there, to the same bytes."""
    import train as stage

    def trained(name: str, **changes) -> Path:
        monkeypatch.chdir(workspace(tmp_path / name, epochs=2, **changes))
        stage.main()
        return tmp_path / name

    both, alone = trained("both", seed=3, members=2), trained("alone", seed=4)
    ensemble, metadata = weights.load(both / "models/trained/weights.safetensors")
    single, _ = weights.load(alone / "models/trained/weights.safetensors")
    assert metadata["members"] == 2
    assert metadata["epoch"] == "2, 2"
    second = ensemble.members[1].state_dict()
    assert all(torch.equal(value, second[name]) for name, value in single.state_dict().items())
    rows, mean = read_csv(both / "models/trained/members.csv"), read_csv(both / "plots/history.csv")
    assert [(row["member"], row["epoch"]) for row in rows] == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    assert [row.pop("member") for row in rows[2:]] == ["2", "2"]
    assert rows[2:] == read_csv(alone / "plots/history.csv")
    losses = [float(row["train_loss"]) for row in rows]
    assert [float(row["train_loss"]) for row in mean] == [(losses[0] + losses[2]) / 2, (losses[1] + losses[3]) / 2]

    monkeypatch.chdir(workspace(tmp_path / "killed", epochs=2, seed=3, members=2, runtime={"checkpoint_minutes": 0}))
    fit, calls = stage.loop.fit, []

    def dies_in_the_second(model, loss, data, recipe, machine, record):
        calls.append(recipe.seed)

        def on_epoch(row):
            record.on_epoch(row)
            if len(calls) == 2:
                raise KeyboardInterrupt

        return fit(model, loss, data, recipe, machine, replace(record, on_epoch=on_epoch))

    monkeypatch.setattr(stage.loop, "fit", dies_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        stage.main()
    assert calls == [3, 4]
    monkeypatch.setattr(stage.loop, "fit", fit)
    stage.main()
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "both")
    assert not list((tmp_path / "killed/.cache/train").iterdir())


@pytest.mark.slow
def test_two_processes_through_the_stage_and_through_torchrun(tmp_path):
    """The same bytes: both are two processes over gloo."""
    one = workspace(tmp_path / "one")
    assert finish(one)[0] == 0
    launched, torchrun = (workspace(tmp_path / name, processes=2) for name in ("launched", "torchrun"))
    code, _, errors = finish(launched)
    assert code == 0, errors
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*command, str(REPOSITORY / "stages/train.py")],
        cwd=torchrun,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    assert outputs(torchrun) == outputs(launched)
    rows = [read_csv(folder / "plots/history.csv") for folder in (one, launched)]
    for single, shared in zip(*rows, strict=True):
        assert float(shared["val_dice"]) == pytest.approx(float(single["val_dice"]), abs=0.02)


def _main():
    import train

    return train.main


@pytest.fixture(autouse=True)
def stages_are_importable(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "stages")


# ---- device and number format ----


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), torch.bfloat16), ((8, 0), torch.bfloat16), ((7, 5), torch.float16), ((6, 1), torch.float32)],
)
def test_auto_takes_the_fastest_format_of_a_card(monkeypatch, capability, expected):
    """H100, A100, T4, P40."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert precision.choose_dtype("auto", torch.device("cuda")) == expected


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx2": True}, torch.float32),
    ],
)
def test_auto_takes_bf16_only_from_cpus_that_compute_in_it(monkeypatch, has, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert precision.choose_dtype("auto", torch.device("cpu")) == expected


def test_a_format_asked_for_is_the_one_used():
    cpu = torch.device("cpu")
    for name, dtype in {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}.items():
        assert precision.choose_dtype(name, cpu) == dtype
        with precision.autocast(cpu, dtype):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_a_rounding_set_elsewhere_in_the_process_gives_way():
    torch.backends.cudnn.conv.fp32_precision = "tf32"  # from here on it does not follow the setting for all
    precision.choose_dtype("fp32", torch.device("cpu"))
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"


def test_tf32_rounds_products_where_the_card_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    try:
        assert precision.choose_dtype("tf32", torch.device("cuda")) == torch.float32
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    finally:
        precision.choose_dtype("fp32", torch.device("cuda"))
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    with pytest.raises(InputError, match="tf32"):
        precision.choose_dtype("tf32", torch.device("cuda"))


def test_auto_device_is_cuda_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(InputError, match=r"runtime\.device: found 'cuda'"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert choose_device("auto") == torch.device("cuda", 0)
    assert choose_device("auto", local_rank=1) == torch.device("cuda", 1)
    with pytest.raises(InputError, match="there are 2 GPUs"):
        choose_device("cuda:2")
    with pytest.raises(InputError, match=r"train\.processes: each process .* there are 2"):
        choose_device("auto", local_rank=2)


def test_deterministic_algorithms_are_a_choice():
    try:
        use_deterministic_algorithms(True)
        assert torch.are_deterministic_algorithms_enabled()
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        use_deterministic_algorithms(False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (False, True)
