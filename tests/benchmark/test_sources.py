"""Samples from callables, checkpoints and servers into a file; killed and gone on with."""

import dataclasses
import fcntl
import json
import subprocess
import sys

import pytest

from geex_jax.benchmark.humaneval_x import answers, prompts, sources, tasks
from geex_jax.benchmark.humaneval_x.generations import Generations
from geex_jax.benchmark.humaneval_x.sources import Settings
from geex_jax.errors import GeexError


def problem(prefix, number):
    head = f"int f{number}(int x){{\n" if prefix == "CPP" else f"def f{number}(x):\n"
    return {
        "task_id": f"{prefix}/{number}", "prompt": head, "declaration": head,
        "canonical_solution": f"    return {number};\n}}\n", "test": "",
    }  # fmt: skip


SET = {
    "python": [problem("Python", i) for i in range(5)],
    "cpp": [problem("CPP", i) for i in range(5)],
}
BY_ID = {p["task_id"]: p for v in SET.values() for p in v}
PLAIN = prompts.get("plain")


class Fake:
    """Writes texts that tell prompt and number; stops after some calls if asked to."""

    def __init__(self, calls=None):
        self.calls, self.asked = calls, []

    def __call__(self, prompts, settings):
        self.asked.append((len(prompts), settings.samples, settings.first_row))
        if self.calls is not None and len(self.asked) > self.calls:
            raise KeyboardInterrupt
        return [
            [f"    return {settings.first_row + i * settings.samples + j}\n\ndef more():\n"
             for j in range(settings.samples)]
            for i in range(len(prompts))
        ]  # fmt: skip


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_file_is_in_the_reference_format(tmp_path):
    jobs = sources.make_jobs(PLAIN, SET, "python")
    path = sources.collect(
        Fake(), jobs, tmp_path / "out" / "generations.jsonl", Settings(samples=2)
    )
    assert rows(path)[1] == {
        "task_id": "Python/0",
        "prompt": "# language: Python\ndef f0(x):\n",
        "generation": "    return 1\n\n",
        "completion_id": 1,
        "finish": 1,
    }
    samples = list(Generations(path, BY_ID))
    assert [(s.task_id, s.index) for s in samples] == [
        (f"Python/{i}", j) for i in range(5) for j in range(2)
    ]
    about = json.loads(sources.settings_path(path).read_text())
    assert about["samples"] == 2 and about["templates"] == ["plain v1"]


@pytest.mark.parametrize(
    ("samples", "batch", "asked"),
    [
        (2, 4, [(2, 2, 0), (2, 2, 4), (1, 2, 8)]),
        (3, 2, [(1, n, i * 3 + s) for i in range(5) for n, s in ((2, 0), (1, 2))]),
        (1, 16, [(5, 1, 0)]),
        (2, 1, [(1, 1, i) for i in range(10)]),
    ],
)
def test_batches_number_the_rows(tmp_path, samples, batch, asked):
    jobs, fake = sources.make_jobs(PLAIN, SET, "python"), Fake()
    path = tmp_path / "g.jsonl"
    sources.collect(fake, jobs, path, Settings(samples=samples), batch=batch)
    assert fake.asked == asked
    written = [int(r["generation"].split()[1]) for r in rows(path)]
    assert written == list(range(5 * samples))


@pytest.mark.parametrize("batch", [1, 4, 6])
def test_it_goes_on_where_it_stopped(tmp_path, batch):
    jobs, settings = sources.make_jobs(PLAIN, SET, "python"), Settings(samples=3)
    straight, path = tmp_path / "straight.jsonl", tmp_path / "g.jsonl"
    sources.collect(Fake(), jobs, straight, settings, batch=batch)
    with pytest.raises(KeyboardInterrupt):
        sources.collect(Fake(calls=2), jobs, path, settings, batch=batch)
    kept = path.read_bytes()
    assert straight.read_bytes().startswith(kept) and kept
    path.write_bytes(kept[:-20])  # as a kill leaves it
    fake = Fake()
    sources.collect(fake, jobs, path, settings, batch=batch)
    assert path.read_bytes() == straight.read_bytes()
    assert sum(n * m for n, m, _ in fake.asked) == 15 - kept.count(b"\n") + 1  # nothing twice
    done = Fake()
    sources.collect(done, jobs, path, settings, batch=batch)
    assert done.asked == [] and path.read_bytes() == straight.read_bytes()


def test_other_settings_do_not_mix(tmp_path):
    jobs, path = sources.make_jobs(PLAIN, SET, "python"), tmp_path / "g.jsonl"
    sources.collect(Fake(), jobs, path, Settings(samples=2), model="m")
    for changed, name in [
        ({"settings": Settings(samples=2, temperature=0.2)}, "temperature"),
        ({"model": "n"}, "model"),
        ({"jobs": sources.make_jobs(PLAIN, SET, "cpp")}, "prompts"),
    ]:
        arguments = {"jobs": jobs, "settings": Settings(samples=2), "model": "m", **changed}
        with pytest.raises(GeexError, match=rf"made with other settings \({name}\)"):
            sources.collect(Fake(), path=path, **arguments)
    sources.collect(Fake(), jobs, path, Settings(samples=1), overwrite=True)
    assert len(rows(path)) == 5
    path.write_text("something else\n")
    with pytest.raises(GeexError, match="holds something else"):
        sources.collect(Fake(), jobs, path, Settings())


def test_two_runs_do_not_write_one_file(tmp_path):
    jobs, path = sources.make_jobs(PLAIN, SET, "python"), tmp_path / "g.jsonl"
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(GeexError, match="another run is writing"):
            sources.collect(Fake(), jobs, path, Settings())


@pytest.mark.parametrize("answer", [["a"] * 5, [["a"]] * 4, [["a", "b"]] * 5, [[1]] * 5, None])
def test_what_generate_returns_is_checked(tmp_path, answer):
    jobs = sources.make_jobs(PLAIN, SET, "python")
    with pytest.raises(GeexError, match="did not return 1 texts for each of 5 prompts"):
        sources.collect(lambda p, s: answer, jobs, tmp_path / "g.jsonl", Settings())


def test_translations_can_be_judged_from_their_rows(tmp_path):
    jobs = sources.make_jobs(prompts.get("translation"), SET, "cpp", source="python")
    assert jobs[1].prompt.startswith("code translation\nPython:\ndef f1(x):\n")
    path = sources.collect(
        lambda p, s: [["  return 1;\n}\nmore }"] for _ in p], jobs, tmp_path / "g.jsonl", Settings()
    )
    assert rows(path)[1] == {
        "task_id": "CPP/1", "prompt": "int f1(int x){\n", "generation": "  return 1;\n}",
        "completion_id": 0, "finish": 1,
    }  # fmt: skip
    fewer = SET | {"python": SET["python"][:2]}
    assert len(sources.make_jobs(prompts.get("translation"), fewer, "cpp", source="python")) == 2


def test_templates_say_how_code_is_taken(tmp_path):
    thought = prompts.get("chain-of-thought")
    (job, *_) = sources.make_jobs(thought, SET, "python")
    assert job.prompt.endswith(job.opening) and job.opening.endswith("# 1.")
    text = " Think.\n    return 1\nprint(2)"  # goes on in the comment line
    row = sources._row(job, text, chat=False)
    assert row["generation"] == f"{job.opening} Think.\n    return 1\n" and row["finish"] == 1

    (job, *_) = sources.make_jobs(prompts.get("instruct"), SET, "cpp")
    whole = "int g(int x){\n  return x;\n}\nint f0(int y){\n  return g(y);\n}\n"
    path = tmp_path / "g.jsonl"
    said = f"So:\n```cpp\n{whole}```\nDone."
    sources.collect(lambda p, s: [[said] for _ in p], [job], path, Settings())
    (sample,) = Generations(path, BY_ID)
    fitted = answers.extract("full", "cpp", job.problem, whole)
    assert (sample.code, sample.prompt) == (fitted.code, fitted.prompt) and fitted.prompt == ""

    after = dataclasses.replace(PLAIN, answer="after", marker="CODE:")
    (job, *_) = sources.make_jobs(after, SET, "cpp")
    row = sources._row(job, "CODE: is to come.\nCODE:\n  return 1;\n}", chat=False)
    assert row["generation"] == "\n  return 1;\n}"


def test_shots_are_passed_on():
    template = prompts.get("few-shot")
    jobs = sources.make_jobs(template, SET, "python", shots=2, mixed=True, seed=1)
    assert all(j.prompt.count("language: ") == 3 and "// language: C++" in j.prompt for j in jobs)
    assert jobs == sources.make_jobs(template, SET, "python", shots=2, mixed=True, seed=1)
    other = sources.make_jobs(template, SET, "python", shots=2, mixed=True, seed=2)
    assert [j.prompt for j in jobs] != [j.prompt for j in other]


@pytest.fixture(scope="module")
def checkpoint():
    """A checkpoint that draws from a small model of bytes."""
    from geex_jax.checkpoints.store import Loaded
    from tests.inference.helpers import ByteTokenizer, small_model

    model, params = small_model()
    made = sources.Checkpoint("unused")
    made._loaded = Loaded(model, params, ByteTokenizer(), {})
    return made


# Two rows and 40 tokens nearly everywhere: each other shape would be compiled anew.
# The prompts are about as long for the same reason.
ASKED = "// language: C++\nint f0(int x){\n"
DRAWN = Settings(samples=2, temperature=1.5, top_p=0.0, max_tokens=40, seed=3)


def test_a_checkpoint_draws_the_same_however_it_is_batched(checkpoint, tmp_path):
    jobs = sources.make_jobs(PLAIN, SET, "cpp")[:2]
    small, large = tmp_path / "2.jsonl", tmp_path / "4.jsonl"
    sources.collect(checkpoint, jobs, small, DRAWN, batch=2)
    sources.collect(checkpoint, jobs, large, DRAWN, batch=4)
    assert small.read_bytes() == large.read_bytes()
    assert len({r["generation"] for r in rows(small)}) == 4


def test_a_checkpoint_draws_what_generate_draws(checkpoint):
    from geex_jax.inference import generate

    model, params, tokenizer = checkpoint._loaded
    wanted = generate(
        model, params, tokenizer, ASKED, max_new_tokens=40, temperature=1.5, seed=3,
        num_samples=2, first_row=4,
    )  # fmt: skip
    made = checkpoint([ASKED], dataclasses.replace(DRAWN, first_row=4))
    assert made == [[c.text for c in wanted]] and all(len(t) > 10 for t in made[0])


def test_a_checkpoint_stops_by_the_rules_of_the_language(checkpoint, monkeypatch):
    monkeypatch.setattr(checkpoint, "STEPS", 1)
    (free,) = checkpoint([ASKED], DRAWN)
    (ruled,) = checkpoint([ASKED], dataclasses.replace(DRAWN, language="python"))
    for whole, short in zip(free, ruled, strict=True):
        assert whole.startswith(short) and len(short) < len(whole)
        assert sources.shorten("python", short)[1]


def test_a_prompt_without_room_gives_an_empty_text(checkpoint):
    settings = dataclasses.replace(DRAWN, samples=1)
    long, short = checkpoint(["x" * 200, ASKED], settings)
    assert long == [""] and [short] == checkpoint([ASKED, ASKED], settings)[1:]


def test_importing_it_all_imports_no_jax():
    names = "answers, endpoint, fixes, generations, prompts, sources, tasks, truncation"
    code = (
        f"import sys; from geex_jax.benchmark.humaneval_x import {names};"
        "print('jax' in sys.modules, 'numpy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_every_language_has_rules():
    from geex_jax.benchmark.humaneval_x import truncation

    assert set(truncation.FINISHED) == set(truncation.CLEAN) == set(tasks.NAMES)
