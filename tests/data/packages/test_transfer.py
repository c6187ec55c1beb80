import hashlib
import os
import pathlib
import random

import pytest

from geex_jax.data.packages import transfer
from geex_jax.data.packages.lock import File
from geex_jax.errors import GeexError
from tests.data.packages.registry import Registry

DATA = random.Random(0).randbytes(1_000_000)
PLACE = "debian/pool/main/x/x_1.0+ds.orig.tar.xz"


def described(data=DATA, **changes):
    plain = {"name": "x.tar.xz", "place": PLACE, "size": len(data),
             "sha256": hashlib.sha256(data).hexdigest()}  # fmt: skip
    return File(**(plain | changes))


@pytest.fixture(autouse=True)
def no_clients(monkeypatch):
    """The test's registry is asked by this package itself; a test below lets apt ask it."""
    monkeypatch.setattr(transfer, "_APT_HELPER", "/dev/null/none")
    monkeypatch.setattr(transfer.shutil, "which", lambda name: None)


@pytest.fixture
def registry():
    registry = Registry()
    registry.files[PLACE] = registry.files[PLACE.replace("+", "%2B")] = DATA
    yield registry
    registry.close()


def fetch(registry, folder, file=None, addresses=None):
    told = []
    file = file or described()
    got = transfer.fetch(file, addresses or [registry.address], folder, told.append, pause=0.01)
    return got, sum(told)


def test_a_file_is_fetched_whole_and_once(registry, tmp_path):
    got, told = fetch(registry, tmp_path)
    assert got == described() and told == len(DATA)
    assert (tmp_path / "x.tar.xz").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["x.tar.xz"]
    assert fetch(registry, tmp_path) == (described(), len(DATA))
    assert len(registry.asked) == 1


def test_what_is_unknown_is_measured(registry, tmp_path):
    got, _ = fetch(registry, tmp_path, described(size=0, sha256=""))
    assert got == described()


def test_a_connection_that_ends_early_is_taken_up_where_it_was(registry, tmp_path):
    registry.cut = 2
    _, told = fetch(registry, tmp_path)
    assert (tmp_path / "x.tar.xz").read_bytes() == DATA and told == len(DATA)
    assert [wanted for _, wanted in registry.asked] == [None, "bytes=500000-", "bytes=750000-"]


def test_the_part_of_a_killed_run_is_taken_up(registry, tmp_path):
    (tmp_path / "x.tar.xz.part").write_bytes(DATA[:123_456])
    fetch(registry, tmp_path)
    assert registry.asked[0][1] == "bytes=123456-"
    assert (tmp_path / "x.tar.xz").read_bytes() == DATA


def test_a_server_that_cannot_resume_sends_all_again(registry, tmp_path):
    registry.ranges = False
    (tmp_path / "x.tar.xz.part").write_bytes(b"other bytes")
    _, told = fetch(registry, tmp_path)
    assert (tmp_path / "x.tar.xz").read_bytes() == DATA and told == len(DATA)


def test_a_part_that_is_too_long_is_thrown_away(registry, tmp_path):
    (tmp_path / "x.tar.xz.part").write_bytes(DATA + b"more")
    with pytest.raises(GeexError, match="checksum"):
        fetch(registry, tmp_path)
    fetch(registry, tmp_path)
    assert (tmp_path / "x.tar.xz").read_bytes() == DATA


def test_other_bytes_than_pinned_are_refused_and_leave_nothing(registry, tmp_path):
    with pytest.raises(GeexError, match=r"checksum of http.* is not the pinned one; run again"):
        fetch(registry, tmp_path, described(sha256="0" * 64))
    assert not any(path.is_file() for path in tmp_path.glob("x*"))


def test_more_bytes_than_pinned_are_not_kept(registry, tmp_path):
    with pytest.raises(GeexError, match="checksum"):
        fetch(registry, tmp_path, described(DATA[:1000]))


def test_the_integrity_that_npm_states_is_checked(registry, tmp_path):
    with pytest.raises(GeexError, match="checksum"):
        fetch(registry, tmp_path, described(size=0, sha256="", integrity="sha512-AAAA"))


def test_a_damaged_file_of_unknown_size_in_the_cache_is_fetched_anew(registry, tmp_path):
    (tmp_path / "x.tar.xz").write_bytes(DATA[:-1] + b"!")
    fetch(registry, tmp_path)
    assert (tmp_path / "x.tar.xz").read_bytes() == DATA


def test_the_next_address_is_tried_and_a_missing_file_is_one_line(registry, tmp_path):
    fetch(registry, tmp_path / "a", None, [registry.address + "nothing/", registry.address])
    assert (tmp_path / "a" / "x.tar.xz").read_bytes() == DATA
    with pytest.raises(GeexError, match=r"not there \(any more\); remove the package") as error:
        fetch(registry, tmp_path / "b", described(place="pool/none"))
    assert "\n" not in str(error.value)


def test_no_network_is_one_line_and_keeps_the_part(registry, tmp_path):
    registry.close()
    (tmp_path / "x.tar.xz.part").write_bytes(DATA[:10])
    with pytest.raises(GeexError, match=r"cannot fetch x.tar.xz from 127.*it resumes") as error:
        fetch(registry, tmp_path)
    assert "\n" not in str(error.value)
    assert (tmp_path / "x.tar.xz.part").read_bytes() == DATA[:10]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_one_line(registry, tmp_path):
    (tmp_path / "x.tar.xz.part").symlink_to("/dev/full")
    with pytest.raises(GeexError, match="No space left on device; set GEEX_CACHE"):
        fetch(registry, tmp_path)


APT = "/usr/lib/apt/apt-helper"


@pytest.mark.skipif(not os.access(APT, os.X_OK), reason="no apt here")
def test_apt_fetches_where_it_is_at_hand(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_APT_HELPER", APT)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    got, told = fetch(registry, tmp_path)
    assert got == described() and told == len(DATA)
    assert pathlib.Path(tmp_path, "x.tar.xz").read_bytes() == DATA
    with pytest.raises(GeexError, match="not there"):
        fetch(registry, tmp_path, described(name="y", place="debian/pool/y"))
