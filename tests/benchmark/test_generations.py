"""Generations as they are found: formats, spellings of ids, prompts in them, damage."""

import gzip
import json

import pytest

from geex_jax.benchmark.humaneval_x import tasks
from geex_jax.benchmark.humaneval_x.generations import Generations, Sample
from geex_jax.errors import GeexError


def problem(prefix, number):
    return {
        "task_id": f"{prefix}/{number}",
        "prompt": f"def f{number}(x):\n    '''doc'''\n",
        "declaration": f"def f{number}(x):\n",
        "canonical_solution": "    return x\n",
        "test": "",
    }


PYTHON = {f"Python/{i}": problem("Python", i) for i in range(3)}
CPP = {
    f"CPP/{i}": problem("CPP", i)
    | {"prompt": f"#include<math.h>\nint f{i}(int x){{\n", "declaration": f"int f{i}(int x){{\n"}
    for i in range(3)
}
JS = {
    f"JavaScript/{i}": problem("JavaScript", i)
    | {"prompt": f"const f{i} = (x) => {{\n", "declaration": f"const f{i} = (x) => {{\n"}
    for i in range(3)
}
ALL = {**PYTHON, **CPP, **JS}


def lines(path, *rows):
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith("gz") else text.encode())
    return path


def plain(samples):
    return [(s.task_id, s.index, s.code) for s in samples]


@pytest.mark.parametrize("name", ["g.jsonl", "g.jsonl.gz", "gzipped-but-not-called-so"])
def test_the_usual_fields(tmp_path, name):
    path = lines(
        tmp_path / name,
        {"task_id": "Python/0", "generation": "a"},
        {"task_id": "CPP/1", "completion": "b", "finish": 1},
        "",
        {"task_id": "Python/0", "generation": "c", "prompt": PYTHON["Python/0"]["prompt"]},
        {"task_id": "Python/2", "generations": ["d", "", None]},
        {"task_id": "Python/0", "samples": [{"generation": "e"}, {"completion": "f"}]},
        {"task_id": "JavaScript/0", "completions": ["g"]},
        {"task_id": "JavaScript/0", "generation": ["h", "i"]},
    )
    if name.startswith("gzipped"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    generations = Generations(path, ALL)
    wanted = [
        ("Python/0", 0, "a"), ("CPP/1", 0, "b"), ("Python/0", 1, "c"), ("Python/2", 0, "d"),
        ("Python/2", 1, ""), ("Python/2", 2, ""), ("Python/0", 2, "e"), ("Python/0", 3, "f"),
        ("JavaScript/0", 0, "g"), ("JavaScript/0", 1, "h"), ("JavaScript/0", 2, "i"),
    ]  # fmt: skip
    assert plain(generations) == wanted
    assert plain(generations) == wanted  # again, from the start
    assert [s.line for s in generations][:3] == [1, 2, 4]
    assert all(s.prompt is None for s in generations)


def test_it_streams(tmp_path):
    path = lines(tmp_path / "g.jsonl", {"task_id": "Python/0", "generation": "a"}, "broken")
    samples = iter(Generations(path, ALL))
    assert next(samples).code == "a"
    with pytest.raises(GeexError, match="line 2: not JSON"):
        next(samples)


@pytest.mark.parametrize(
    ("said", "language", "task_id"),
    [
        ("Python/1", None, "Python/1"),
        ("python/1", None, "Python/1"),
        ("C++/1", None, "CPP/1"),
        ("cpp/01", None, "CPP/1"),
        ("JS/1", None, "JavaScript/1"),
        ("HumanEval/1", "cpp", "CPP/1"),
        ("HumanEval-X/1", "js", "JavaScript/1"),
        ("HumanEval_1_has_close_elements", "python", "Python/1"),
        ("1", "python", "Python/1"),
        (1, "python", "Python/1"),
    ],
)
def test_spellings_of_ids(tmp_path, said, language, task_id):
    path = lines(tmp_path / "g.jsonl", {"task_id": said, "generation": "x"})
    assert plain(Generations(path, ALL, language=language)) == [(task_id, 0, "x")]


def test_one_language_need_not_be_named(tmp_path):
    path = lines(tmp_path / "g.jsonl", {"task_id": "HumanEval/2", "completion": "x"})
    assert plain(Generations(path, CPP)) == [("CPP/2", 0, "x")]
    with pytest.raises(GeexError, match="does not say its language; pass --language"):
        list(Generations(path, ALL))


def test_languages_that_were_not_asked_for_are_passed_over(tmp_path):
    rows = [{"task_id": t, "generation": "x"} for t in ("Rust/0", "Python/0", "Rust/99")]
    generations = Generations(lines(tmp_path / "g.jsonl", *rows), PYTHON)
    assert plain(generations) == [("Python/0", 0, "x")] and generations.skipped == 2


def test_whole_json_files(tmp_path):
    path = lines(tmp_path / "bigcode.json", json.dumps([["a", "b"], ["c"]], indent=1))
    wanted = [("CPP/0", 0, "a"), ("CPP/0", 1, "b"), ("CPP/1", 0, "c")]
    assert plain(Generations(path, ALL, language="c++")) == wanted
    with pytest.raises(GeexError, match="a list does not say its language"):
        list(Generations(path, ALL))
    lines(path, json.dumps([["a"]] * 4))
    with pytest.raises(GeexError, match="more lists than the 3 tasks"):
        list(Generations(path, CPP))
    lines(path, json.dumps({"CPP/0": ["a", "b"], "Python/1": ["c"]}))
    assert plain(Generations(path, ALL)) == [*wanted[:2], ("Python/1", 0, "c")]
    lines(path, json.dumps([{"task_id": "CPP/0", "generation": "a"}], indent=2))
    assert plain(Generations(path, ALL)) == wanted[:1]
    lines(path, {"task_id": "CPP/0", "generation": "a"}, {"task_id": "CPP/0", "generation": "b"})
    assert plain(Generations(path, ALL)) == wanted[:2]  # lines, whatever it is called
    # bigcode's have the prompt in front
    lines(path, json.dumps([[CPP["CPP/0"]["prompt"].strip() + "\n  return x;\n}"]]))
    assert [(s.code, s.prompt) for s in Generations(path, CPP)] == [("  return x;\n}", None)]


def test_translations_have_ids_of_the_source_and_never_paste_their_prompt(tmp_path):
    row = {"task_id": "Python/1", "prompt": "code translation\nPython:\n...", "generation": "x"}
    path = lines(tmp_path / "g.jsonl", row, row | {"task_id": "CPP/1"})
    samples = list(Generations(path, ALL, language="cpp", translation=True))
    assert samples == [Sample("CPP/1", 0, "x", None, 1), Sample("CPP/1", 1, "x", None, 2)]
    assert [s.prompt for s in Generations(path, ALL)] == [None, None]
    with pytest.raises(GeexError, match="need their target language"):
        Generations(path, ALL, translation=True)


@pytest.mark.parametrize(
    ("task_id", "prompt", "pasted"),
    [
        ("Python/0", "# language: Python\n" + PYTHON["Python/0"]["prompt"], True),
        ("Python/0", "from typing import List\n\n" + PYTHON["Python/0"]["prompt"], True),
        ("Python/0", PYTHON["Python/0"]["prompt"].strip(), True),
        ("Python/0", "def f0(x):\n    '''another text'''\n", True),
        ("Python/0", "Complete this function:\n" + PYTHON["Python/0"]["prompt"], False),
        ("Python/0", "Write f0.\n```python\n" + PYTHON["Python/0"]["prompt"] + "```", False),
        ("Python/0", PYTHON["Python/0"]["prompt"] + "Answer:", False),
        ("Python/0", "问：" + PYTHON["Python/0"]["prompt"] + "\n答：", False),
        ("Python/0", "Write a function that returns x.", False),
        ("Python/0", "", False),
        ("CPP/0", "// language: C++\n" + CPP["CPP/0"]["prompt"], True),
        ("CPP/0", "int f1(int x){\n", False),
    ],
)
def test_which_prompts_begin_a_program(tmp_path, task_id, prompt, pasted):
    path = lines(tmp_path / "g.jsonl", {"task_id": task_id, "prompt": prompt, "generation": "x"})
    generations = Generations(path, ALL)
    (sample,) = generations
    assert sample.prompt == (prompt if pasted else None)
    assert generations.replaced == (not pasted)
    assert sample.problem(ALL[task_id])["prompt"] == (prompt if pasted else ALL[task_id]["prompt"])


def test_rust_prompts_with_the_declaration_are_not_pasted(tmp_path, shared):
    problems = {p["task_id"]: p for p in tasks.load("rust", shared / "humaneval-x")}
    rows = []
    for p in problems.values():
        tagged = "// language: Rust\n" + p["prompt"]
        for prompt in (tagged, tagged + p["declaration"], (p["prompt"] + p["declaration"]).strip()):
            rows.append({"task_id": p["task_id"], "prompt": prompt, "generation": "x"})
    samples = list(Generations(lines(tmp_path / "g.jsonl", *rows), problems))
    for tagged, *others in (samples[i : i + 3] for i in range(0, len(samples), 3)):
        assert tagged.prompt is not None and {s.prompt for s in others} == {None}


def test_odd_texts(tmp_path):
    path = lines(
        tmp_path / "g.jsonl",
        '{"task_id": "Python/0", "generation": "a\\ud800b\\u2028\\u0000"}',
        '{"task_id": "Python/0", "generation": "größe \\ud83d\\ude00"}',
    )
    assert [s.code for s in Generations(path, ALL)] == ["a?b\u2028\x00", "größe 😀"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"task_id": "Python/7", "generation": ""},
            "line 2: unknown task 'Python/7'; did you mean",
        ),
        ({"task_id": "Pyton/1", "generation": ""}, "unknown task 'Pyton/1'; did you mean Python/1"),
        ({"task_id": "Python/0", "output": ""}, "no known field .*; it has output, task_id"),
        ({"generation": ""}, "line 2: no task_id; it has generation"),
        ({"task_id": "Python/0", "generation": 3}, "a generation is int, not text"),
        ({"task_id": "Python/0", "samples": [{"x": 1}]}, "a generation is dict, not text"),
        ("[1]", "line 2: list, not an object"),
        ('{"task_id": "Python/0", "gene', "line 2: not JSON"),
    ],
)
def test_mistakes_are_named(tmp_path, row, message):
    path = lines(tmp_path / "g.jsonl", {"task_id": "Python/0", "generation": "a"}, row)
    with pytest.raises(GeexError, match=message) as error:
        list(Generations(path, ALL))
    assert "\n" not in str(error.value)


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "g.jsonl"
    with pytest.raises(GeexError, match="no file"):
        list(Generations(path, ALL))
    path.write_bytes(b'{"task_id": "Python/0", "generation": "a"}\n{"task_id": "\xff"}\n')
    with pytest.raises(GeexError, match="line 2, byte 13: not UTF-8"):
        list(Generations(path, ALL))
    lines(tmp_path / "g.gz", *[{"task_id": "Python/0", "generation": "a" * i} for i in range(99)])
    (tmp_path / "g.gz").write_bytes((tmp_path / "g.gz").read_bytes()[:-9])
    with pytest.raises(GeexError, match="is not readable after line"):
        list(Generations(tmp_path / "g.gz", ALL))
    with pytest.raises(GeexError, match="did you mean auto"):
        Generations(path, ALL, form="autos")
