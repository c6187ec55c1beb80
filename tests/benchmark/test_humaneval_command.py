"""`geex bench humaneval-x`, as a user calls it."""

import gzip
import json

import pytest

from geex_jax import cli
from geex_jax.benchmark.judge.results import Results


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEEX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def data(tmp_path):
    """Three problems in the format of HumanEval-X."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [
        {
            "task_id": f"Python/{n}", "prompt": f'def add(x):\n    """Add {n}."""\n',
            "declaration": "def add(x):\n", "canonical_solution": f"    return x + {n}\n",
            "test": f"def check(add):\n    assert add(1) == {1 + n}\n\ncheck(add)\n",
            "example_test": "", "text": f"    Add {n}.",
        }
        for n in range(3)
    ]  # fmt: skip
    path = folder / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def geex(capsys, *args):
    status = cli.main(["bench", "humaneval-x", *map(str, args)])
    out = capsys.readouterr()
    return status, out.out, out.err


def write(path, rows):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def test_generations_to_a_report(tmp_path, data, capsys):
    rows = [
        {"task_id": f"Python/{n}", "generation": code}
        for n in range(3)
        for code in (f"    return x + {n}\n", "    return x - 7\n")
    ]
    file = write(tmp_path / "generations.jsonl.gz", rows)
    output = tmp_path / "out"
    arguments = ("--generations", file, "--language", "python", "--data", data, "--output", output)
    status, out, _ = geex(capsys, *arguments)
    assert status == 0
    assert "50.0 (50.0 – 50.0)" in out
    assert (output / "report.html").exists() and (output / "report.md").exists()
    rows = Results(output / "results.jsonl").rows
    assert [row["outcome"] for row in rows.values()].count("passed") == 3
    run = json.loads((output / "run.json").read_text())
    assert run["k"] == [1] and run["limits"]["cpu_seconds"] == 5.0
    before = (output / "results.jsonl").read_bytes()
    assert geex(capsys, *arguments)[0] == 0  # nothing is left to do
    assert (output / "results.jsonl").read_bytes() == before


def test_canonical_solutions(tmp_path, data, capsys):
    status, out, _ = geex(capsys, "--canonical", "--language", "python", "--data", data,
                          "--output", tmp_path / "out")  # fmt: skip
    assert status == 0 and "100.0" in out


def test_n_takes_the_first_samples_of_each_task(tmp_path, data, capsys):
    rows = [{"task_id": "Python/0", "generations": ["    return x\n", "    return x + 1\n"]}]
    file = write(tmp_path / "g.jsonl", rows)
    geex(capsys, "--generations", file, "--n", 1, "--language", "python", "--data", data,
         "--output", tmp_path / "out")  # fmt: skip
    (row,) = Results(tmp_path / "out" / "results.jsonl").rows.values()
    assert row["outcome"] == "passed" and row["sample"] == 0


def test_a_second_file_adds_samples(tmp_path, data, capsys):
    row = {"task_id": "Python/1", "completion": "    return 2\n"}
    files = [write(tmp_path / f"{n}.jsonl", [row]) for n in range(2)]
    geex(capsys, "--generations", *files, "--language", "python", "--data", data,
         "--output", tmp_path / "out", "--k", "1,2")  # fmt: skip
    assert len(Results(tmp_path / "out" / "results.jsonl").rows) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "nothing to judge; give --generations, --checkpoint, --endpoint or --canonical"),
        (("--canonical", "--checkpoint", "x"), "--checkpoint and --canonical together"),
        (("--endpoint", "http://127.0.0.1:1"), "--endpoint without a model"),
        (
            ("--canonical", "--language", "phyton"),
            "unknown language 'phyton'; did you mean python?",
        ),
        (("--canonical", "--timeout", "0"), "--timeout must be above 0"),
        (("--canonical", "--k", "1,100"), "--k 100, but Python/0 has n = 1; give k up to 1"),
        (("--canonical", "--k", "0"), "--k 0 is not a list of numbers from 1 on"),
        (("--canonical", "--source", "go"), "--source belongs to translation"),
        (("--generations", "none.jsonl"), "no file none.jsonl"),
        (("--canonical", "--fixes", "v9"), "no corrections 'v9'"),
        (("--canonical", "--recheck-failures", "1"), "--recheck-failures must be above 1"),
        (("--canonical", "--laguage", "go"), "unknown flag --laguage; did you mean --language?"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, data, capsys, flags, message):
    output = tmp_path / "out"
    defaults = () if "--language" in flags else ("--language", "python")
    status, _, err = geex(capsys, *flags, *defaults, "--data", data, "--output", output)
    assert status == 2
    assert err.startswith("geex: error: ") and message in err and err.count("\n") == 1
    assert not output.exists()


def test_what_is_listed(capsys):
    assert "Go/95" in geex(capsys, "--list-fixes")[1]
    assert "few-shot" in geex(capsys, "--list-prompts")[1]
