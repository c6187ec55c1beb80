"""Corrections: each applies to the published data exactly once, and does what it says."""

import shutil
import subprocess

import pytest

from geex_jax.benchmark.humaneval_x import fixes, tasks
from geex_jax.errors import GeexError


def test_each_applies_exactly_once(shared):
    problems = [p for x in tasks.NAMES for p in tasks.load(x, shared / "humaneval-x")]
    before = {p["task_id"]: dict(p) for p in problems}
    for version in fixes.versions():
        fixed, made = fixes.apply(problems, version)
        assert made == fixes.read(version)
        assert {p["task_id"]: p for p in problems} == before  # those given stay
        changed = {p["task_id"]: [k for k in p if p[k] != before[p["task_id"]][k]] for p in fixed}
        wanted = {f.task_id: {g.field for g in made if g.task_id == f.task_id} for f in made}
        assert {t: set(k) for t, k in changed.items() if k} == wanted
        again, none = fixes.apply(fixed, version)
        assert none == [] and again == fixed


def test_listing_says_what_and_why():
    rows = fixes.listing()
    assert len(rows) == len(set(rows))
    ids = {r[0] for r in rows}
    assert {"JavaScript/112", "JavaScript/155", "Rust/50", "Go/95", "Python/142"} <= ids
    assert all(effect in ("canonical solution", "test", "translation prompt") and why
               for _, effect, why in rows)  # fmt: skip


def test_versions():
    assert fixes.versions()[0] == "v1" and fixes.newest() in fixes.versions()
    with pytest.raises(GeexError, match="did you mean v1"):
        fixes.read("v0")


def test_load_takes_them(shared):
    folder = shared / "humaneval-x"
    plain = {p["task_id"]: p for p in tasks.load("python", folder)}["Python/142"]
    fixed = {p["task_id"]: p for p in tasks.load("python", folder, fixes=True)}["Python/142"]
    with pytest.raises(SyntaxError):
        compile(plain["declaration"] + "    pass\n", "declaration", "exec")
    compile(fixed["declaration"] + "    pass\n", "declaration", "exec")
    assert tasks.load("python", folder, fixes="v1") == tasks.load("python", folder, fixes=True)


def test_other_sets_with_the_same_ids_are_left_alone():
    other = [{"task_id": "Go/95", "canonical_solution": "return 1"}]
    assert fixes.apply(other, "v1") == (other, [])


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_corrected_javascript_passes_and_the_repaired_test_can_fail(shared, tmp_path):
    problems = {p["task_id"]: p for p in tasks.load("js", shared / "humaneval-x", fixes="v1")}

    def output(task_id, code):
        problem = problems[task_id]
        script = tmp_path / "test.js"
        script.write_text(f"{problem['prompt']}{code}\n{problem['test']}")
        done = subprocess.run(["node", script], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    for task_id in ("JavaScript/2", "JavaScript/112", "JavaScript/155"):
        assert output(task_id, problems[task_id]["canonical_solution"]) == ""
    assert "Assertion failed" in output("JavaScript/2", "  return number == 3.5 ? 0.5 : 0.33\n}\n")
