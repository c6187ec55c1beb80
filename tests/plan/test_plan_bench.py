"""The ladder of choices, without compiling anything."""

import pathlib

import pytest

from geex_jax.benchmark import plan_bench
from geex_jax.cli import main
from geex_jax.plan.jobs import Job

pytestmark = pytest.mark.optimized

TINY = str(pathlib.Path(__file__).parent / "tiny.py")


def test_one_thing_changes_at_a_time():
    job = Job("v5e:2x2", config=TINY, overrides=("--config.accumulate=2",))
    found = list(plan_bench.choices(job, list(plan_bench.KINDS)))
    names = [c.name for c in found]
    assert names[0] == "as configured" and len(set(names)) == len(names)
    words = {c.words for c in found}
    assert {("--config.model.remat=qkv",), ("--config.mesh.tensor=2",)} <= words
    assert ("--config.model.remat=full",) not in words  # it is the configured one
    assert ("--config.accumulate=1",) in words and ("--config.batch_size=32",) in words
    assert all(len(c.words) + bool(c.options) == 1 for c in found[1:])
    assert [c.name for c in plan_bench.choices(job, [])] == ["as configured"]


def test_the_table_says_what_did_not_fit_and_what_could_not_be_tried(capsys):
    plan = {
        "compiled": {"fits": False, "over": 2**30, "message": "Ran out of memory"},
        "roofline": None, "fast": True, "flops": {"ratio": 1.0},
    }  # fmt: skip
    rows = [{"name": "a", "plan": plan, "memory": {}}, {"name": "b", "error": "it is odd"}]
    text = plan_bench.render(Job("v5e:2x2"), rows)
    assert "no, by 1.00" in text and "it is odd" in text and "not measured" in text


@pytest.mark.parametrize("words", [["--choices", "colour"], ["--topology", "v5e:3x3"]])
def test_mistakes(words, capsys):
    pytest.importorskip("libtpu")
    assert main(["bench", "plan", "--config", TINY, *words]) == 2
    assert capsys.readouterr().err.startswith("geex: error: ")
