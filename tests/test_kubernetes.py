"""The profile for Kubernetes, on a cluster of local processes that share nothing with us but a volume."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import own_world
import pytest
import yaml
from pods import Cluster, RefusedError
from workflow_runs import ROOT, output, snakemake

from curvelens.manifest import content_sha256

PROFILE = ROOT / "profiles/kubernetes/config.yaml"
IMAGE = yaml.safe_load(PROFILE.read_text())["container-image"]
# What the profile shows, commented out, for rules that are to have a GPU.
SHOWN = re.search(r"# set-resources:\n((?:#   .*\n)+)", PROFILE.read_text())
GPU_SETTINGS = yaml.safe_load(re.sub(r"^# ", "", SHOWN[1], flags=re.MULTILINE))["train_model"]
TABLE = "results/distances/own/0.parquet"


@dataclass
class Ran:
    """A run through pods: where, what it printed, and the jobs by rule."""

    folder: Path
    printed: str
    cluster: Cluster

    def jobs(self, rule: str) -> list[dict[str, Any]]:
        return [
            job["spec"]["template"]["spec"]["containers"][0]
            for job in self.cluster.jobs.values()
            if f"'{rule}:" in str(job)
        ]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The pictures in a volume of their own, the weights on our disk, one pod lost, a GPU for another."""
    if not shutil.which("rsync"):
        pytest.skip("the storage plugin fs copies with rsync, which is not installed")
    if subprocess.run(["git", "-C", ROOT, "rev-parse"], capture_output=True, check=False).returncode:
        pytest.skip("Snakemake sends the files that git tracks, and this is no repository")
    folder = tmp_path_factory.mktemp("kubernetes")
    checkout, volume, pictures = folder / "checkout", folder / "volume", folder / "pictures"
    volume.mkdir()
    tracked = subprocess.check_output(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"], text=True)
    for name in filter(lambda name: (ROOT / name).is_file(), tracked.splitlines()):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, checkout / name)
    settings = own_world.make(pictures, folder / "own.safetensors")
    (checkout / "own.yaml").write_text(yaml.safe_dump(settings))
    for command in (["init", "-q"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=checkout, check=True)
    claims, hidden = {"curvelens": volume, "pictures": pictures}, [checkout, ROOT / "src"]
    with Cluster(folder, [IMAGE], claims, hidden, gpus=1, lost=["compute_distances"]) as cluster:
        environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
        environment.pop("PYTHONPATH", None)
        command = [
            sys.executable, "-m", "snakemake", TABLE, "--workflow-profile", "profiles/kubernetes",
            "--configfile", "own.yaml", "--seconds-between-status-checks", "1",
            "--default-storage-prefix", str(volume),
            "--kubernetes-persistent-volumes", *(f"{name}:{path}" for name, path in claims.items()),
            "--set-resources", *(f"evaluate_model:{key}={value}" for key, value in GPU_SETTINGS.items()),
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )
        logs = "".join(map(cluster.log, cluster.processes))
        assert done.returncode == 0, output(done) + logs
        yield Ran(folder, output(done), cluster)


@pytest.mark.workflow
@pytest.mark.slow
def test_pods_compute_what_one_machine_computes(ran, tmp_path):
    stored = ran.folder / "volume"
    done = snakemake(tmp_path, TABLE, config=ran.folder / "checkout/own.yaml")
    assert done.returncode == 0, output(done)
    assert content_sha256(stored / TABLE) == content_sha256(tmp_path / TABLE)
    for kind, suffix in (("logs", "log"), ("benchmarks", "tsv")):
        assert (stored / f"results/{kind}/compute_distances/own/0.{suffix}").is_file()
    # Nothing of the run but Snakemake's own notes is left where it was started.
    assert not (ran.folder / "checkout/results/data").exists()


@pytest.mark.workflow
@pytest.mark.slow
def test_the_users_weights_are_read_where_snakemake_runs(ran):
    assert not ran.jobs("import_model")
    assert (ran.folder / "volume/results/models/own/weights.safetensors").is_file()


@pytest.mark.workflow
@pytest.mark.slow
def test_a_lost_pod_is_started_again(ran):
    first, second = ran.jobs("compute_distances")
    assert "--attempt 1" in first["args"][1]
    assert "--attempt 2" in second["args"][1]
    assert "Trying to restart job" in ran.printed


@pytest.mark.workflow
@pytest.mark.slow
def test_what_pods_ask_for(ran):
    (plain,), (with_gpu,) = ran.jobs("prepare_dataset"), ran.jobs("evaluate_model")
    without = ran.jobs("compute_distances")[0]
    assert plain["image"] == IMAGE
    asked = {"memory": "4000M", "ephemeral-storage": "4000M"}
    assert plain["resources"]["requests"] == {"cpu": "950m", **asked}
    assert plain["resources"]["limits"] == {"cpu": "1000m", **asked}
    for kind in ("requests", "limits"):
        assert with_gpu["resources"][kind]["nvidia.com/gpu"] == "1"
        assert without["resources"][kind]["nvidia.com/gpu"] == "0"
    assert not ran.cluster.secrets, "the secrets of a run go with it"


def test_a_device_without_an_equal_limit_is_refused(tmp_path):
    job = {"metadata": {"name": "one"}, "spec": {"template": {"spec": {"containers": [{}]}}}}
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"requests": {"nvidia.com/gpu": "1"}}
    with (
        Cluster(tmp_path, [IMAGE], gpus=1) as cluster,
        pytest.raises(RefusedError, match="Limit must be set"),
    ):
        cluster.submit(job)
