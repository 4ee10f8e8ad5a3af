"""A Kubernetes of one machine: the part of its API that Snakemake's executor uses; pods are local processes.

A pod has a folder of its own as working directory and none of the caller's environment. Where this user may
make mount namespaces, folders that are to be hidden are empty to it. What the real API refuses is refused:
quantities of a device without an equal limit, claims that do not exist, names that are used twice.
"""

from __future__ import annotations

import base64
import http.server
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

_OWN_VIEW = ("unshare", "--mount", "--propagation", "private")


def can_hide() -> bool:
    """Whether this user can give a process its own view of the file system."""
    if not shutil.which(_OWN_VIEW[0]):
        return False
    command = [*_OWN_VIEW, "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class RefusedError(Exception):
    """What the API answers with an error: the code and the reason."""

    def __init__(self, code: int, reason: str):
        super().__init__(reason)
        self.code = code


class Cluster:
    """A cluster of one node with pods as processes.

    Args:
        folder: Where pods have their files.
        images: Images that the node has; a pod with another one never starts.
        claims: Folders by the name of the claim that stands for them; both sides see them at their own path.
        hidden: Folders that pods find empty, where this user can hide them.
        gpus: Devices of the node.
        lost: Rules whose first pod is killed.

    Attributes:
        jobs: Every job that was submitted, as its specification, by name.
        secrets: The secrets that exist.
        processes: The pods that were started, by name of their job.
    """

    def __init__(
        self,
        folder: Path,
        images: Sequence[str],
        claims: Mapping[str, Path] | None = None,
        hidden: Sequence[Path] = (),
        gpus: int = 0,
        lost: Sequence[str] = (),
    ):
        self.folder, self.images, self.claims, self.gpus = folder, images, dict(claims or {}), gpus
        self._to_lose = list(lost)
        self.hidden = list(hidden) if can_hide() else []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, Any]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._programs()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for name in self.processes:
            self.kill(name)

    @property
    def kubeconfig(self) -> Path:
        """A configuration file with which clients find this cluster."""
        address = f"http://127.0.0.1:{self._server.server_port}"
        path = self.folder / "kubeconfig"
        named = {
            "clusters": [{"name": "one", "cluster": {"server": address}}],
            "users": [{"name": "one", "user": {}}],
            "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
            "current-context": "one",
        }
        path.write_text(json.dumps(named))  # JSON is YAML
        return path

    def _programs(self) -> None:
        """Put what an image has on its path: Python, and a pip that has what is asked for already."""
        programs = self.folder / "image/bin"
        programs.mkdir(parents=True)
        (programs / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        (programs / "pip").write_text("#!/bin/sh\nexit 0\n")
        for program in programs.iterdir():
            program.chmod(0o755)

    # ------------------------------------------------------------ what clients ask for

    def submit(self, body: dict[str, Any]) -> dict[str, Any]:
        """Start a job's pod."""
        name, pod = body["metadata"]["name"], body["spec"]["template"]["spec"]
        if name in self.jobs:
            raise RefusedError(409, f"job {name} exists")
        (container,) = pod["containers"]
        self._check(container.get("resources", {}))
        for volume in pod.get("volumes", []):
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if claim and claim not in self.claims:
                raise RefusedError(422, f"claim {claim} does not exist")
        self.jobs[name] = body
        if container["image"] in self.images:
            self._start(name, container)
        return body

    def _check(self, resources: dict[str, Any]) -> None:
        """Refuse what the real API refuses: devices are not shared, so their limit is what is asked for."""
        asked, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for device in (key for key in asked if "/" in key):
            if limits.get(device) != asked[device]:
                raise RefusedError(422, f"Limit must be set for non overcommitable resources: {device}")
            if int(asked[device]) > self.gpus:
                raise RefusedError(422, f"0/1 nodes are available: insufficient {device}")
        for quantity in (*asked.values(), *limits.values()):
            if not re.fullmatch(r"\d+(m|M|Mi|G|Gi)?", quantity):
                raise RefusedError(422, f"quantities must match the regular expression, not {quantity!r}")

    def _start(self, name: str, container: dict[str, Any]) -> None:
        workdir, home = self.folder / "pods" / name / "workdir", self.folder / "pods" / name / "home"
        workdir.mkdir(parents=True)
        home.mkdir()
        environment = {"PATH": f"{self.folder / 'image/bin'}:/usr/bin:/bin", "HOME": str(home)}
        for variable in container.get("env") or []:
            reference = variable["valueFrom"]["secretKeyRef"]
            secret = self.secrets[reference["name"]]["data"][reference["key"]]
            environment[variable["name"]] = base64.b64decode(secret).decode()
        command = [*container["command"], *container["args"]]
        if self.hidden:
            mounts = [f"mount -t tmpfs none {shlex.quote(str(path))}" for path in self.hidden]
            inner = " && ".join([*mounts, f"cd {shlex.quote(str(workdir))}", f"exec {shlex.join(command)}"])
            command = [*_OWN_VIEW, "sh", "-c", inner]
        with (workdir.parent / "log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=workdir, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        rule = next((rule for rule in self._to_lose if f"'{rule}:" in container["args"][1]), None)
        if rule:
            self._to_lose.remove(rule)
            self.kill(name)

    def kill(self, name: str) -> None:
        """End a pod as an eviction does."""
        process = self.processes.get(name)
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self, name: str) -> str:
        """What a pod has printed."""
        return (self.folder / "pods" / name / "log").read_text(errors="replace")

    def status(self, name: str) -> dict[str, Any]:
        """The job with its counts of pods that are active, succeeded and failed."""
        if name not in self.jobs:
            raise RefusedError(404, f"no job {name}")
        code = self._exit_code(name)
        states = {"active": code is None, "succeeded": code == 0, "failed": code not in (None, 0)}
        return {**self.jobs[name], "status": {state: int(so) for state, so in states.items()}}

    def _exit_code(self, name: str) -> int | None:
        return self.processes[name].poll() if name in self.processes else None

    def pods(self, selector: str) -> dict[str, Any]:
        """The pods of a job."""
        name = selector.removeprefix("job-name=")
        if name not in self.processes:
            return {"items": []}
        code = self._exit_code(name)
        state = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
        container = {
            "name": "snakemake", "state": state, "ready": code is None, "restartCount": 0,
            "image": self.images[0], "imageID": "",
        }  # fmt: skip
        return {"items": [{"metadata": {"name": name}, "status": {"containerStatuses": [container]}}]}

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        """Answer a request; the result is sent as JSON, text as it is."""
        *_, kind = parts = path.strip("/").split("/")
        match method, parts[-2:]:
            case "POST", [_, "secrets"]:
                self.secrets[body["metadata"]["name"]] = body
                return body
            case "POST", [_, "jobs"]:
                return self.submit(body)
            case "GET", [name, "status"]:
                return self.status(name)
            case "GET", [_, "pods"]:
                return self.pods(query["labelSelector"][0])
            case "GET", [name, "log"]:
                return self.log(name)
            case "DELETE", ["secrets", name]:
                self.secrets.pop(name, None)
                return {}
            case "DELETE", ["pods" | "jobs", name]:
                self.kill(name)
                return {}
        raise RefusedError(404, f"{method} {path}: not a part of the API that is here ({kind})")


def _handler(cluster: Cluster) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_DELETE(self) -> None:
            self._answer()

        def _answer(self) -> None:
            url = urlsplit(self.path)
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                answer = cluster.answer(
                    self.command, url.path, parse_qs(url.query), json.loads(sent) if sent else None
                )
                code = 200
            except RefusedError as refused:
                answer, code = {"kind": "Status", "message": str(refused), "code": refused.code}, refused.code
            text = isinstance(answer, str)
            content = (answer if text else json.dumps(answer)).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if text else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
