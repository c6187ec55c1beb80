"""Prompts: the reference's to the byte, examples that give nothing away, template files."""

import itertools

import pytest

from geex_jax.benchmark.humaneval_x import prompts, tasks
from geex_jax.errors import GeexError

TAGS = {"python": "# language: Python\n", "cpp": "// language: C++\n",
        "java": "// language: Java\n", "javascript": "// language: JavaScript\n",
        "go": "// language: Go\n", "rust": "// language: Rust\n"}  # fmt: skip
TITLES = {"python": "Python", "cpp": "C++", "java": "Java", "javascript": "JavaScript", "go": "Go",
          "rust": "Rust"}  # fmt: skip


@pytest.fixture(scope="module")
def problems(shared):
    return {x: tasks.load(x, shared / "humaneval-x") for x in tasks.NAMES}


def small(language, count=6):
    """Tasks of a set of the user's own."""
    prefix = tasks.NAMES[language].prefix
    return [
        {"task_id": f"{prefix}/{i}", "prompt": f"{language} p{i}\n", "declaration": f"d{i}\n",
         "canonical_solution": f"  {language} s{i}\n\n", "test": f"t{i}"}
        for i in range(count)
    ]  # fmt: skip


SETS = {x: small(x) for x in tasks.NAMES}


@pytest.mark.parametrize("language", tasks.NAMES)
def test_the_plain_prompt(problems, language):
    template = prompts.get("plain")
    for problem in problems[language]:
        wanted = TAGS[language] + problem["prompt"]
        if language == "rust":  # the published prompt is the comment alone
            wanted += problem["declaration"]
        assert prompts.generation(template, language, problem) == wanted


def test_all_pairs_are_translated_as_the_reference_asks(problems):
    template, count = prompts.get("translation"), 0
    for source, target in itertools.permutations(tasks.NAMES, 2):
        for here, there in zip(problems[source], problems[target], strict=True):
            wanted = (
                f"code translation\n{TITLES[source]}:\n{here['declaration']}\n"
                f"{here['canonical_solution'].rstrip()}\n{TITLES[target]}:\n{there['declaration']}"
            )
            made = prompts.translation(template, (source, here), (target, there))
            assert made == wanted
        count += 1
    assert count == 30


def test_a_translation_prompt_in_full(problems):
    here, there = problems["cpp"][2], problems["javascript"][2]
    made = prompts.translation(prompts.get("translation"), ("cpp", here), ("js", there))
    assert made == (
        "code translation\nC++:\n#include<stdio.h>\n#include<math.h>\nusing namespace std;\n"
        "#include<algorithm>\n#include<stdlib.h>\nfloat truncate_number(float number){\n\n"
        "    return number-int(number);\n}\nJavaScript:\n\nconst truncateNumber = (number) => {\n"
    )


def test_what_is_no_translation():
    template, go = prompts.get("translation"), ("go", SETS["go"][1])
    for source in (("rust", SETS["rust"][2]), go):
        with pytest.raises(GeexError, match="is not translated to Go/1"):
            prompts.translation(template, source, go)


def test_examples_are_drawn_by_seed_and_never_give_the_task_away():
    draws = set()
    for seed, mixed, problem in itertools.product(range(3), (False, True), SETS["go"]):
        task_id, number = problem["task_id"], tasks.number(problem["task_id"])
        drawn = prompts.draw(SETS, "go", task_id, 5, seed=seed, mixed=mixed)
        assert drawn == prompts.draw(dict(reversed(SETS.items())), "go", task_id, 5, seed=seed,
                                     mixed=mixed)  # fmt: skip
        numbers = [tasks.number(p["task_id"]) for _, p in drawn]
        assert number not in numbers and len(set(numbers)) == 5
        languages = [x for x, _ in drawn]
        assert languages == [tasks.of(p["task_id"]).name for _, p in drawn]
        assert len(set(languages)) == (5 if mixed else 1)
        if not mixed:
            assert set(languages) == {"go"}
        draws.add((task_id, tuple(p["task_id"] for _, p in drawn)))
    assert len(draws) > 30  # of 36: seeds, modes and tasks differ
    with pytest.raises(GeexError, match=r"6 examples; give 1 to 5"):
        prompts.draw(SETS, "go", "Go/1", 6)


def test_few_shot_prompts():
    template = prompts.get("few-shot")
    shots = prompts.draw(SETS, "python", "Python/0", 2, mixed=True)
    made = prompts.generation(template, "python", SETS["python"][0], shots)
    wanted = ""
    for language, shot in shots:
        body = shot["declaration"] if language == "rust" else ""
        wanted += TAGS[language] + shot["prompt"] + body + shot["canonical_solution"] + "\n"
    assert made == wanted + TAGS["python"] + "python p0\n"
    with pytest.raises(GeexError, match="needs examples"):
        prompts.generation(template, "python", SETS["python"][0])
    with pytest.raises(GeexError, match="takes no examples"):
        prompts.generation(prompts.get("plain"), "python", SETS["python"][0], shots)


@pytest.mark.parametrize("mixed", [False, True])
def test_few_shot_translations(mixed):
    template = prompts.get("few-shot-translation")
    pairs = prompts.draw_pairs(SETS, "go", "cpp", "CPP/3", 3, mixed=mixed)
    for (here, problem), (there, parallel) in pairs:
        assert there == "cpp" and (here == "go") != mixed and here != "cpp"
        assert tasks.number(problem["task_id"]) == tasks.number(parallel["task_id"]) != "3"
    made = prompts.translation(template, ("go", SETS["go"][3]), ("cpp", SETS["cpp"][3]), pairs)
    plain = prompts.translation(
        prompts.get("translation"), ("go", SETS["go"][3]), ("cpp", SETS["cpp"][3])
    )
    assert made.endswith("\n\n" + plain) and made.count("code translation\n") == 4
    assert made.count("C++:\n") == 4 and "s3" not in made.removesuffix(plain)


def test_every_template_that_comes_along_works(problems):
    listed = prompts.listing()
    assert {"plain", "translation", "few-shot", "chain-of-thought"} <= {t.name for t in listed}
    assert len({t.name for t in listed}) == len(listed) == len({t.fingerprint for t in listed})
    for template, language in itertools.product(listed, tasks.NAMES):
        assert prompts.get(template.name) == template and template.description
        problem = problems[language][5]
        if template.task == "generation":
            shots = prompts.draw(problems, language, problem["task_id"], 2, mixed=True)
            made = prompts.generation(template, language, problem, shots * bool(template.example))
        else:
            source = "java" if language != "java" else "go"
            pairs = prompts.draw_pairs(problems, source, language, problem["task_id"], 2)
            pairs *= bool(template.example)
            here = (source, problems[source][5])
            made = prompts.translation(template, here, (language, problem), pairs)
            assert problems[source][5]["canonical_solution"].strip() in made
        assert problem["declaration"].strip().split("\n")[-1] in made and "{{tag" not in made
        assert problem["canonical_solution"].strip() not in made
        assert made.endswith(prompts.opening(template, language, problem))


def test_a_template_of_ones_own(tmp_path):
    file = tmp_path / "mine.txt"
    head = "name: mine\nversion: 2\ntask: generation\nanswer: {}\ndescription: a: b\n"
    file.write_text(
        head.format("after\nmarker: CODE") + "=== prompt ===\n{{prompt|trim}}|{{tag}}\n\n"
    )
    template = prompts.get(str(file))
    assert (template.title, template.description) == ("mine v2", "a: b")
    assert template.marker == "CODE"
    problem = SETS["go"][0] | {"prompt": "\n{{tag}}\n"}  # code that looks like a field stays
    assert prompts.generation(template, "go", problem) == "{{tag}}|// language: Go\n"

    for text, message in [
        (head.format("completion"), "no section prompt"),
        (head.format("code") + "=== prompt ===\nx", "answer 'code'"),
        (head.format("after") + "=== prompt ===\nx", "a marker belongs"),
        (head.format("completion") + "=== prompt ===\n{{promt}}", "did you mean prompt"),
        (head.format("completion") + "=== prompt ===\n{{source_title}}", "unknown field"),
        (head.format("completion") + "=== prompts ===\nx", "no section prompt"),
        (head.format("completion") + "=== prompt ===\nx\n=== end ===\n", "unknown section 'end'"),
        (head.format("completion") + "=== prompt ===\n{{examples}}", "and a section example"),
        (head.format("completion").replace("2", "two") + "=== prompt ===\nx", "version 'two'"),
        (head.format("completion").replace("name", "nome") + "=== prompt ===\nx", "no 'name'"),
        (
            "nonsense\n" + head.format("completion") + "=== prompt ===\nx",
            "'nonsense' is not a line",
        ),
    ]:
        file.write_text(text)
        with pytest.raises(GeexError, match=message) as error:
            prompts.get(str(file))
        assert "\n" not in str(error.value)
    with pytest.raises(GeexError, match="did you mean few-shot"):
        prompts.get("few-shots")
    with pytest.raises(GeexError, match="is for translation; for generation take one of"):
        prompts.generation(prompts.get("translation"), "go", problem)
