"""A run as a research object: the manifest in the form that archives and other programs read.

RO-Crate 1.1 (https://www.researchobject.org/ro-crate/specification/1.1/), with the run as an action, as the
profile Process Run Crate 0.5 asks for. What it cannot say, such as each job's time, is in the manifest, which
is a part of the crate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

METADATA = "ro-crate-metadata.json"
_SPECIFICATION = "https://w3id.org/ro/crate/1.1"
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_TERMS = "https://w3id.org/ro/terms/workflow-run#"
_RUN, _PROGRAM, _LICENCE = "#run", "#curvelens", "#licence"


def metadata(manifest: Mapping[str, Any], made: datetime) -> dict[str, Any]:
    """Return the contents of ``ro-crate-metadata.json``, to lie beside the manifest.

    Args:
        manifest: What :func:`curvelens.manifest.write` writes.
        made: When the run ended; has a time zone.

    Returns:
        JSON-LD: each file of the manifest with its checksum, the run that made them, with what software, on
        what machine, and the terms of the data sets.
    """
    files = [
        {
            "@id": quote(entry["@id"]),
            "@type": "File",
            "name": entry["@id"],
            "encodingFormat": entry["encodingFormat"],
            "contentSize": str(entry["contentSize"]),
            "sha256": entry["sha256"],
        }
        for entry in manifest["files"]
    ]
    about = {
        "@id": "manifest.json",
        "@type": "File",
        "name": "manifest.json",
        "description": "Configuration, versions, state of the project, time and memory of every job, "
        "checksums of every file and of the content of every table.",
        "encodingFormat": "application/json",
    }
    parts = [about, *files]
    graph = [
        _descriptor(),
        _root(manifest, made, parts),
        {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        _licence(manifest["datasets"]),
        *_action(manifest, made, parts),
        *parts,
    ]
    terms = {"sha256": f"{_TERMS}sha256", "resourceUsage": f"{_TERMS}resourceUsage"}
    return {"@context": [f"{_SPECIFICATION}/context", terms], "@graph": graph}


def _descriptor() -> dict[str, Any]:
    return {
        "@id": METADATA,
        "@type": "CreativeWork",
        "conformsTo": {"@id": _SPECIFICATION},
        "about": {"@id": "./"},
    }


def _root(manifest: Mapping[str, Any], made: datetime, parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    title = manifest["config"]["report"]["title"]
    return {
        "@id": "./",
        "@type": "Dataset",
        "name": title,
        "description": "A run of curvelens: explanations of image classifiers, and how far to trust them; "
        f"experiments {', '.join(manifest['config']['experiments'])}.",
        "datePublished": made.date().isoformat(),
        "conformsTo": {"@id": _PROFILE},
        "license": {"@id": _LICENCE},
        "hasPart": [{"@id": part["@id"]} for part in parts],
        "mentions": {"@id": _RUN},
    }


def _licence(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    terms = "; ".join(f"{name}: {described['licence']}" for name, described in datasets.items())
    return {
        "@id": _LICENCE,
        "@type": "CreativeWork",
        "name": "Terms of the data sets",
        "description": "Who publishes these results says under which terms. Images keep theirs: " + terms,
    }


def _action(
    manifest: Mapping[str, Any], made: datetime, parts: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    jobs, device = manifest["jobs"], manifest["device"]
    used = [
        _used(
            "cpu-time",
            "Time of all processors in all jobs",
            "s",
            sum(job["cpu_seconds"] or 0 for job in jobs),
        ),
        _used(
            "peak-memory",
            "Largest memory of a job",
            "MiB",
            max((job["peak_mib"] or 0 for job in jobs), default=0),
        ),
    ]
    machine = ", ".join(f"{part} {what}" for part, what in manifest["hardware"].items())
    action = {
        "@id": _RUN,
        "@type": "CreateAction",
        "name": "A run of curvelens",
        "description": f"Seed {manifest['seed']}; {len(jobs)} jobs on {device}; reported on {machine}.",
        "endTime": made.isoformat(timespec="seconds"),
        "instrument": {"@id": _PROGRAM},
        "result": [{"@id": part["@id"]} for part in parts],
        "resourceUsage": [{"@id": entity["@id"]} for entity in used],
    }
    return [action, *used, *_software(manifest["versions"], manifest["project"])]


def _used(name: str, description: str, unit: str, value: float) -> dict[str, Any]:
    entity = {"@id": f"#{name}", "@type": "PropertyValue", "name": name, "description": description}
    return entity | {"unitText": unit, "value": value}


def _software(versions: Mapping[str, str], project: Mapping[str, Any]) -> list[dict[str, Any]]:
    state = f", commit {project['commit']}" if project["commit"] else ""
    state += " with changes" if project["changed"] else ""
    packages = [
        {"@id": f"#{name}", "@type": "SoftwareApplication", "name": name, "softwareVersion": version}
        for name, version in versions.items()
        if name != "curvelens"
    ]
    program = {
        "@id": _PROGRAM,
        "@type": "SoftwareApplication",
        "name": "curvelens",
        "softwareVersion": versions["curvelens"] + state,
        "softwareRequirements": [{"@id": package["@id"]} for package in packages],
    }
    return [program, *packages]
