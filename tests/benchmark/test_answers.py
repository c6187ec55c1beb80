"""Code out of answers: fences, repeated prompts, whole programs fitted to prompt and completion."""

import pytest

from geex_jax.benchmark.humaneval_x import answers, programs, prompts, tasks
from geex_jax.benchmark.humaneval_x.answers import Answer
from geex_jax.errors import GeexError


@pytest.fixture(scope="module")
def problems(shared):
    return {x: tasks.load(x, shared / "humaneval-x", fixes=True) for x in tasks.NAMES}


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("no fence at all", "no fence at all"),
        ("Here:\n```python\na\n```\nDone.", "a\n"),
        ("```\na\n```\n```\nb\n```", "b\n"),  # the last one
        ("```py\nwanted\n```\nUse it:\n```py\nf(1)\n```", "wanted\n"),  # but the one that is it
        ("~~~\na\n```\nb\n~~~", "a\n```\nb\n"),
        ("````\na\n```\nb\n````", "a\n```\nb\n"),
        ("So:\n```python\nwanted, cut", "wanted, cut"),
        ("    return 1\n```\nThis returns one.", "    return 1\n"),  # opened in the prompt
        ("  return 1;\n}\n```", "  return 1;\n}\n"),
        ("empty\n```\n```\n", "empty\n```\n```\n"),
    ],
)
def test_fenced(text, block):
    assert answers.fenced(text, lambda b: "wanted" in b) == block


@pytest.mark.parametrize("language", tasks.NAMES)
def test_names_and_kinds_of_real_programs(problems, language):
    for problem in problems[language]:
        name = programs.entry(language, problem)
        assert name in problem["test"] or problem["task_id"] == "Rust/10"
        prompt = prompts.of_problem(tasks.names(language), problem)
        solution = problem["canonical_solution"]
        assert programs.is_whole(language, name, prompt + solution)
        for text in (solution, prompt + solution, "```\n" + prompt + solution + "\n```\n"):
            taken = answers.extract("auto", language, problem, text)
            assert taken.prompt is None and taken.code.strip() == solution.strip()
        # A completion that runs on into the function again is a completion still.
        assert (
            answers.extract("auto", language, problem, solution + prompt).code == solution + prompt
        )
        assert answers.extract("completion", language, problem, prompt) == Answer(prompt)
    with pytest.raises(GeexError, match="did you mean full"):
        answers.extract("ful", language, problems[language][0], "")


def run(program: str) -> None:
    exec(compile(program, "program", "exec"), {"__name__": "program"})


def test_whole_python_programs_pass_their_tests(problems):
    """As a model with manners writes them: no docstring, prose around, examples below."""
    helped = 0
    for problem in problems["python"]:
        solution = problem["canonical_solution"]
        text = (
            f"Sure!\n```python\nimport os\n{problem['declaration']}{solution}\n\n\ndef helper():\n"
            f'    return 1\n\n\nif __name__ == "program":\n    raise SystemExit\n'
            f'print("shown")\nassert False, "example"\n```\nIt works.'
        )
        taken = answers.extract("auto", "python", problem, text)
        assert taken.prompt and "import os\n" in taken.prompt and "def helper" in taken.prompt
        assert taken.code.strip() and "shown" not in taken.prompt + taken.code
        assert all(x[:1] in (" ", "\t", "") for x in taken.code.split("\n"))  # survives the cut
        run(f"from typing import *\n{taken.prompt}{taken.code}\n{problem['test']}\n")
        # Without the helper of the prompt, that one comes back.
        last = problem["declaration"].rfind("\ndef ") + 1
        if last and "\ndef " in "\n" + problem["declaration"][:last]:
            alone = problem["declaration"][last:] + solution
            taken = answers.extract("full", "python", problem, alone)
            run(f"from typing import *\n{taken.prompt}{taken.code}\n{problem['test']}\n")
            helped += 1
    assert helped == 4


def test_python_that_does_not_parse(problems):
    problem = problems["python"][2]
    taken = answers.extract(
        "auto", "python", problem, "def truncate_number(number):\n    return number % 1\nIt is so."
    )
    assert taken == Answer("    return number % 1", "def truncate_number(number):\n")
    one_line = answers.extract("auto", "python", problem, "def truncate_number(n): return n % 1")
    run(f"{one_line.prompt}{one_line.code}\n{problem['test']}")
    broken = answers.extract("full", "python", problem, "I cannot do that.")
    assert broken == Answer("I cannot do that.", None)


def test_cpp(problems):
    text = (
        "int helper(int x){ return x; }\nfloat truncate_number(float n) {\n  return 1;\n}\n"
        'int main() {\n  cout << "}";\n}\n'
    )
    taken = answers.extract("auto", "cpp", problems["cpp"][2], text)
    assert taken.code == text[: text.index("int main")] + "\n\n"
    assert taken.prompt == "#include<stdio.h>\n#include<math.h>\nusing namespace std;\n"
    alone = "string decode_cyclic(string s){\n  return s;\n}\n"
    prompt = answers.extract("auto", "cpp", problems["cpp"][38], alone).prompt or ""
    assert "string encode_cyclic(string s)" in prompt and "decode_cyclic" not in prompt


def test_java(problems):
    problem = problems["java"][2]
    method = (
        "    public double truncateNumber(double number) {\n        return number % 1;\n    }\n"
    )
    whole = f"package a.b;\nimport java.io.*;\npublic class Solution {{\n{method}}}\n"
    main = 'public class Main {\n  public static void main(String[] a) { f("{"); }\n}\n'
    taken = answers.extract("auto", "java", problem, whole + main)
    assert taken.code == f"\nimport java.io.*;\nclass Solution {{\n{method}}}\n\n"
    assert taken.prompt == "import java.util.*;\nimport java.lang.*;\n"
    taken = answers.extract("auto", "java", problem, "import java.io.*;\n" + method)
    assert (taken.prompt or "").endswith("class Solution {\n") and "java.io" in taken.prompt
    assert taken.code == method + "\n}"


def test_javascript(problems):
    text = (
        "export function truncateNumber(x) {\n  return x % 1\n}\nconsole.log(truncateNumber(1));\n"
    )
    taken = answers.extract("auto", "javascript", problems["javascript"][2], text)
    assert taken == Answer("function truncateNumber(x) {\n  return x % 1\n}\n\n", "")


def test_go(problems):
    text = (
        'package main\n\nimport (\n  "fmt"\n  m "math"\n  "unicode"\n)\nimport "sort"\n\n'
        "func TruncateNumber(x float64) float64 {\n\treturn m.Mod(x, 1)\n}\n\n"
        'func main() {\n\tfmt.Println("}")\n}\n'
    )
    taken = answers.extract("auto", "go", problems["go"][2], text)
    assert taken.prompt == 'import m "math"\nimport "unicode"\n'
    assert taken.code.strip() == "func TruncateNumber(x float64) float64 {\n\treturn m.Mod(x, 1)\n}"


def test_rust(problems):
    text = (
        "use std::collections::{HashMap, VecDeque};\nuse std::cmp::{self, Ordering as O};\n"
        "use rand::Rng;\n\n/// Says so.\npub fn truncate_number(number: &f32) -> f32 {\n"
        "    if '{' == '}' { 1.0 } else { number % 1.0 } // }\n}\n\n"
        "fn more<'a>(x: &'a str) -> &'a str { x }\n\nfn main() {\n  more(\"{\");\n}\n"
        "#[cfg(test)]\nmod tests {\n  fn t() {}\n}\n"
    )
    taken = answers.extract("auto", "rust", problems["rust"][2], text)
    assert taken.prompt is None  # the declaration stands before it anyway
    body, after = taken.code.split("\n}\n", 1)
    assert body.strip() == "if '{' == '}' { 1.0 } else { number % 1.0 } // }"
    uses = "use std::collections::VecDeque;\nuse std::cmp::Ordering as O;\n"
    assert after.startswith(uses) and after.count("use ") == 2
    assert after.removeprefix(uses).strip() == "fn more<'a>(x: &'a str) -> &'a str { x }"
