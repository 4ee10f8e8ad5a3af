"""What all tests share."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest
import torch
from local_server import Server
from workflow_runs import output, snakemake

# Small problems lose more to thread synchronisation than they gain; the machines that test have two cores.
torch.set_num_threads(1)


@pytest.fixture
def server(monkeypatch):
    """A web server on this machine, asked without a proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    yield running
    running.close()


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder in which the test configuration has run to the end; one for all workers, not to be changed."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "finished"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").is_file():
            folder.mkdir(exist_ok=True)
            done = snakemake(folder)
            assert done.returncode == 0, output(done)
            (folder / "done").touch()
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to be damaged; times of modification are kept."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
