"""Downloads: checksums, retries, mirrors; written under a temporary name, published when verified."""

from __future__ import annotations

import hashlib
import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from curvelens.errors import DataError
from curvelens.jobs import Progress
from curvelens.store import atomic
from curvelens.store import sha256 as file_sha256

logger = logging.getLogger(__name__)
_BLOCK = 1 << 18


def fetch(
    urls: Sequence[str],
    path: str | Path,
    sha256: str,
    *,
    retries: int = 3,
    pause: float = 2.0,
    timeout: float = 30.0,
    remedy: str = "set data_dir to a folder that holds the file",
) -> Path:
    """Download a file from the first mirror that gives it intact; a file that is there already is kept.

    Args:
        urls: The same file at several places (http or https), the preferred one first.
        path: Where it goes; it appears under this name only once it is complete and verified.
        sha256: Its checksum, or the first digits of it.
        retries: Rounds over the mirrors.
        pause: Seconds to wait after the first round without success, doubled after each further one.
        timeout: Seconds without an answer after which an attempt is given up.
        remedy: What else can be done, for the error.

    Returns:
        ``path``.

    Raises:
        DataError: No mirror gave the file; the line names the last reason of each.
    """
    path = Path(path)
    if path.is_file():
        if file_sha256(path).startswith(sha256):
            return path
        logger.warning("%s is not the published file (its SHA-256 differs): downloading it again", path)
    reasons: dict[str, str] = {}
    for attempt in range(retries):
        for url in urls:
            try:
                _download(url, path, sha256, timeout)
                return path
            except (OSError, http.client.HTTPException, _MismatchError) as error:
                reasons[url] = " ".join(f"{type(error).__name__}: {error}".split()).removeprefix(
                    "_MismatchError: "
                )
                logger.warning("attempt %d of %d: %s: %s", attempt + 1, retries, url, reasons[url])
        if attempt + 1 < retries:
            time.sleep(pause * 2**attempt)
    tried = "; ".join(f"{url} ({reason})" for url, reason in reasons.items())
    raise DataError(f"{path.name} could not be downloaded: {tried}; check the network, or {remedy}")


class _MismatchError(Exception):
    """The bytes received are not those of the published file."""


def _download(url: str, path: Path, expected: str, timeout: float) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "curvelens"})
    digest = hashlib.sha256()
    with atomic(path) as temporary:
        with urllib.request.urlopen(request, timeout=timeout) as response, temporary.open("wb") as stream:
            length = response.headers.get("Content-Length")
            total = int(length) if length is not None and length.isdigit() else None
            with Progress(total, f"download {path.name}", "B") as report:
                while block := response.read(_BLOCK):
                    digest.update(block)
                    stream.write(block)
                    report.update(len(block))
        if total is not None and report.done != total:
            raise _MismatchError(f"only {report.done} of {total} bytes arrived")
        if not digest.hexdigest().startswith(expected):
            raise _MismatchError(f"SHA-256 is {digest.hexdigest()}, not {expected}")
