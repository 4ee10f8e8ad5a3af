"""Archives that lie: what they say of names, sizes and numbers is checked before it costs anything."""

import bz2
import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import pytest

from curvelens.datasets import _archives, _idx, _pictures
from curvelens.datasets._archives import unpacked
from curvelens.errors import DataError


def tarred(path, members, mode="w"):
    """Write a tar archive of (name, bytes) or ready-made headers."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return path


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def refused(path, told, limit=1e9):
    """One line that names the archive, and nothing unpacked."""
    with pytest.raises(DataError, match=told) as caught, unpacked(path, limit):
        pass
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text


def encrypted(path):
    """A zip whose member is marked as encrypted, in both of its headers."""
    zipped(path, [("a.png", b"x")])
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    return path


def test_an_encrypted_zip_is_refused(tmp_path):
    refused(
        encrypted(tmp_path / "a.zip"), r"encrypted, password required.*; fetch it again, without a password"
    )


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.SYMTYPE])
def test_devices_and_links_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("dev/null")
    info.type, info.linkname, info.devmajor, info.devminor = kind, "/etc/passwd", 1, 3
    refused(tarred(tmp_path / "a.tar", [info]), "'dev/null' is a link or a device")


def test_a_link_cannot_be_written_through(tmp_path):
    """A link out of the archive, and then a file behind it."""
    link = tarfile.TarInfo("out")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    refused(tarred(tmp_path / "a.tar", [link, ("out/evil.png", b"x")]), "'out' is a link or a device")
    assert not (tmp_path / "evil.png").exists()


def test_a_bomb_by_size_is_stopped_while_it_is_read(tmp_path):
    """16 MiB in 16 KiB; what the header of a zip says of the size is not believed."""
    content = bytes(2**24)
    path = zipped(tmp_path / "a.zip", [("a.png", content)])
    assert path.stat().st_size < 2**15
    refused(path, r"more than is allowed \(at 'a\.png'\)", limit=2**20)
    refused(tarred(tmp_path / "a.tar.gz", [("a.png", content)], "w:gz"), "more than is allowed", limit=2**20)
    lying = bytearray(path.read_bytes())
    for place in (lying.index(b"PK\x01\x02") + 24, 22):  # the uncompressed size: directory, then member
        lying[place : place + 4] = struct.pack("<I", 10)
    path.write_bytes(lying)
    refused(path, "cannot be unpacked .*Bad CRC-32", limit=2**20)


def test_what_is_thrown_away_counts_as_well(tmp_path):
    path = tarred(tmp_path / "a.tar.gz", [("__MACOSX/._a.png", bytes(2**22)), ("a.png", b"x")], "w:gz")
    refused(path, "more than is allowed", limit=2**20)
    with unpacked(path, 2**23) as folder:
        assert [entry.name for entry in folder.iterdir()] == ["a.png"]


def test_a_bomb_by_number_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(_archives, "MOST_MEMBERS", 100)
    many = [(f"{index}.png", b"") for index in range(101)]
    with unpacked(zipped(tmp_path / "fits.zip", many[:100]), 1e9) as folder:
        assert len(list(folder.iterdir())) == 100
    for path in (zipped(tmp_path / "a.zip", many), tarred(tmp_path / "a.tar", many)):
        refused(path, "has more than 100 members; use another archive, or unpack it yourself")


def test_a_name_of_gigabytes_is_not_read_into_memory(tmp_path):
    """An extended header of 64 MiB of zeros, which is 64 KiB when packed."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**26
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE):
        info.type = kind
        path = tmp_path / f"{kind.decode()}.tar.gz"
        path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**26)))
        tracemalloc.start()
        refused(path, r"cannot be unpacked \(ReadError: a name of 67,108,864 bytes\)")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**24


def test_archives_inside_stay_packed(tmp_path):
    inner = zipped(tmp_path / "inner.zip", [("a.png", bytes(2**20))]).read_bytes()
    with unpacked(zipped(tmp_path / "a.zip", [("inner.zip", inner)]), 2**14) as folder:
        assert [entry.name for entry in folder.iterdir()] == ["inner.zip"]


@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("b/a", "b//a"), ("b/a", "b\\a")])
def test_a_member_may_come_once(tmp_path, names):
    path = tarred(tmp_path / "a.tar", [(name, b"x") for name in names])
    refused(path, "twice; keep one of the two")


def test_a_file_cannot_be_a_folder(tmp_path):
    refused(tarred(tmp_path / "a.tar", [("a", b"x"), ("a/b.png", b"x")]), "cannot be unpacked")
    refused(zipped(tmp_path / "a.zip", [("a", b"x"), ("a/", b"")]), "cannot be unpacked")


def test_names_beyond_what_a_disk_takes_are_refused(tmp_path):
    refused(tarred(tmp_path / "a.tar", [("x" * 300, b"x")]), "cannot be unpacked .*File name too long")
    refused(tarred(tmp_path / "b.tar", [("a/" * 5000 + "x", b"x")]), "cannot be unpacked")


def test_names_in_other_encodings_stay_apart(tmp_path):
    """Latin-1 in a tar, code page 437 in a zip: the bytes are kept, whatever they meant."""
    with tarfile.open(tmp_path / "a.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("größer.png"))
    with unpacked(tmp_path / "a.tar", 1e9) as folder:
        assert os.fsencode(next(folder.iterdir()).name) == "größer.png".encode("latin-1")
    path = zipped(tmp_path / "a.zip", [("gr__er.png", b"x")])
    path.write_bytes(path.read_bytes().replace(b"gr__er", "größer".encode("cp437")))
    with unpacked(path, 1e9) as folder:
        assert next(folder.iterdir()).name == "größer.png"


def test_damage_behind_the_first_member_is_no_end(tmp_path):
    """tarfile alone takes a damaged header for the end, and the pictures before it for all."""
    path = tarred(tmp_path / "a.tar", [("a.png", b"x" * 512), ("b.png", b"y" * 512)])
    content = bytearray(path.read_bytes())
    content[1024:1034] = b"\xff" * 10
    path.write_bytes(content)
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["a.png"]
    refused(path, "ReadError: damaged header")
    path.write_bytes(content[:1200])
    refused(path, "ReadError: damaged header")


@pytest.mark.parametrize("packed", [gzip.compress, bz2.compress, zlib.compress, bytes])
def test_what_is_no_archive_is_refused(tmp_path, packed):
    (tmp_path / "a").write_bytes(packed(b"no archive at all, but some text"))
    refused(tmp_path / "a", "cannot be unpacked")


def test_a_full_disk_is_told_apart_from_damage(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_archives, "_copied", full)
    refused(zipped(tmp_path / "a.zip", [("a.png", b"x")]), "no room to unpack it in .*set TMPDIR")


# ---------------------------------------------------------------- the other readers of packed files


def test_an_archive_of_small_pictures_is_limited_too(tmp_path, monkeypatch):
    many = [(f"train/cat/{index}.png", bytes(1000)) for index in range(100)]
    monkeypatch.setattr(_pictures, "LARGEST_SUM", 50_000)
    with pytest.raises(DataError, match="unpacks to more than 50,000 bytes"):
        _pictures.read_pictures(tarred(tmp_path / "a.tar.gz", many, "w:gz"))


def test_an_idx_file_is_not_unpacked_beyond_what_one_has(tmp_path, monkeypatch):
    monkeypatch.setattr(_idx, "_LARGEST", 10_000)
    (tmp_path / "a-idx.gz").write_bytes(gzip.compress(bytes(2**24)))
    file = _idx.IdxFile("a-idx", "", "", 1)
    with pytest.raises(DataError, match=r"a-idx\.gz: holds more than 10,000 bytes"):
        _idx.load_idx_dataset("x", {"train_images": file}, (), (), "", "", tmp_path, tmp_path)
