"""Killed and started again: the same bytes, whatever the moment."""

import dataclasses
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from geex_jax.data import prepare
from geex_jax.data.journal import WORK, Journal
from geex_jax.errors import GeexError
from tests.data.conftest import CONFIG
from tests.data.helpers import ByteTokenizer, digests, make_tree, write

REPO = pathlib.Path(__file__).parent.parent.parent


def start(tree, output, workers):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.data.helpers", str(tree), str(output), str(workers)],
        cwd=REPO,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


PHASES = ("read", "scatter", "gather", "place", "pack")


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_in_every_phase_it_resumes_to_the_same_bytes(prepared, tree, tmp_path, workers):
    output = tmp_path / "data"
    rng = random.Random(workers)
    killed = 0
    for phase in PHASES:
        journal, least = f"{phase}.jsonl", 1 if phase == "gather" else rng.randint(1, 6)
        process = start(tree, output, workers)
        while process.poll() is None and lines(output / WORK / journal) < least:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    process = start(tree, output, workers)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert killed >= 3 and digests(output) == digests(prepared[0])


def children(pid: int) -> set[int]:
    try:
        return set(map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return set()


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs /proc")
def test_a_killed_run_leaves_no_worker_behind(tree, tmp_path):
    process = start(tree, tmp_path / "data", 2)
    found: set[int] = set()
    deadline = time.monotonic() + 60
    while len(found) < 3 and process.poll() is None:  # two workers and a resource tracker
        found |= children(process.pid)
    assert len(found) == 3
    process.send_signal(signal.SIGKILL)
    process.communicate()
    while any(os.path.exists(f"/proc/{pid}") and alive(pid) for pid in found):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Stop(BaseException):
    """Stands for a kill at a chosen place."""


def stop_in(phase, stop_after, patch):
    """Makes the run end where it would note one more task of a phase."""
    done = []
    real = Journal.add

    def add(journal, name, number, result):
        if name == phase:
            if len(done) == stop_after:
                raise Stop
            done.append(number)
        real(journal, name, number, result)

    patch.setattr(Journal, "add", add)


@pytest.mark.parametrize(
    ("phase", "stop_after"),
    [
        ("read", 0),
        ("read", 5),
        ("scatter", 3),
        ("gather", 0),
        ("place", 2),
        ("pack", 0),
        ("pack", 7),
    ],
)
def test_stopped_after_any_task_it_resumes_there(
    prepared, tree, tmp_path, monkeypatch, phase, stop_after, capsys
):
    with monkeypatch.context() as patch:
        stop_in(phase, stop_after, patch)
        with pytest.raises(Stop):
            prepare(tree, tmp_path / "d", ByteTokenizer(), CONFIG)
    again = []
    with monkeypatch.context() as patch:
        real = Journal.add

        def add(journal, name, number, result):
            again.append((name, number))
            real(journal, name, number, result)

        patch.setattr(Journal, "add", add)
        prepare(tree, tmp_path / "d", ByteTokenizer(), CONFIG)
    assert "resuming" in capsys.readouterr().err
    assert digests(tmp_path / "d") == digests(prepared[0])
    earlier = PHASES[: PHASES.index(phase)]
    assert not any(name in earlier for name, _ in again)  # nothing is done twice
    numbers = [number for name, number in again if name == phase]
    assert numbers[0] == stop_after and numbers == sorted(set(numbers))


@pytest.mark.parametrize("name", ["publish", "write_validation_text", "make_manifest"])
def test_stopped_while_finishing_it_finishes(prepared, tree, tmp_path, monkeypatch, name):
    def stop(*_):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(f"geex_jax.data.phases.finish.{name}", stop)
        with pytest.raises(Stop):
            prepare(tree, tmp_path / "d", ByteTokenizer(), CONFIG)
    leftover = tmp_path / "d" / "validation_text" / ".go.jsonl.tmp-123"
    write(leftover, "half a line")
    prepare(tree, tmp_path / "d", ByteTokenizer(), CONFIG)
    assert digests(tmp_path / "d") == digests(prepared[0])


def test_a_torn_journal_line_is_done_again(prepared, tree, tmp_path, monkeypatch):
    interrupted(tree, tmp_path / "d", monkeypatch)
    journal = tmp_path / "d" / WORK / "read.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    prepare(tree, tmp_path / "d", ByteTokenizer(), CONFIG)
    assert digests(tmp_path / "d") == digests(prepared[0])


def interrupted(tree, output, monkeypatch):
    with monkeypatch.context() as patch:
        stop_in("pack", 0, patch)
        with pytest.raises(Stop):
            prepare(tree, output, ByteTokenizer(), CONFIG)


def test_resuming_with_other_settings_or_input_is_refused(tree, tmp_path, monkeypatch):
    output = tmp_path / "d"
    interrupted(tree, output, monkeypatch)
    with pytest.raises(GeexError, match=r"other settings \(seq_len\).*--overwrite"):
        prepare(tree, output, ByteTokenizer(), dataclasses.replace(CONFIG, seq_len=300))
    other = make_tree(tmp_path / "other", {".py": 3})
    with pytest.raises(GeexError, match="other input"):
        prepare([tree, other], output, ByteTokenizer(), CONFIG)
    overwrite = dataclasses.replace(CONFIG, seq_len=300, overwrite=True)
    assert prepare(tree, output, ByteTokenizer(), overwrite).seq_len == 300


def test_two_at_a_time_in_one_output_are_refused(tree, tmp_path, monkeypatch):
    interrupted(tree, tmp_path / "d", monkeypatch)
    journal = Journal(tmp_path / "d")
    for config in (CONFIG, dataclasses.replace(CONFIG, overwrite=True)):
        with pytest.raises(GeexError, match="another geex prepare"):
            prepare(tree, tmp_path / "d", ByteTokenizer(), config)
    journal.close()
    assert prepare(tree, tmp_path / "d", ByteTokenizer(), CONFIG).seq_len == 256


def test_a_file_that_changes_meanwhile_changes_nothing_or_is_refused(tree, tmp_path, monkeypatch):
    """Documents are read once. What changed after that is other input when the run resumes."""
    top = make_tree(tmp_path / "in", {".py": 5})
    prepare(top, tmp_path / "whole", ByteTokenizer(), CONFIG)
    interrupted(top, tmp_path / "d", monkeypatch)
    path = top / "part0" / "file0.py"
    status, text = path.stat(), path.read_text()
    path.write_text(text.replace("counter", "retnuoc"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(GeexError, match="other input"):
        prepare(top, tmp_path / "d", ByteTokenizer(), CONFIG)
    path.write_text(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    prepare(top, tmp_path / "d", ByteTokenizer(), CONFIG)
    assert digests(tmp_path / "d") == digests(tmp_path / "whole")
