"""Which device a job gets: by choice, by what was granted, and never one that another job has."""

import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
import torch
from workflow_runs import ROOT, output, snakemake

from curvelens import devices
from curvelens.config import load
from curvelens.errors import ConfigError

GPUS = ["GPU-a", "GPU-b", "GPU-c"]
MODELS = ["digits_relu", "digits_softplus"]


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """An environment in which nobody says anything about GPUs; nothing that a test sets stays."""
    for name in ("CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "SLURM_JOB_ID", *devices._GRANTED):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    fill = torch.utils.deterministic.fill_uninitialized_memory
    yield monkeypatch
    for flag, value in zip(flags, before, strict=True):
        flag.allow_tf32 = value
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    for file in devices._held.values():
        os.close(file)
    devices._held.clear()


def pretend(monkeypatch, count):
    """Let torch report so many GPUs; returns the list of devices that were made current."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"uuid-{i}"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "simulated GPU")
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


# --- the choice ---------------------------------------------------------------------------------------------


def test_without_a_gpu_auto_is_the_processor_and_cuda_an_error(bare):
    pretend(bare, 0)
    assert devices.device("cpu") == torch.device("cpu")
    assert devices.device("auto") == torch.device("cpu")
    for choice in ("cuda", "cuda:0"):
        with pytest.raises(ConfigError, match="torch sees 0 CUDA devices; choose auto or cpu"):
            devices.device(choice, 1)


@pytest.mark.parametrize("choice", ["gpu", "cpu:1", "cuda:x", "cuda:", "auto\n", "cuda:-1"])
def test_an_unknown_choice_is_refused_here_and_in_the_configuration(bare, choice):
    with pytest.raises(ConfigError, match="is unknown; choose auto, cpu, cuda or cuda:<index>"):
        devices.device(choice)
    with pytest.raises(ConfigError, match=r"config: device = .*: choose auto, cpu, cuda or cuda:<index>;"):
        load({"device": choice, "datasets": {}, "models": {}, "experiments": {}})


def test_a_gpu_is_used_where_one_was_granted(bare):
    current = pretend(bare, 2)
    assert devices.device("auto", 0) == torch.device("cpu")
    assert devices._held == {}
    assert devices.device("auto", 1) == torch.device("cuda:0")
    assert devices.device("cuda", 1) == torch.device("cuda:0")  # held by this process already
    assert devices.device("auto") == torch.device("cuda:0")
    assert devices.device("cuda:1", 1) == torch.device("cuda:1")
    assert current == [torch.device(f"cuda:{i}") for i in (0, 0, 0, 1)]
    with pytest.raises(ConfigError, match=r"granted no GPU; give its rule one, --set-resources RULE:gpu=1"):
        devices.device("cuda", 0)
    with pytest.raises(ConfigError, match="'cuda:2' was asked for but torch sees 2 CUDA devices"):
        devices.device("cuda:2", 1)


def test_a_gpu_that_torch_cannot_drive_is_told(bare, caplog):
    pretend(bare, 0)
    with caplog.at_level(logging.WARNING):
        assert devices.device("auto", 1) == torch.device("cpu")
    assert "a GPU was granted but torch finds none" in caplog.text


@pytest.mark.parametrize(("environment", "left"), [
    ({}, True),
    ({"CUDA_VISIBLE_DEVICES": ""}, False),
    ({"CUDA_VISIBLE_DEVICES": "-1"}, False),
    ({"CUDA_VISIBLE_DEVICES": "1"}, True),
    ({"SLURM_JOB_ID": "7"}, False),
    ({"SLURM_JOB_ID": "7", "SLURM_STEP_GPUS": "2"}, True),
    ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0,1"}, True),
    ({"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0"}, True),
    ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0", "CUDA_VISIBLE_DEVICES": "NoDevFiles"}, False),
])  # fmt: skip
def test_what_the_environment_forbids_is_not_taken(bare, tmp_path, environment, left):
    for name, value in environment.items():
        bare.setenv(name, value)
    pretend(bare, 1)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: simulated (UUID: GPU-a)'\n")
    program.chmod(0o755)
    bare.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    bare.setattr(devices, "_torch_has_cuda", lambda: True)
    assert devices.gpus("auto") == left
    assert devices.device("auto").type == ("cuda" if left else "cpu")


def test_jobs_ask_for_a_gpu_only_where_one_would_be_used(bare, tmp_path):
    assert devices.gpus("cpu") == 0
    assert devices.gpus("cuda") == devices.gpus("cuda:3") == 1
    bare.setattr(devices, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[tmp_path]))
    assert not devices.found()  # a build of torch without CUDA
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libtorch_cuda.so").touch()
    assert devices._torch_has_cuda()
    broken = tmp_path / "nvidia-smi"
    broken.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    broken.chmod(0o755)
    bare.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    bare.setattr(devices.Path, "glob", lambda self, pattern: iter(()))
    assert not devices.found()


# --- one job a device ---------------------------------------------------------------------------------------

WORKER = """
    import os, sys, time
    from pathlib import Path
    from curvelens import devices
    devices._POLL_SECONDS = 0.005
    folder, seconds, names = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    name = names[devices.hold(names, folder / "locks")]
    busy = folder / f"busy-{name}"
    os.close(os.open(busy, os.O_CREAT | os.O_EXCL))  # fails where another process is on this device
    print(name, flush=True)
    time.sleep(seconds)
    busy.unlink()
"""


def worker(tmp_path, seconds, names):
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(tmp_path), str(seconds), *names]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_no_two_processes_are_ever_on_one_device(tmp_path):
    """Twelve processes share three devices; some see them in another order, some only one of them.

    The proof is the file that a process makes exclusively while it is on a device, which has nothing to do
    with the locks: it fails when there is one already.
    """
    seen = [GPUS, GPUS[::-1], GPUS[1:], GPUS[:1]]
    workers = [worker(tmp_path, 0.05, seen[i % 4]) for i in range(12)]
    told = [process.communicate(timeout=60) for process in workers]
    assert [process.returncode for process in workers] == [0] * 12, told
    got = [out.strip() for out, _ in told]
    assert all(name in seen[i % 4] for i, name in enumerate(got))
    assert len(set(got)) > 1
    assert not list(tmp_path.glob("busy-*"))


def test_the_kernel_frees_the_device_of_a_killed_process(tmp_path):
    holders = [worker(tmp_path, 600, GPUS[:2]) for _ in range(2)]
    names = [process.stdout.readline().strip() for process in holders]
    assert sorted(names) == GPUS[:2]
    waiting = worker(tmp_path, 0, GPUS[:2])
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.7)
    holders[0].send_signal(signal.SIGKILL)
    (tmp_path / f"busy-{names[0]}").unlink()
    assert waiting.communicate(timeout=30)[0].strip() == names[0]
    for holder in holders:
        holder.kill()
        holder.communicate()


def test_waiting_is_told_and_names_the_locks(tmp_path, monkeypatch, caplog):
    holder = worker(tmp_path, 600, GPUS[:1])
    holder.stdout.readline()

    def sleep(seconds):
        holder.kill()
        holder.communicate()

    monkeypatch.setattr(devices.time, "sleep", sleep)
    with caplog.at_level(logging.INFO):
        assert devices.hold(GPUS[:1], tmp_path / "locks") == 0
    assert f"waiting for a GPU: other jobs hold {tmp_path}/locks/GPU-a.lock" in caplog.text
    os.close(devices._held.pop(str(tmp_path / "locks/GPU-a.lock")))


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot lock the GPU \(.*\); make the folder writable"):
        devices.hold(GPUS, tmp_path / "file")
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/GPU-a.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot lock the GPU"):
        devices.hold(GPUS, tmp_path / "locks")
    assert not (tmp_path / "elsewhere").exists()


# --- how a device rounds ------------------------------------------------------------------------------------


def test_numerics_are_what_torch_then_says(bare):
    pretend(bare, 1)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = True
    devices.device("cuda")
    recorded = devices.numerics()
    for name, value in recorded.items():
        if isinstance(value, bool):
            module, _, setting = name.removeprefix("torch.backends.").rpartition(".")
            found = torch.backends
            for part in module.split("."):
                found = getattr(found, part)
            assert getattr(found, setting) is value, name
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == recorded["CUBLAS_WORKSPACE_CONFIG"]
    devices.device("cpu")
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.allow_tf32


# --- the rules ----------------------------------------------------------------------------------------------


def test_every_rule_that_is_told_the_device_asks_for_it():
    rules = [
        block
        for path in (ROOT / "rules").glob("*.smk")
        for block in re.split(r"\n(?=\s*rule\b)", path.read_text())
    ]
    told = [block for block in rules if "device=settings.device" in block]
    assert len(told) > 20
    assert all("gpu=gpu," in block for block in told)
    assert not [block for block in rules if "gpu=gpu," in block and block not in told]
    assert not [
        path.name
        for path in (ROOT / "scripts").glob("*.py")
        if "params.device" in path.read_text() and "snakemake.resources.gpu" not in path.read_text()
    ]


@pytest.mark.workflow
@pytest.mark.slow
@pytest.mark.parametrize(("choice", "together"), [("cpu", 2), ("cuda", 1)])
def test_the_limit_on_gpus_binds_only_where_they_are_used(tmp_path, choice, together):
    """Two trainings are ready together. Without a GPU here those on one fail, each of them with one line."""
    if torch.cuda.is_available():
        pytest.skip("counts on a machine without CUDA")
    short = "{training: {epochs: 1}}"
    done = snakemake(
        tmp_path,
        *("--workflow-profile", str(ROOT / "profiles/default")),
        *(f"results/models/{model}/weights.safetensors" for model in MODELS),
        *("--config", f"device={choice}", f"models={{{MODELS[0]}: {short}, {MODELS[1]}: {short}}}"),
    )
    started = re.findall(r"^Execute (\d+) jobs", output(done), re.MULTILINE)
    assert started == (["1", "2"] if together == 2 else ["1", "1", "1"]), output(done)
    assert (done.returncode == 0) == (choice == "cpu")
    told = re.findall("curvelens: error: device: 'cuda' was asked for but torch sees 0", done.stderr)
    assert bool(told) == (choice == "cuda")
