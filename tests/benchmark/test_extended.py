"""Extended tests: built by differential testing, kept, and able to catch what given ones miss."""

import pytest

from geex_jax.benchmark import languages
from geex_jax.benchmark.extended import Extended, build
from geex_jax.benchmark.extended.building import path_of
from geex_jax.benchmark.humaneval_x import tasks
from geex_jax.benchmark.judge import Pool
from geex_jax.benchmark.judge.cache import VerdictCache
from geex_jax.benchmark.languages.types import Limits, Outcome, Verdict
from geex_jax.errors import GeexError

LIMITS = Limits(cpu_seconds=2, wall_seconds=10)


def rows(number, name, arguments, python, script, test):
    """One task in Python and JavaScript."""
    return (
        {"task_id": f"Python/{number}", "prompt": f"def {name}({arguments}):\n",
         "declaration": f"def {name}({arguments}):\n", "canonical_solution": python,
         "test": f"\ndef check(c):\n{test}\ncheck({name})\n"},
        {"task_id": f"JavaScript/{number}", "prompt": f"const {name} = ({arguments}) => {{\n",
         "declaration": f"const {name} = ({arguments}) => {{\n", "canonical_solution": script,
         "test": f"{name}(0)\n"},
    )  # fmt: skip


TASKS = [
    rows(0, "largest", "a", "    return max(a)\n", "  return Math.max(...a)\n}\n",
         "    assert c([1, 5, 2]) == 5\n    assert c([-4, -2]) == -2\n    assert c([7]) == 7\n"),
    rows(1, "half", "x", "    return x / 2\n", "  return x / 2\n}\n",
         "    assert abs(c(1.5) - 0.75) < 1e-6\n    assert c(4.25) == 2.125\n"),
    rows(2, "twice", "x", "    return x * 2\n", "  return x > 11 ? 0 : x * 2\n}\n",
         "    assert c(1) == 2\n    assert c(10) == 20\n"),  # one of the two is wrong
    rows(3, "spin", "n", "    while n > 3: pass\n    return n\n", "  return n\n}\n",
         "    assert c(1) == 1\n    assert c(3) == 3\n"),
    rows(4, "odd", "n", "    return n\n", "  return n\n}\n", "    assert c(print) == 1\n"),
]  # fmt: skip


class Counting:
    """A pool that counts what it runs."""

    def __init__(self, pool):
        self.pool, self.ran = pool, 0

    def judge(self, programs, limits):
        for item in self.pool.judge(programs, limits):
            self.ran += 1
            yield item


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return Counting(Pool(1, tmp_path_factory.mktemp("toolchains")))


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    return VerdictCache(tmp_path_factory.mktemp("verdicts") / "verdicts.sqlite")


def problems():
    if languages.get("javascript").toolchain().missing:
        pytest.skip("node is not installed")
    return {"python": [t[0] for t in TASKS], "javascript": [t[1] for t in TASKS]}


def make(pool, verdicts, **more):
    return build(problems(), pool, verdicts, 0, limits=LIMITS, progress=False, **more)


@pytest.fixture(scope="module")
def small(pool, verdicts):
    return make(pool, verdicts, count=10)


def passes(pool, language, problem, code):
    program = languages.get(language).assemble(problem, code)
    (found,) = pool.judge({language: [program]}, LIMITS)
    assert found[2].outcome in (Outcome.PASSED, Outcome.WRONG_ANSWER), found[2]
    return found[2].outcome is Outcome.PASSED


def test_agreement_decides_what_is_kept(small):
    summary = small.summary
    assert summary["languages that must agree"] == 2  # no more are there
    assert set(small.rows["python"]) == {f"Python/{n}" for n in (0, 1, 2, 3)}
    assert set(small.rows["javascript"]) == {f"JavaScript/{n}" for n in (0, 1, 2, 3)}
    assert summary["tasks left out"] == {"its tests hold no calls with literal arguments": ["4"]}
    why = summary["cases dropped"]
    assert why["fewer than 2 languages agree"] > 0  # twice
    assert why["Python's solution raises, is slow, or returns no literal"] > 0  # spin
    assert summary["cases kept"] + sum(why.values()) == summary["cases made"]
    twice = small.problem("python", "Python/2")["test"]
    assert "candidate(2)" in twice and "candidate(12)" not in twice
    spin = small.problem("python", "Python/3")["test"]
    assert "candidate(2)" in spin and "candidate(4)" not in spin


def test_canonical_solutions_pass_and_rows_are_the_same_but_for_tests(small, pool):
    for language, some in problems().items():
        for problem in some:
            row = small.problem(language, problem["task_id"])
            if row is not None:
                assert row["test"] != problem["test"]
                assert {**row, "test": problem["test"]} == problem
                assert passes(pool, language, row, problem["canonical_solution"])
    assert small.problem("python", "Python/4") is None
    assert small.problem("cobol", "Cobol/0") is None


@pytest.mark.parametrize(
    ("language", "task", "code"),
    [
        ("python", 0, "    return 5 if 5 in a else a[-1]\n"),
        ("python", 1, "    return {1.5: 0.75, 4.25: 2.125}.get(x, 0.0)\n"),
        ("python", 2, "    return {1: 2, 10: 20}.get(x, 0)\n"),
        ("javascript", 0, "  return a.includes(5) ? 5 : a[a.length - 1]\n}\n"),
        ("javascript", 1, "  return x === 1.5 ? 0.75 : 2.125\n}\n"),
    ],
)
def test_wrong_programs_that_the_given_tests_miss_are_caught(small, pool, language, task, code):
    given = TASKS[task][language == "javascript"]
    if language == "python":
        assert passes(pool, language, given, code)
    assert not passes(pool, language, small.problem(language, given["task_id"]), code)


def test_the_same_set_comes_again_without_running_anything(small, pool, verdicts):
    before = pool.ran
    again = make(pool, verdicts, count=10)
    assert (again.rows, again.summary) == (small.rows, small.summary)
    assert pool.ran == before


def test_another_seed_makes_another_set(small, pool, verdicts):
    other = build(problems(), pool, verdicts, 1, limits=LIMITS, count=10, progress=False)
    assert other.rows != small.rows
    assert other.summary["key"] != small.summary["key"]


def test_a_set_is_kept_and_read(small, pool, verdicts, tmp_path):
    made = make(pool, verdicts, count=10, folder=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert folder.name == f"extended-{small.summary['key']}"

    class Never:
        def judge(self, programs, limits):
            raise AssertionError("nothing has to run")

    read = build(problems(), Never(), None, 0, limits=LIMITS, count=10, folder=tmp_path)
    assert (read.rows, read.summary) == (made.rows, made.summary)
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    made.write(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == first
    # Rows are like those of the data set, and read like them.
    listed = tasks.read(path_of(folder, "javascript"), "javascript")
    assert listed == list(small.rows["javascript"].values())
    path_of(folder, "python").write_bytes(first["humaneval_python_extended.jsonl.gz"][:40])
    with pytest.raises(GeexError, match="delete it"):
        Extended.read(folder)


def test_a_set_whose_making_was_cut_off_is_made_anew(pool, verdicts, small, tmp_path):
    made = make(pool, verdicts, count=10, folder=tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / "summary.json").unlink()  # it is written last
    path_of(folder, "python").write_bytes(b"half")
    assert make(pool, verdicts, count=10, folder=tmp_path).rows == made.rows
    assert Extended.read(folder).rows == made.rows


def test_without_python_there_is_nothing_to_start_from(pool):
    with pytest.raises(GeexError, match="start from the Python problems"):
        build({"javascript": problems()["javascript"]}, pool, None, 0)


def test_a_language_whose_solution_fails_everything_has_no_tests(pool, verdicts):
    class Refuses:
        """All that is not Python fails."""

        def judge(self, programs, limits):
            for name, some in programs.items():
                if name != "python":
                    for index in range(len(some)):
                        yield name, index, Verdict(Outcome.COMPILE_ERROR)
            yield from pool.judge({"python": programs.get("python", [])}, limits)

    found = build(problems(), Refuses(), None, 0, limits=LIMITS, count=4, progress=False)
    assert found.rows == {"python": {}, "javascript": {}}
    assert found.summary["cases kept"] == 0


def real(shared, chosen, names):
    return {
        name: [p for p in tasks.load(name, shared / "humaneval-x")
               if tasks.number(p["task_id"]) in chosen]
        for name in names
    }  # fmt: skip


# Wrong programs that pass the data set's own tests.
NEAR_MISSES = {
    0: "    s = sorted(numbers)[:5]\n"  # of the five smallest only
    "    return any(b - a < threshold for a, b in zip(s, s[1:]))\n",
    3: "    return -1 in [sum(operations[:i]) for i in range(len(operations) + 1)]\n",
    12: "    return max(strings[:3], key=len) if strings else None\n",
    26: "    return [n for n in numbers if numbers.count(n) < 2]\n",  # right: passes both
    55: "    return {10: 55, 1: 1, 8: 21, 11: 89, 12: 144}[n]\n",
}


def test_near_misses_of_real_tasks_are_caught(shared, pool, verdicts, small):
    some = real(shared, {str(n) for n in NEAR_MISSES}, ["python", "javascript"])
    found = build(some, pool, verdicts, 0, progress=False)
    assert found.summary["tasks kept"] == len(NEAR_MISSES)
    for problem in some["python"]:
        number = int(tasks.number(problem["task_id"]))
        row = found.problem("python", problem["task_id"])
        if number == 26:
            assert passes(pool, "python", row, NEAR_MISSES[26])
            continue
        code = NEAR_MISSES[number]
        program = languages.get("python").assemble(problem, code)
        ((_, _, verdict),) = pool.judge({"python": [program]}, LIMITS)
        assert verdict.outcome is Outcome.PASSED, (number, verdict)
        program = languages.get("python").assemble(row, code)
        ((_, _, verdict),) = pool.judge({"python": [program]}, LIMITS)
        assert verdict.outcome in (Outcome.WRONG_ANSWER, Outcome.RUNTIME_ERROR), number


@pytest.mark.slow
def test_real_tasks_in_every_language_that_is_here(shared, tmp_path_factory, verdicts):
    chosen = {"0", "8", "12", "20", "53", "111"}
    there = [n for n in languages.LANGUAGES if not languages.get(n).toolchain().missing]
    some = real(shared, chosen, there)
    pool = Pool(0, tmp_path_factory.mktemp("all"))
    found = build(some, pool, verdicts, 0, count=6, progress=False)
    assert found.summary["languages that must agree"] == min(4, len(some))
    for name, rows in found.rows.items():
        assert {tasks.number(task) for task in rows} == chosen, name
