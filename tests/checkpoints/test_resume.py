"""A killed conversion goes on where it stopped, and ends as an uninterrupted one does."""

import pathlib
import signal
import subprocess
import sys

import pytest

from geex_jax import files
from geex_jax.checkpoints import (
    arrays,
    convert,
    converting,
    safetensors_file,
    sources,
    store,
    tensors,
)
from geex_jax.checkpoints.families import HUGGING_FACE
from geex_jax.errors import GeexError
from tests.checkpoints import helpers

REPO = pathlib.Path(__file__).parent.parent.parent
# Fused q, k, v: of one outside tensor, query is larger than key and value.
CONFIG = helpers.tiny("chatglm", helpers.seeded(3)).replace(num_heads=4, num_kv_heads=1)
# A child whose conversion stands still at the Nth call of a function, so that a kill lands there.
CHILD = """
import sys, time
from geex_jax.checkpoints import arrays, convert, converting, store
source, dest, where, count = sys.argv[1:]
converting.SMALL = 0
module, name = {
    "write": (arrays, "write"), "read": (converting, "_read"),
    "copy": (converting.shutil, "copyfile"), "swap": (store.os, "rename"),
}[where]
real, calls = getattr(module, name), [0]
def slow(*args, **kwargs):
    calls[0] += where != "swap" or str(args[1]) == dest
    if calls[0] == int(count):
        print("here", flush=True)
        time.sleep(600)
    return real(*args, **kwargs)
setattr(module, name, slow)
convert(source, dest, overwrite=True)
"""


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    """Every array is written layer by layer, as those of a large model are."""
    monkeypatch.setattr(converting, "SMALL", 0)


@pytest.fixture
def source(tmp_path):
    weights = helpers.outside(HUGGING_FACE["chatglm"], CONFIG, "bfloat16")
    return helpers.write_hf(tmp_path / "hf", "chatglm", CONFIG, weights, "sharded")


def killed(source, dest, where: str, count: int = 1) -> None:
    """Starts a conversion in a child and kills it at the Nth call of a function."""
    command = [sys.executable, "-c", CHILD, *map(str, (source, dest, where, count))]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPO)
    assert child.stdout is not None and child.stdout.readline() == b"here\n", child.communicate()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL


def stopped(source, dest, place, name: str, count: int, error=KeyboardInterrupt, **flags) -> None:
    """Converts up to the Nth call of a function, in which the error is raised."""
    real, calls = getattr(place, name), 0

    def stops(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == count:
            raise error
        return real(*args, **kwargs)

    kind = error if isinstance(error, type) else type(error)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(kind):
        patch.setattr(place, name, stops)
        convert(source, dest, **flags)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file of a model but Orbax's time stamps."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in ("_CHECKPOINT_METADATA", "commit_success.txt")
    }


def whole(source, tmp_path) -> dict[str, bytes]:
    """What an uninterrupted conversion to a folder "m" gives."""
    return contents(convert(source, tmp_path / "whole" / "m"))


def reads_of(source, dest, **flags) -> list[str]:
    """Converts, and tells which tensors were read."""
    names: list[str] = []
    real = tensors.Tensor.read

    def read(self):
        names.append(self.name)
        return real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors.Tensor, "read", read)
        convert(source, dest, **flags)
    return names


def journal(dest: pathlib.Path) -> list[str]:
    file = dest.with_name(f".{dest.name}.partial") / "done"
    return file.read_text().split() if file.exists() else []


def names_in(source) -> list[str]:
    return list(sources.open_source(source).bindings)


@pytest.mark.parametrize(("where", "count"), [("read", 4), ("write", 7), ("copy", 1)])
def test_killed_and_restarted(source, tmp_path, where, count):
    expected = whole(source, tmp_path)
    killed(source, tmp_path / "m", where, count)
    assert not (tmp_path / "m").exists()
    done = journal(tmp_path / "m")
    assert done
    reads = reads_of(source, tmp_path / "m")
    assert sorted(done + reads) == sorted(names_in(source))
    assert contents(tmp_path / "m") == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "m", "whole"]


def test_killed_between_two_renames_nothing_is_lost(source, tmp_path):
    expected = whole(source, tmp_path)
    before = contents(convert(source, tmp_path / "m", dtype="float32"))
    killed(source, tmp_path / "m", "swap")
    assert contents(tmp_path / ".m.old") == before
    assert contents(convert(source, tmp_path / "m")) == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "m", "whole"]


# At 200 bytes keys and values would count as small by themselves, their fused tensor does not.
@pytest.mark.parametrize(
    ("place", "name", "count", "small"),
    [
        (arrays, "write_metadata", 1, 0),
        (arrays, "create", 1, 0),
        (arrays, "write", 1, 0),
        (arrays, "write", 2, 0),  # between the parts of one outside tensor
        (arrays, "write", 9, 200),
        (converting, "_read", 6, 0),
        (converting, "_finish", 1, 200),
        (files, "write_json", 1, 0),
        (store, "move_into_place", 1, 0),
    ],
)
def test_interrupted_and_restarted(source, tmp_path, monkeypatch, place, name, count, small):
    monkeypatch.setattr(converting, "SMALL", small)
    expected = whole(source, tmp_path)
    stopped(source, tmp_path / "m", place, name, count)
    assert (tmp_path / ".m.partial").is_dir() and not (tmp_path / "m").exists()
    done = journal(tmp_path / "m")
    reads = reads_of(source, tmp_path / "m")
    assert sorted(done + reads) == sorted(names_in(source))
    assert contents(tmp_path / "m") == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "m", "whole"]


def test_a_torn_journal_line_is_not_believed(source, tmp_path):
    expected = whole(source, tmp_path)
    stopped(source, tmp_path / "m", arrays, "write", 7)
    file = tmp_path / ".m.partial" / "done"
    lines = file.read_text()
    file.write_text(lines[:-4])
    reads = reads_of(source, tmp_path / "m")
    assert lines.split()[-1] in reads and lines.split()[0] not in reads
    assert contents(tmp_path / "m") == expected


@pytest.mark.parametrize("change", ["time", "dtype", "mesh", "small"])
def test_another_job_starts_afresh(source, tmp_path, monkeypatch, change):
    stopped(source, tmp_path / "m", arrays, "write", 7)
    assert journal(tmp_path / "m")
    flags = {"dtype": {"dtype": "float32"}, "mesh": {"mesh": {"fsdp": 2}}}.get(change, {})
    if change == "time":
        file = next(source.glob("*.safetensors"))
        read = {name: tensor.read() for name, tensor in safetensors_file.index(file).items()}
        held = {name: helpers.InMemory((a + 1).astype(a.dtype)) for name, a in read.items()}
        safetensors_file.write(file, held)
    elif change == "small":
        monkeypatch.setattr(converting, "SMALL", 1 << 20)
    assert sorted(reads_of(source, tmp_path / "m", **flags)) == sorted(names_in(source))
    expected = contents(convert(source, tmp_path / "whole" / "m", **flags))
    assert contents(tmp_path / "m") == expected


def test_bad_input_found_late_removes_what_was_written(source, tmp_path):
    stopped(source, tmp_path / "m", arrays, "write", 7)
    error = GeexError("x: bad tensor", "bring another")
    stopped(source, tmp_path / "m", converting, "_read", 2, error)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf"]


def test_two_conversions_into_one_place(source, tmp_path):
    """The second is refused while the first writes, and after it has finished."""
    real, said = converting._write, []

    def meanwhile(*args):
        with pytest.raises(GeexError) as error, pytest.MonkeyPatch.context() as inner:
            inner.setattr(converting, "_write", real)
            convert(source, tmp_path / "m")
        said.append(str(error.value))
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converting, "_write", meanwhile)
        convert(source, tmp_path / "m")
    assert said == [f"another process is converting into {tmp_path / 'm'}; wait for it"]

    def finished_first(source, *args, **kwargs):
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(converting, "open_source", sources.open_source)
            convert(source, tmp_path / "n")
        return sources.open_source(source, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(GeexError, match="n exists; choose"):
        patch.setattr(converting, "open_source", finished_first)
        convert(source, tmp_path / "n")
    assert contents(tmp_path / "n").keys() == contents(tmp_path / "m").keys()
    assert not (tmp_path / ".n.partial").exists()
