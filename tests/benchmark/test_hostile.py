"""The hostile suite: nothing escapes, nothing passes, nothing disturbs its neighbours."""

import os
import pathlib
import socket
import subprocess
import sys

import psutil
import pytest

from geex_jax.benchmark import languages
from geex_jax.benchmark.judge import Pool
from geex_jax.benchmark.languages.types import Limits, Outcome
from tests.benchmark.hostile import ATTACKS, GOOD, PROBLEMS, WRONG

LIMITS = Limits(cpu_seconds=1, wall_seconds=3, compile_seconds=6, memory_bytes=1 << 29)
# What is contained without being seen, since the program may give any answer and it is checked.
EXPECTED = {
    "sleep": {Outcome.TIMEOUT}, "spin": {Outcome.TIMEOUT}, "output": {Outcome.OUTPUT_LIMIT},
    "memory bomb": {Outcome.MEMORY, Outcome.TIMEOUT}, "network": {Outcome.VIOLATION},
    "kill victim": {Outcome.VIOLATION, Outcome.RUNTIME_ERROR},
    "fork bomb": {Outcome.VIOLATION}, "process": {Outcome.VIOLATION},
    "kill parent": {Outcome.VIOLATION}, "ptrace": {Outcome.VIOLATION},
}  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def tree(folder: pathlib.Path) -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def descendants() -> set[int]:
    return {p.pid for p in psutil.Process().children(recursive=True)}


def ours_in_tmp() -> set[str]:
    """What a sandbox could leave in the host's /tmp, which others use too."""
    mine = ("geex-work-", "geex-tmp-")
    return {name for name in os.listdir("/tmp") if name.startswith(mine) or name in "x l 0 a"}


@pytest.mark.parametrize("name", list(ATTACKS))
def test_hostile_programs_get_nowhere(name, cache, tmp_path):
    language = languages.get(name)
    tools = language.toolchain()
    if tools.missing:
        pytest.skip("; ".join(f"{what} is missing: {how}" for what, how in tools.missing))
    home = tmp_path / "home"
    home.mkdir()
    secret = home / "answers.jsonl"
    secret.write_text("the answers")
    before = tree(home), descendants(), ours_in_tmp()
    # A victim of our own, and a listener of our own that nobody must reach.
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        server.settimeout(0.2)
        words = {"@PORT@": str(server.getsockname()[1]), "@SECRET@": str(secret),
                 "@VICTIM@": str(victim.pid)}  # fmt: skip
        programs, kinds = [], []
        for number, (kind, code) in enumerate(ATTACKS[name].items()):
            for word, value in words.items():
                code = code.replace(word, value)
            # A right and a wrong neighbour between any two, made distinct by a comment.
            mark = f"\n# {number}\n" if name == "python" else f"\n// {number}\n"
            for what, text in (("good", GOOD[name]), (kind, code), ("wrong", WRONG[name])):
                ending = "" if what == kind else mark
                programs.append(language.assemble(PROBLEMS[name], text + ending))
                kinds.append(what)
        pool = Pool(2, cache)
        found = {i: v for _, i, v in pool.judge({name: programs}, LIMITS)}
        with pytest.raises(TimeoutError):
            server.accept()
        assert victim.poll() is None
        victim.communicate(b"\n")
    assert pool.lacking == []
    problems = []
    for index, kind in enumerate(kinds):
        outcome = found[index].outcome
        wanted = {"good": {Outcome.PASSED}, "wrong": {Outcome.WRONG_ANSWER}}.get(kind)
        wanted = wanted or EXPECTED.get(kind, set(Outcome) - {Outcome.PASSED, Outcome.NOT_RUN})
        if kind == "compile bomb" and name == "python":
            continue  # it is a legal program
        if outcome not in wanted:
            problems.append(f"{kind}: {outcome} ({found[index].message[-300:]})")
    assert not problems, "\n".join(problems)
    assert (tree(home), descendants(), ours_in_tmp()) == before
