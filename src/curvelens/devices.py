"""Which device a job computes on, alone on it, and how exactly the device rounds.

Rules ask Snakemake for as many GPUs as :func:`gpus` says, none where jobs will run on the processor;
:func:`hold` hands each of several GPUs to one job at a time; :func:`set_numerics` is the only place that
changes how PyTorch computes. Torch is imported only where a device of its own is asked for.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from curvelens.errors import ConfigError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

CHOICE = r"^(auto|cpu|cuda(:\d{1,4})?)$"
"""What ``device`` of the configuration may be."""

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_GRANTED = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE")  # by Slurm to a job, where it gave any
_POLL_SECONDS = 0.5
_REMIND_SECONDS = 60.0
_held: dict[str, int] = {}  # open lock files of this process; the kernel unlocks them when it ends


def gpus(choice: str) -> int:
    """Return how many GPUs a job that runs a network asks Snakemake for, without importing torch.

    Args:
        choice: ``device`` of the configuration.

    Returns:
        1 for ``cuda``; for ``auto`` 1 where :func:`found` sees a GPU; else 0, so that a limit on GPUs does
        not bind jobs that run on processors.
    """
    return int(choice.startswith("cuda") or (choice == "auto" and found()))


def found() -> bool:
    """Return whether this process may use an NVIDIA GPU that the installed PyTorch can drive.

    ``CUDA_VISIBLE_DEVICES`` and what Slurm granted are honoured. Knows of hardware and files, not of drivers
    that are too old for PyTorch: then jobs say so and run on the processor, one at a time.
    """
    if not _allowed(os.environ) or not _torch_has_cuda():
        return False
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return True
    # Device files are made when a GPU is first used, and there are none under Windows' subsystem for Linux.
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        told = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return told.startswith("GPU ")


def _allowed(environment: Mapping[str, str]) -> bool:
    """Return whether a GPU is left: not by an empty list, nor to a job that Slurm gave none."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return visible.strip() not in ("", "-1", "NoDevFiles")
    return "SLURM_JOB_ID" not in environment or any(environment.get(name) for name in _GRANTED)


def _torch_has_cuda() -> bool:
    """Return whether PyTorch was built with CUDA; True where jobs have to bring one of their own."""
    torch = find_spec("torch")
    if torch is None or not torch.submodule_search_locations:
        return True
    libraries = Path(torch.submodule_search_locations[0]) / "lib"
    return any((libraries / name).exists() for name in ("libtorch_cuda.so", "torch_cuda.dll"))


def device(choice: str = "auto", granted: int | None = None) -> torch.device:
    """Return the device to compute on; a GPU is this process's alone until it ends.

    Args:
        choice: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"``, an index among visible devices.
        granted: GPUs that the scheduler granted to the job, see :func:`gpus`; None where nobody counts them.

    Returns:
        A CUDA device where one was granted, made the current one, else the processor.

    Raises:
        ConfigError: Unknown choice, no such CUDA device, or none was granted.
    """
    import torch

    if not re.fullmatch(CHOICE, choice):
        raise ConfigError(f"device: '{choice}' is unknown; choose auto, cpu, cuda or cuda:<index>")
    if choice == "cpu" or (choice == "auto" and not _usable(granted)):
        set_numerics("cpu")
        return torch.device("cpu")
    count = torch.cuda.device_count()
    index = int(choice.partition(":")[2] or 0)
    if index >= count:
        raise ConfigError(
            f"device: '{choice}' was asked for but torch sees {count} CUDA devices; choose auto or cpu"
        )
    if granted == 0:
        raise ConfigError(
            f"device: '{choice}' was asked for but this job was granted no GPU; "
            "give its rule one, --set-resources RULE:gpu=1, or choose auto"
        )
    set_numerics("cuda")
    names = [str(torch.cuda.get_device_properties(number).uuid) for number in range(count)]
    wanted = [index] if ":" in choice else list(range(count))
    chosen = torch.device("cuda", wanted[hold([names[number] for number in wanted])])
    torch.cuda.set_device(chosen)
    logger.info("device: %s, %s, %s", chosen, torch.cuda.get_device_name(chosen), names[chosen.index])
    return chosen


def _usable(granted: int | None) -> bool:
    import torch

    if granted == 0 or not _allowed(os.environ):
        return False
    usable = torch.cuda.is_available()
    if granted and not usable:
        logger.warning(
            "device: a GPU was granted but torch finds none (an old driver?); computing on the CPU"
        )
    return usable


def hold(names: Sequence[str], folder: str | Path | None = None) -> int:
    """Take one of some devices for this process alone, and wait while all of them are taken.

    A device is taken by locking a file of its name (``flock``). The kernel unlocks it when the process ends,
    however it ends. Whoever holds a file's lock is told by ``fuser -v``.

    Args:
        names: Names of the devices that are the same in every process, such as UUIDs; at least one.
        folder: Where the lock files lie; by default ``curvelens-devices`` in the folder for temporary files,
            which has to be the same for all processes that share the devices.

    Returns:
        The place in ``names`` of the device taken; one that this process holds already comes first.

    Raises:
        ConfigError: A lock file cannot be made.
    """
    folder = Path(folder or Path(tempfile.gettempdir()) / "curvelens-devices")
    paths = [folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.lock" for name in names]
    reminded = -_REMIND_SECONDS
    while True:
        for place, path in enumerate(paths):
            if str(path) in _held or _lock(path):
                return place
        if time.monotonic() - reminded >= _REMIND_SECONDS:
            reminded = time.monotonic()
            logger.info("waiting for a GPU: other jobs hold %s", ", ".join(map(str, paths)))
        time.sleep(_POLL_SECONDS)


def _lock(path: Path) -> bool:
    """Lock a file for as long as this process lives; return whether that worked."""
    file = _opened(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    _held[str(path)] = file
    return True


def _opened(path: Path) -> int:
    """Open a lock file, and make it where it is missing, for all users of the machine."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(0o1777)
        # Made apart from opened: Linux may forbid to open another user's file with O_CREAT in such a folder.
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_NOFOLLOW, 0o644))
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot lock the GPU ({error.strerror}); make the folder writable, or set TMPDIR"
        ) from error


def numerics() -> dict[str, bool | str]:
    """Return how jobs make PyTorch compute, by its own names of the settings; for the record of a run.

    TF32, PyTorch's default in convolutions, keeps 10 bits of a factor's mantissa instead of 23: a relative
    error of 1e-3, in which differences of gradients are lost. The other settings make two runs on one kind of
    GPU give the same numbers, as far as PyTorch has deterministic algorithms; a job's log has a warning where
    it has not.
    """
    return {
        "torch.backends.cuda.matmul.allow_tf32": False,
        "torch.backends.cudnn.allow_tf32": False,
        "torch.backends.cudnn.benchmark": False,
        "torch.backends.cudnn.deterministic": True,
        "torch.use_deterministic_algorithms": "on CUDA, with a warning where there is none",
        _WORKSPACE: os.environ.get(_WORKSPACE, ":4096:8"),
    }


def set_numerics(kind: str) -> None:
    """Make PyTorch compute as :func:`numerics` says.

    Args:
        kind: ``"cuda"`` or ``"cpu"``; processors need no deterministic algorithms, and PyTorch's are slower.
    """
    import torch

    settings = numerics()
    os.environ[_WORKSPACE] = str(settings[_WORKSPACE])  # read by cuBLAS when it starts
    torch.backends.cuda.matmul.allow_tf32 = bool(settings["torch.backends.cuda.matmul.allow_tf32"])
    torch.backends.cudnn.allow_tf32 = bool(settings["torch.backends.cudnn.allow_tf32"])
    torch.backends.cudnn.benchmark = bool(settings["torch.backends.cudnn.benchmark"])
    torch.backends.cudnn.deterministic = bool(settings["torch.backends.cudnn.deterministic"])
    torch.use_deterministic_algorithms(kind == "cuda", warn_only=True)
    # Would fill what is about to be written anyway.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
