"""What all tests share."""

import pytest
import torch
from local_server import Server

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
