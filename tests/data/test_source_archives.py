"""Archives: what is read, and the hostile ones, which are counted and passed."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile

import pytest
import zstandard

from geex_jax.data.sources import open_source
from geex_jax.errors import GeexError
from tests.data.helpers import write
from tests.data.sources_help import CODE, ar_of, paths, read_all, special, tar_of

PACKERS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


def zip_of(members, compression=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize("packing", PACKERS)
def test_tars_of_every_packing(tmp_path, packing):
    data = tar_of({"a/x.py": CODE, "a/y.c": b"int a;\n", "a/words.txt": b"no"})
    path = write(tmp_path / f"in.tar{packing}", PACKERS[packing](data))
    documents, counts = read_all(open_source(path))
    assert [(d.path, d.data) for d in documents] == [
        (f"in.tar{packing}/a/x.py", CODE),
        (f"in.tar{packing}/a/y.c", b"int a;\n"),
    ]
    assert counts == {"files": 3, "unknown_language": 1}


@pytest.mark.parametrize("packing", PACKERS)
def test_a_tar_cut_short_gives_what_comes_before(tmp_path, packing):
    noise = {f"x{i}.py": CODE + b"#" + os.urandom(40_000).hex().encode() for i in range(4)}
    data = PACKERS[packing](tar_of(noise))
    documents, counts = read_all(
        open_source(write(tmp_path / "in.tar", data[: len(data) * 6 // 10]))
    )
    assert counts["truncated_archive"] == 1
    assert [d.data for d in documents] == list(noise.values())[: len(documents)]
    assert packing == ".bz2" or documents  # bz2's blocks are larger than this file


def test_a_tar_without_its_end_and_a_broken_header(tmp_path):
    data = tar_of({"x.py": CODE, "y.py": CODE})
    documents, counts = read_all(open_source(write(tmp_path / "a.tar", data[:2048])))
    assert len(documents) == 2 and counts["truncated_archive"] == 1
    broken = data[:1024] + b"\xff" * 512 + data[1536:]
    documents, counts = read_all(open_source(write(tmp_path / "b.tar", broken)))
    assert len(documents) == 1 and counts["broken_archive"] == 1
    for junk in (b"", b"junk" * 1000, b"\x1f\x8bjunk" * 300):
        counts = read_all(open_source(write(tmp_path / "c.tar", junk)))[1]
        assert counts["broken_archive"] == 1


def test_names_that_lead_out_links_and_devices(tmp_path):
    members = {
        "/etc/a.py": CODE,
        "../../b.py": CODE,
        "hard.py": special("hard.py", tarfile.LNKTYPE, "/etc/a.py"),
        "soft.py": special("soft.py", tarfile.SYMTYPE, "/etc/passwd"),
        "dev.py": special("dev.py", tarfile.CHRTYPE),
        "pipe.py": special("pipe.py", tarfile.FIFOTYPE),
        ".git/c.py": CODE,
    }
    documents, counts = read_all(open_source(write(tmp_path / "in.tar", tar_of(members))))
    assert [d.path for d in documents] == ["in.tar/etc/a.py", "in.tar/b.py"]
    assert counts == {"files": 3, "hard_link": 1, "symlink": 1, "special_file": 2, "excluded": 1}
    assert os.listdir(tmp_path) == ["in.tar"]


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.py")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.size = len(CODE)
        tar.addfile(info, io.BytesIO(CODE))
    assert paths(open_source(write(tmp_path / "in.tar", out.getvalue()))) == [f"in.tar/{name}"]


def test_a_long_name_of_a_gigabyte_is_no_memory(tmp_path):
    info = special("x", tarfile.GNUTYPE_LONGNAME)
    info.size = 1 << 30
    data = info.tobuf(tarfile.GNU_FORMAT) + b"a" * 4096
    counts = read_all(open_source(write(tmp_path / "in.tar", data)))[1]
    assert counts == {"broken_archive": 1}
    info.size = -512  # leads backwards: an endless loop in some versions of tarfile
    data = tar_of({"x.py": CODE})[:1024] + info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)
    documents, counts = read_all(open_source(write(tmp_path / "in.tar", data)))
    assert len(documents) == 1 and counts["broken_archive"] == 1


def test_debs_and_wheels_and_one_level_of_nesting(tmp_path):
    jar = zip_of({"A.java": b"class A {}\n", "deep.zip": zip_of({"x.py": CODE})})
    inner = gzip.compress(tar_of({"n.go": b"package n\n"}))
    data = tar_of({"./usr/x.py": CODE, "./usr/a.jar": jar, "./usr/n.tgz": inner})
    deb = ar_of(
        {"debian-binary": b"2.0\n", "control.tar.gz": b"odd", "data.tar.xz": lzma.compress(data)}
    )
    write(tmp_path / "pool" / "x_1_all.deb", deb)
    write(tmp_path / "pool" / "x.whl", zip_of({"m.py": CODE}))
    documents, counts = read_all(open_source(tmp_path / "pool", kind="archive"))
    assert [d.path for d in documents] == [
        "x.whl/m.py",
        "x_1_all.deb/data.tar/usr/x.py",
        "x_1_all.deb/data.tar/usr/a.jar/A.java",
        "x_1_all.deb/data.tar/usr/n.tgz/n.go",
    ]
    assert counts["nested_archive"] == 1
    assert len(paths(open_source(f"{tmp_path}/pool/*.deb"))) == 3
    cut = write(tmp_path / "cut.deb", deb[:-40])
    assert read_all(open_source(cut))[1]["truncated_archive"] == 1
    assert read_all(open_source(write(tmp_path / "no.deb", b"!<arch>\njunk" * 9)))[1][
        "broken_archive"
    ]


LIMITS = {"slack": 1 << 20, "max_bytes": 1 << 18}


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
def test_a_flat_bomb_of_each_packing_is_passed(tmp_path, packing):
    data = PACKERS[packing](tar_of({"x.py": CODE, "zeros.py": bytes(32 << 20), "y.py": CODE}))
    assert len(data) < 1 << 18
    path = write(tmp_path / "in.tar", data)
    documents, counts = read_all(open_source(path, limits={**LIMITS, "max_ratio": 3}))
    assert counts["bomb"] == 1
    # zstd is fed in slices of 2 KB, and the one here holds it all
    assert [d.data for d in documents] == ([] if packing == ".zst" else [CODE])


def test_zip_bombs_flat_nested_and_overlapping(tmp_path):
    bomb = zip_of({"a.py": CODE, "zeros.py": bytes(32 << 20), "b.py": CODE})
    documents, counts = read_all(open_source(write(tmp_path / "in.zip", bomb), limits=LIMITS))
    assert counts["bomb"] == 1 and len(documents) == 2  # the next member has a place of its own
    level = zip_of({f"{i}.zip": zip_of({f"{i}.py": bytes(200_000)}) for i in range(16)})
    deep = zip_of({f"{i}.zip": level for i in range(16)})
    path = write(tmp_path / "deep.zip", deep)
    documents, counts = read_all(open_source(path, limits=LIMITS))
    assert not documents and counts["nested_archive"] + counts["bomb"] >= 1
    path = write(tmp_path / "level.zip", level)
    documents, counts = read_all(open_source(path, limits={**LIMITS, "max_ratio": 2}))
    assert counts["bomb"] == 1 and 0 < len(documents) < 16
    many = zip_of({f"{i}.py": bytes(200_000) for i in range(64)})
    path = write(tmp_path / "many.zip", many)  # each is small: the sum is the bomb
    documents, counts = read_all(open_source(path, limits={**LIMITS, "max_ratio": 2}))
    assert counts["bomb"] == 1 and 0 < len(documents) < 64


def test_zip_members_that_are_locked_linked_or_broken(tmp_path):
    link = zipfile.ZipInfo("link.py")
    link.external_attr = 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("locked.py", "broken.py", "..\\fine.py"):
            archive.writestr(name, CODE)
        archive.writestr(link, "/etc/passwd")
    data = bytearray(out.getvalue())
    data[
        data.rindex(b"PK\x01\x02", 0, data.index(b"locked.py", data.index(b"PK\x01\x02"))) + 8
    ] |= 1
    data[data.index(CODE, data.index(b"broken.py"))] ^= 1
    documents, counts = read_all(open_source(write(tmp_path / "in.zip", bytes(data))))
    assert [d.path for d in documents] == ["in.zip/fine.py"]
    assert counts == {"files": 2, "encrypted": 1, "broken_member": 1, "symlink": 1}
    cut = write(tmp_path / "cut.zip", bytes(data[:-10]))
    assert read_all(open_source(cut))[1] == {"broken_archive": 1}


def test_a_member_too_large_is_passed(tmp_path):
    path = write(tmp_path / "in.tar", tar_of({"big.py": b"x" * 5000, "a.py": CODE}))
    documents, counts = read_all(open_source(path, limits={"max_bytes": 1000}))
    assert len(documents) == 1 and counts["too_large"] == 1


def test_options_and_kinds_are_checked(tmp_path):
    path = write(tmp_path / "in.tar", tar_of({"a.py": CODE}))
    assert read_all(open_source(path, licence="MIT"))[0][0].licence == "MIT"
    with pytest.raises(GeexError, match="did you mean licence"):
        open_source(path, license="MIT")
    with pytest.raises(GeexError, match="unknown kind"):
        open_source(path, kind="tarball")
    with pytest.raises(GeexError, match="does not exist"):
        open_source(tmp_path / "nothing")
    with pytest.raises(GeexError, match="cannot read input"):
        list(open_source(tmp_path / "no.tar").parts(0))
