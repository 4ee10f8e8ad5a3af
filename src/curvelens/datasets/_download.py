"""Downloads: checksums, retries, mirrors; written under a temporary name, published when verified."""

from __future__ import annotations

import errno
import http.client
import logging
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from curvelens.datasets import LARGEST
from curvelens.errors import DataError
from curvelens.jobs import Progress
from curvelens.store import sha256 as file_sha256
from curvelens.writing import atomic

logger = logging.getLogger(__name__)
_BLOCK = 1 << 18
_SLOWEST = 1000  # bytes a second; less counts as standing still
_OUR_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}
_WORTH_A_RETRY = {408, 425, 429}  # of the answers that blame the request


def fetch(
    urls: Sequence[str],
    path: str | Path,
    sha256: str,
    *,
    most: int = LARGEST,
    retries: int = 3,
    pause: float = 2.0,
    timeout: float = 30.0,
    remedy: str = "set data_dir to a folder that holds the file",
) -> Path:
    """Download a file from the first mirror that gives it intact; a file that is there already is kept.

    What arrived before a connection broke is kept for the next attempt, which asks for the rest alone. A
    mirror that has something else, or nothing, under the address is not asked again.

    Args:
        urls: The same file at several places (http or https), the preferred one first.
        path: Where it goes; it appears under this name only once it is complete and verified.
        sha256: Its checksum, or the first digits of it.
        most: Bytes that it has at most; a longer answer is broken off.
        retries: Rounds over the mirrors.
        pause: Seconds to wait after the first round without success, doubled after each further one.
        timeout: Seconds without an answer, or with next to none, after which an attempt is given up.
        remedy: What else can be done, for the error.

    Returns:
        ``path``.

    Raises:
        DataError: No mirror gave the file; the line names the last reason of each. Or it cannot be written.
    """
    path = Path(path)
    if path.is_file():
        if file_sha256(path).startswith(sha256):
            return path
        logger.warning("%s is not the published file (its SHA-256 differs): downloading it again", path)
    reasons: dict[str, str] = {}
    given_up: set[str] = set()
    opener = _opener()
    with atomic(path) as temporary:
        wanted = _Wanted(temporary, path.name, sha256, most)
        for attempt in range(retries):
            for url in (url for url in urls if url not in given_up):
                try:
                    _download(opener, url, wanted, timeout)
                    return path
                except (OSError, http.client.HTTPException, _MismatchError, _RefusedError) as error:
                    if isinstance(error, OSError) and error.errno in _OUR_DISK:
                        raise DataError(
                            f"{path}: cannot be written ({error.strerror}); make room there, or {remedy}"
                        ) from error
                    reasons[url] = _reason(error)
                    if _is_final(error):
                        given_up.add(url)
                    logger.warning("attempt %d of %d: %s: %s", attempt + 1, retries, url, reasons[url])
            if given_up.issuperset(urls):
                break
            if attempt + 1 < retries:
                time.sleep(pause * 2**attempt)
        tried = "; ".join(f"{url} ({reason})" for url, reason in reasons.items())
        raise DataError(f"{path.name} could not be downloaded: {tried}; check the network, or {remedy}")


class _MismatchError(Exception):
    """The bytes received are not those of the published file; another attempt may bring them."""


class _RefusedError(Exception):
    """The server offers something else than the published file, and will again."""


def _is_final(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code < 500 and error.code not in _WORTH_A_RETRY
    return isinstance(error, _RefusedError)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, (_MismatchError, _RefusedError)) else f"{type(error).__name__}: {text}"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to the web alone: a server must not make us read our own files."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _require_web(newurl, "redirects to")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener for http and https; the usual one opens files and FTP as well."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _require_web(url: str, what: str) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise _RefusedError(f"{what} {url}, which is no http or https address")


@dataclass(frozen=True)
class _Wanted:
    """The published file, and the temporary name under which its bytes are gathered."""

    temporary: Path
    name: str
    sha256: str
    most: int

    @property
    def have(self) -> int:
        """Bytes gathered so far."""
        return self.temporary.stat().st_size if self.temporary.is_file() else 0


def _download(opener: urllib.request.OpenerDirector, url: str, wanted: _Wanted, timeout: float) -> None:
    """Bring the temporary file to its full length and verify it; what it holds is not asked for again."""
    _require_web(url, "is")
    have = wanted.have
    headers = {"User-Agent": "curvelens", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        wanted.temporary.unlink(missing_ok=True)
        raise _MismatchError("has another length than what an earlier attempt began to fetch") from error
    with response:
        begun = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        resumed = have > 0 and response.status == http.client.PARTIAL_CONTENT and begun
        complete = _receive(response, wanted, have if resumed else 0, timeout)
        encoding = response.headers.get("Content-Encoding", "")
    try:
        _verify(wanted, encoding, final=complete and not resumed)
    except (_MismatchError, _RefusedError):
        wanted.temporary.unlink()
        raise


def _receive(response: http.client.HTTPResponse, wanted: _Wanted, have: int, timeout: float) -> bool:
    """Write what a server sends behind the first ``have`` bytes; return whether it said how much that is."""
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdigit() else None
    _check_size(total or 0, wanted.most)
    with (
        Progress(total, f"download {wanted.name}", "B") as report,
        wanted.temporary.open("ab" if have else "wb") as stream,
    ):
        report.update(have)
        for block in _blocks(response, timeout):
            have += len(block)
            _check_size(have, wanted.most)
            stream.write(block)
            report.update(len(block))
    if total is not None and have < total:
        raise _MismatchError(f"only {have} of {total} bytes arrived")
    return total is not None


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise _RefusedError(f"gives {size:,} bytes or more, the file has {most:,} at most")


def _blocks(response: http.client.HTTPResponse, timeout: float) -> Iterator[bytes]:
    """Yield what arrives; a server that trickles is given up like one that is silent."""
    start, arrived = time.monotonic(), 0
    while block := response.read1(_BLOCK):
        yield block
        arrived += len(block)
        elapsed = time.monotonic() - start
        if elapsed >= timeout:
            if arrived < _SLOWEST * elapsed:
                raise TimeoutError(f"only {arrived} bytes came in {elapsed:.1f} s")
            start, arrived = time.monotonic(), 0


def _verify(wanted: _Wanted, encoding: str, final: bool) -> None:
    """Compare the checksum of what arrived, as it is and unpacked if the server says that it packed it.

    Args:
        wanted: The file.
        encoding: The server's content coding.
        final: Whether another attempt would bring the same bytes.
    """
    file = wanted.temporary
    found = file_sha256(file)
    if found.startswith(wanted.sha256):
        return
    if encoding.strip().lower() in ("gzip", "x-gzip"):
        _unpack(file, wanted.most)
        found = file_sha256(file)
        if found.startswith(wanted.sha256):
            return
    with file.open("rb") as stream:
        begin = stream.read(512).lstrip().lower()
    if begin.startswith((b"<!doctype html", b"<html")):
        raise _MismatchError("gives a web page instead of the file")
    reason = f"SHA-256 is {found}, not {wanted.sha256}"
    raise (_RefusedError if final else _MismatchError)(reason)


def _unpack(file: Path, most: int) -> None:
    """Undo a server's gzip coding in place, block by block, up to ``most`` bytes."""
    decoder, size = zlib.decompressobj(zlib.MAX_WBITS | 16), 0
    with atomic(file) as unpacked, file.open("rb") as packed, unpacked.open("wb") as stream:
        while block := decoder.unconsumed_tail or packed.read(_BLOCK):
            try:
                plain = decoder.decompress(block, _BLOCK)
            except zlib.error as error:
                raise _MismatchError(f"is not packed as the server says ({error})") from error
            size += len(plain)
            _check_size(size, most)
            stream.write(plain)
        stream.write(decoder.flush())
