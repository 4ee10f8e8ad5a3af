"""A throw-away Slurm of two nodes on this machine: ``python3 tests/slurm/cluster.py up``, later ``down``.

Needs root on Debian or a relative of it, and nothing else: packages are installed where they are missing and
removed again; daemons run without systemd and cgroups, listen on the loopback address, and keep everything
below :data:`STATE`. The one thing outside is ``/etc/slurm``: Snakemake's plugin drops ``SLURM_CONF`` from the
environment of a job step, so commands in jobs find a configuration nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

STATE = Path("/var/lib/curvelens-slurm")
FILES = (Path("/etc/slurm/slurm.conf"), Path("/etc/slurm/gres.conf"))
MARK = "# Written by curvelens' tests/slurm/cluster.py, which removes it again.\n"
PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
NODES = ("curvelens1", "curvelens2")  # names that no other Slurm has: a node is killed by its name
GPU_NODE = NODES[-1]
PORT = 36817  # of slurmctld; the nodes have the next ones, away from Slurm's own 6817 and 6818

# CPUs and memory are what the tests want, not what the machine has (config_overrides): two jobs a node keep
# two cores busy while others start. MinJobAge lets squeue tell of finished jobs. A node that is silent for
# SlurmdTimeout is lost; Slurm does not start its jobs again (JobRequeue), that is left to Snakemake.
SLURM_CONF = """\
ClusterName=curvelens
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={state}/munged.socket
SlurmctldPort={port}
StateSaveLocation={state}/ctld
SlurmdSpoolDir={state}/%n
SlurmctldPidFile={state}/slurmctld.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdPidFile={state}/%n.pid
SlurmdLogFile={state}/%n.log
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=36000
SlurmdTimeout=10
KillWait=2
JobRequeue=0
GresTypes=gpu
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class ClusterError(Exception):
    """Why there is no cluster, in one line."""


class UnavailableError(ClusterError):
    """There cannot be one here: no permission, another Slurm, packages out of reach."""


def obstacle() -> str | None:
    """Return why a cluster cannot be started here, in one line; None if it can."""
    if os.geteuid() != 0:
        return "needs root"
    if not shutil.which("apt-get"):
        return "needs apt-get: Debian or a relative of it"
    if os.environ.get("SLURM_CONF"):
        return "SLURM_CONF names a Slurm of your own; unset it"
    for path in FILES:
        if path.exists() and not _ours(path):
            return f"{path} belongs to another Slurm, which is left alone"
    return None


def up() -> None:
    """Install what is missing, start the daemons and wait until both nodes are idle.

    Raises:
        UnavailableError: Something is in the way.
        ClusterError: A daemon does not start.
    """
    if reason := obstacle():
        raise UnavailableError(reason)
    if STATE.exists():
        down()
    STATE.mkdir(mode=0o755)
    _install()
    _configure()
    key = STATE / "munged.key"
    key.touch(mode=0o400)
    key.write_bytes(os.urandom(128))
    files = [f"--{name}-file={STATE}/munged.{name}" for name in ("key", "log", "pid", "seed")]
    _start("munged", "munged", "--force", f"--socket={STATE}/munged.socket", *files)
    _wait("munged answers", lambda: _succeeds("munge", "--no-input", f"--socket={STATE}/munged.socket"))
    _start("slurmctld", "slurmctld")
    _wait("slurmctld answers", lambda: _succeeds("scontrol", "ping"))
    for node in NODES:
        _start(node, "slurmd", "-N", node)
    _wait("both nodes are up", lambda: all(state(node) == "IDLE" for node in NODES), seconds=60)


def down() -> None:
    """Stop the daemons and every job, and remove all that :func:`up` made; without a cluster do nothing."""
    if not STATE.exists():
        return
    for node in NODES:
        kill_node(node)
    for name in ("slurmctld", "munged"):
        _stop(name)
    for path in FILES:
        if path.exists() and _ours(path):
            path.unlink()
    installed = STATE / "packages"
    if installed.exists():
        _apt("purge", *installed.read_text().split())
    shutil.rmtree(STATE, ignore_errors=True)


def kill_node(node: str) -> None:
    """Let a node fail as if its power were cut: every process of it dies at once."""
    _stop(node, signal.SIGKILL)
    while members := list(_members(node)):
        for pid in members:
            _kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def revive_node(node: str) -> None:
    """Start a killed node again."""
    _start(node, "slurmd", "-N", node)
    _wait(f"{node} is up", lambda: state(node) in ("IDLE", "MIXED", "ALLOCATED"), seconds=60)


def state(node: str) -> str:
    """Return what the controller says of a node, as ``IDLE``, ``MIXED`` or ``DOWN*``."""
    return show("node", node).get("State", "UNKNOWN")


def show(kind: str, name: str) -> dict[str, str]:
    """Return what ``scontrol show`` says of a node or a job."""
    told = subprocess.run(["scontrol", "--oneliner", "show", kind, name], capture_output=True, text=True)
    return dict(field.split("=", 1) for field in told.stdout.split() if "=" in field)


def jobs() -> list[dict[str, str]]:
    """Return all jobs that the controller knows, the latest first: their id, state, node and comment."""
    names = ("id", "state", "node", "comment")
    told = subprocess.run(
        ["squeue", "--states=all", "--noheader", "--sort=-i", "--format=%i|%T|%N|%k"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [dict(zip(names, line.split("|"), strict=True)) for line in told.stdout.splitlines()]


def _install() -> None:
    before = _installed()
    missing = sorted({*PACKAGES} - before)
    if not missing:
        return
    _apt("update")
    try:
        _apt("install", "--no-install-recommends", *missing)
    finally:
        (STATE / "packages").write_text(" ".join(sorted(_installed() - before)))


def _configure() -> None:
    lines = [SLURM_CONF.format(host=socket.gethostname().split(".")[0], state=STATE, port=PORT)]
    for offset, node in enumerate(NODES, start=1):
        gpu = " Gres=gpu:1" if node == GPU_NODE else ""
        lines.append(
            f"NodeName={node} NodeHostname={socket.gethostname().split('.')[0]} NodeAddr=127.0.0.1 "
            f"Port={PORT + offset} CPUs=2 RealMemory=16000{gpu}\n"
        )
    # A device file that every machine has stands for the GPU: what is tested is who gets it.
    gres = f"NodeName={GPU_NODE} Name=gpu File=/dev/null\n"
    for path, text in zip(FILES, ("".join(lines), gres), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_text(MARK + text)


def _ours(path: Path) -> bool:
    return path.read_bytes().startswith(MARK.encode())


def _start(name: str, *command: str) -> None:
    """Start a daemon that goes into the background and writes its process id to ``{name}.pid``."""
    with (STATE / f"{name}.log").open("ab") as log:
        subprocess.run(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=False)


def _stop(name: str, how: signal.Signals = signal.SIGTERM) -> None:
    pid_file = STATE / f"{name}.pid"
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    _kill(pid, how)
    try:
        _wait(f"{name} has ended", lambda: not _alive(pid), seconds=5)
    except ClusterError:
        _kill(pid, signal.SIGKILL)
    pid_file.unlink(missing_ok=True)


def _members(node: str) -> Iterator[int]:
    """The processes of a node's jobs, and the slurmstepd that each of them hangs on."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"SLURMD_NODENAME={node}".encode() not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            parent = int(_stat(int(folder.name))[1])
            if Path(f"/proc/{parent}/comm").read_text().startswith("slurmstepd"):
                yield parent
        except OSError:  # it ended meanwhile
            continue
        yield int(folder.name)


def _kill(pid: int, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)


def _alive(pid: int) -> bool:
    try:
        return _stat(pid)[0] != "Z"  # not everywhere is there an init that buries the dead
    except OSError:
        return False


def _stat(pid: int) -> list[str]:
    """State, parent and so on of a process, after its name, which may hold blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def _wait(what: str, condition: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise ClusterError(f"waited {seconds:.0f} s in vain until {what}; see {STATE}/*.log")
        time.sleep(0.1)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


def _installed() -> set[str]:
    told = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev} ${Package}\n"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.split()[1] for line in told.stdout.splitlines() if line.startswith("ii")}


def _apt(*arguments: str) -> None:
    done = subprocess.run(
        ["apt-get", "-qq", "-y", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["it did not say why"]
        raise UnavailableError(f"apt-get {arguments[0]} failed: {words[-1]}")


def main(arguments: list[str]) -> int:
    """Do what the command line says; return the exit code."""
    commands: dict[str, Callable[..., object]] = {
        "check": lambda: sys.exit(f"no Slurm here: {reason}" if (reason := obstacle()) else 0),
        "up": up,
        "down": down,
        "status": lambda: subprocess.run(["sinfo", "--Node"]),
        "kill-node": kill_node,
        "revive-node": revive_node,
    }
    if not arguments or arguments[0] not in commands:
        print(f"usage: cluster.py {'|'.join(commands)} [NODE]", file=sys.stderr)
        return 2
    try:
        commands[arguments[0]](*arguments[1:])
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
