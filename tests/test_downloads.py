"""Servers that are slow, lie or send us elsewhere: tried again where that helps, else refused in one line."""

import errno
import gzip
import hashlib
import random
import socket
import time

import pytest

from curvelens.datasets import _download
from curvelens.errors import DataError

CONTENT = random.Random(0).randbytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def answer(content=CONTENT, status=200, promised=None, **headers):
    """An answer with a length of its own, or none (``promised=False``), and further headers."""

    def give(handler):
        handler.send_response(status)
        if promised is not False:
            handler.send_header("Content-Length", str(len(content) if promised is None else promised))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return give


def to(url, status=302):
    return answer(b"", status, Location=url)


def ranges(content=CONTENT, sent=None):
    """A server that knows Range; ``sent`` bytes at most a time, and then it hangs up."""

    def give(handler):
        asked = handler.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").removesuffix("-") or 0)
        if start >= len(content):
            handler.send_error(416)
            return
        rest = content[start:]
        handler.send_response(206 if asked else 200)
        handler.send_header("Content-Length", str(len(rest)))
        if asked:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        handler.wfile.write(rest[:sent])

    return give


def fetch(server, path, *urls, sha256=DIGEST, **options):
    options = {"pause": 0.0, "timeout": 5.0, **options}
    return _download.fetch([server.url(url) for url in urls], path, sha256, **options)


def refused(server, path, *urls, **options):
    """The error's line; nothing may be left behind, under any name."""
    with pytest.raises(DataError) as caught:
        fetch(server, path, *urls, **options)
    assert list(path.parent.iterdir()) == []
    text = str(caught.value)
    assert "\n" not in text
    assert "check the network, or set data_dir to a folder that holds the file" in text
    return text


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("given", "told", "asked"),
    [
        (404, "HTTP Error 404", 1),
        (403, "HTTP Error 403", 1),
        (500, "HTTP Error 500", 3),
        (429, "HTTP Error 429", 3),
        (answer(b"x" * 300_000), f"SHA-256 is {hashlib.sha256(b'x' * 300_000).hexdigest()}, not {DIGEST}", 1),
        (answer(b"x" * 300_000, promised=False), "SHA-256 is", 3),
        (answer(CONTENT[:1000], promised=300_000), "only 1000 of 300000 bytes arrived", 3),
        (answer(b"\n<!DOCTYPE html><p>Log in"), "gives a web page instead of the file", 3),
        (answer(b"no gzip", Content_Encoding="gzip"), "is not packed as the server says", 3),
        (answer(b"", 302), "HTTP Error 302", 1),
    ],
)
def test_what_is_not_the_file_is_named_and_retried_only_where_that_helps(
    server, tmp_path, given, told, asked
):
    server.answers["/a"] = [given]
    assert told in refused(server, tmp_path / "a", "/a")
    assert server.asked == ["/a"] * asked


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:text/plain,x", "javascript:alert(1)"]
)
def test_only_the_web_is_read(server, tmp_path, url):
    """Neither as the address itself nor where a server sends us."""
    server.answers["/a"] = [to(url)]
    told = refused(server, tmp_path / "a", "/a")
    assert url in told
    assert server.asked == ["/a"]
    with pytest.raises(DataError, match="which is no http or https address"):
        _download.fetch([url], tmp_path / "a", DIGEST, pause=0.0)
    assert list(tmp_path.iterdir()) == []


def test_a_loop_of_redirects_ends(server, tmp_path):
    server.answers |= {"/a": [to("/b")], "/b": [to("/a")]}
    assert "infinite loop" in refused(server, tmp_path / "a", "/a")
    assert len(server.asked) < 20


def test_a_redirect_on_the_web_is_followed(server, tmp_path):
    server.answers |= {"/a": [to("/b", 307)], "/b": [CONTENT]}
    assert fetch(server, tmp_path / "a", "/a").read_bytes() == CONTENT


def test_a_silent_and_a_trickling_server_are_given_up(server, tmp_path):
    def silent(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "300000")
        handler.end_headers()
        handler.wfile.write(b"x")
        time.sleep(0.5)

    def trickling(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(20):
            handler.wfile.write(b"x")
            time.sleep(0.02)

    server.answers |= {"/silent": [silent], "/trickling": [trickling]}
    told = refused(server, tmp_path / "a", "/silent", "/trickling", timeout=0.1, retries=1)
    assert "TimeoutError: timed out" in told
    assert "TimeoutError: only " in told


def test_more_than_the_file_can_have_is_broken_off(server, tmp_path):
    """Where the length is stated, before a byte is read; else at the first byte too many."""
    sent = []

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(1000):
            sent.append(1)
            handler.wfile.write(bytes(2**20))

    server.answers |= {"/endless": [endless], "/stated": [answer(b"x", promised=10**12)]}
    for url in ("/endless", "/stated"):
        told = refused(server, tmp_path / "a", url, most=len(CONTENT))
        assert "bytes or more, the file has 300,000 at most" in told
    assert len(sent) < 100
    assert server.asked == ["/endless", "/stated"]


def test_a_bomb_in_the_content_coding_is_broken_off(server, tmp_path):
    server.answers["/a"] = [answer(gzip.compress(bytes(2**24)), Content_Encoding="gzip")]
    assert "the file has 1,000,000 at most" in refused(server, tmp_path / "a", "/a", most=10**6)


def test_a_refused_connection_is_named(server, tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a"
        with pytest.raises(DataError, match="Connection refused"):
            _download.fetch([url], tmp_path / "a", DIGEST, pause=0.0)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- helped


def test_a_disk_that_cannot_be_written_is_no_fault_of_the_network(server, tmp_path, monkeypatch):
    server.answers["/a"] = [CONTENT]

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_download, "_receive", full)
    with pytest.raises(DataError, match=r"/a: cannot be written \(No space left on device\); make room"):
        fetch(server, tmp_path / "a", "/a")
    assert server.asked == ["/a"]


def test_pauses_grow_and_end_with_the_attempts(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(_download.time, "sleep", pauses.append)
    server.answers["/a"] = [503, 503, 503, CONTENT]
    fetch(server, tmp_path / "a", "/a", retries=4, pause=1.5)
    assert pauses == [1.5, 3.0, 6.0]


def test_a_broken_download_goes_on_where_it_was(server, tmp_path):
    server.answers["/a"] = [ranges(sent=100_000)]
    fetch(server, tmp_path / "a", "/a", retries=3)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [found.get("Range") for found in server.headers] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.answers["/a"] = [("cut", CONTENT), CONTENT]
    fetch(server, tmp_path / "a", "/a")
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_beginning_from_elsewhere_does_not_spoil_a_good_mirror(server, tmp_path):
    """What the first mirror broke off is another file: the second resumes it, differs, is asked for all."""
    server.answers |= {"/bad": [ranges(b"y" * 300_000, sent=1000), 404], "/good": [ranges()]}
    fetch(server, tmp_path / "a", "/bad", "/good")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.asked == ["/bad", "/good", "/bad", "/good"]
    server.answers |= {"/long": [ranges(bytes(400_000), sent=350_000), 404]}
    fetch(server, tmp_path / "b", "/long", "/good")
    assert (tmp_path / "b").read_bytes() == CONTENT


def test_a_packed_answer_is_unpacked_unless_it_is_the_file(server, tmp_path):
    """Some servers pack on the way; others say gzip of a file that is a .gz by itself."""
    packed = gzip.compress(CONTENT)
    server.answers["/a"] = [answer(packed, Content_Encoding="gzip")]
    fetch(server, tmp_path / "a", "/a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    fetch(server, tmp_path / "a.gz", "/a", sha256=hashlib.sha256(packed).hexdigest())
    assert (tmp_path / "a.gz").read_bytes() == packed
    assert server.headers[0]["Accept-Encoding"] == "identity"


def test_a_mirror_that_has_something_else_is_not_asked_again(server, tmp_path):
    server.answers |= {"/other": [b"x"], "/gone": [410], "/busy": [503, CONTENT]}
    fetch(server, tmp_path / "a", "/other", "/gone", "/busy")
    assert server.asked == ["/other", "/gone", "/busy", "/busy"]
