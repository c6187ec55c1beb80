"""The embedded benchmark: draws, interpreter, bounds, split, tests that tell near misses apart."""

import ast
import hashlib
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geex_jax.benchmark.embedded import LEVELS, SPLITS, generate, mixture
from geex_jax.benchmark.embedded.bounds import MAX_VALUE, TooLarge, bound
from geex_jax.benchmark.embedded.compose import draw_plan
from geex_jax.benchmark.embedded.draw import Draw
from geex_jax.benchmark.embedded.emit import BACKENDS
from geex_jax.benchmark.embedded.functions import FUNCTIONS, Lambda
from geex_jax.benchmark.embedded.inputs import hints_of, sample
from geex_jax.benchmark.embedded.near_misses import altered, shorter
from geex_jax.benchmark.embedded.operations import COUNTS, NUMBERS, OPERATIONS, WORDS
from geex_jax.benchmark.embedded.trees import (
    canonical,
    evaluate,
    leaf,
    make,
    parts,
    signature,
    spell,
    split_of,
)
from geex_jax.errors import GeexError

FEW = 12  # tasks of each level and split


@pytest.fixture(scope="module")
def tasks():
    return [t for level in LEVELS for split in SPLITS for t in generate(3, FEW, level, split)]


def digest(seed, count, level, split):
    rows = [task.rows for task in generate(seed, count, level, split)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def test_same_seed_same_bytes_in_another_process_with_another_hash_seed():
    code = (
        "from tests.benchmark.test_embedded import digest;"
        "print(digest(5, 4, 3, 'train'), digest(5, 3, 2, 'held-out'))"
    )
    env = dict(os.environ, PYTHONHASHSEED="1234", PYTHONPATH=os.pathsep.join(sys.path))
    out = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == [digest(5, 4, 3, "train"), digest(5, 3, 2, "held-out")]


def test_other_seeds_levels_and_splits_give_other_tasks():
    assert len({digest(*x) for x in [(0, 3, 2, "train"), (1, 3, 2, "train"), (0, 3, 3, "train"),
                                     (0, 3, 2, "held-out")]}) == 4  # fmt: skip


def test_more_tasks_begin_with_the_fewer():
    few, more = (list(generate(0, n, 2)) for n in (5, 9))
    assert [t.rows for t in few] == [t.rows for t in more[:5]]
    assert [t.number for t in more] == list(range(9))


def test_tasks_do_not_come_twice():
    compositions = [t.composition for t in generate(0, 150, 2)]
    assert len(set(compositions)) == 150


def test_a_level_that_has_no_more_repeats_compositions_with_other_examples():
    held = list(generate(0, 130, 1, "held-out"))
    assert len({t.composition for t in held}) < 130
    assert len({t.row("python")["prompt"] for t in held}) == 130


@pytest.mark.parametrize("level", LEVELS)
def test_levels_have_their_size(level):
    sizes = [sum(1 for _ in t.plan.root.nodes()) for t in generate(1, 10, level)]
    low, high = {1: (1, 1), 2: (2, 2), 3: (3, 3), 4: (3, 5), 5: (5, 9)}[level]
    assert all(low <= size <= high for size in sizes)
    branched = any(len(n.args) == 2 for t in generate(1, 10, level) for n in t.plan.root.nodes())
    assert branched == (level >= 4)


def test_mixture_has_all_levels_and_numbers_them_through():
    drawn = list(mixture(0, 13, 3))
    assert [t.level for t in drawn] == [1] * 2 + [2] * 4 + [3] * 7
    assert [t.row("go")["task_id"] for t in drawn] == [f"Go/{i}" for i in range(13)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 1, 9), "no level 9"), ((0, 1, 1, "test"), "did you mean|choose"), ((0, -1, 1), "count")],
)
def test_bad_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(GeexError, match=message):
        generate(*arguments)


# The split ------------------------------------------------------------------------------------


def test_no_composition_of_one_split_is_in_the_other(tasks):
    by = {split: {t.signature for t in tasks if t.split == split} for split in SPLITS}
    assert not by["train"] & by["held-out"]
    assert all(split_of(canonical(t.plan.root)) == t.split for t in tasks)


def test_no_part_of_a_train_task_is_held_out(tasks):
    seen = 0
    for task in tasks:
        if task.split == "train":
            for part in parts(task.plan.root):
                assert split_of(canonical(part)) == "train"
                seen += 1
    assert seen > 200


def test_the_split_goes_by_what_a_composition_does_not_by_names_or_constants():
    x = leaf(0, NUMBERS)
    even, above3, above9 = Lambda("even"), Lambda("above", (3,)), Lambda("above", (9,))
    keep = make("numbers.keep", [x], above3)
    assert signature(canonical(keep)) == signature(
        canonical(make("numbers.keep", [leaf(2, NUMBERS)], above9))
    )
    one = make("numbers.sort", [make("numbers.keep", [x], even)])
    other = make("numbers.keep", [make("numbers.sort", [x])], even)
    assert spell(one) != spell(other)
    assert signature(canonical(one)) == signature(canonical(other))
    assert signature(canonical(keep)) != signature(canonical(make("numbers.keep", [x], even)))


def test_every_primitive_and_function_can_be_learned_from_simple_train_tasks():
    # By the split itself, not by luck of a seed: what stands alone, or with one function.
    functions = set()
    for key, operation in OPERATIONS.items():
        args = [leaf(i, kind) for i, kind in enumerate(operation.sources)]
        if operation.takes is None:
            node = make(key, args, None, operation.constants)
            assert split_of(canonical(node)) == "train"
            continue
        fitting = [n for n, f in FUNCTIONS.items() if (f.source, f.target) == operation.takes]
        train = [
            n for n in fitting
            if split_of(canonical(make(key, args, Lambda(n, FUNCTIONS[n].constants)))) == "train"
        ]  # fmt: skip
        assert train, key
        functions |= set(train)
    assert functions >= {n for n, f in FUNCTIONS.items() if f.level <= 3}


def test_a_good_share_of_compositions_is_held_out():
    draw, splits = Draw("share"), []
    while len(splits) < 150:
        if plan := draw_plan(draw, 2):
            splits.append(split_of(canonical(plan.root)))
    assert 0.05 < splits.count("held-out") / 150 < 0.25
    assert splits.count("train") / 150 > 0.5


# Interpreter and bounds -------------------------------------------------------------------------

plans = st.builds(
    lambda seed, level: draw_plan(Draw("hypothesis", seed), level),
    st.integers(0, 10**6),
    st.sampled_from(list(LEVELS)),
).filter(bool)


def integers(value):
    if isinstance(value, bool | str):
        return []
    if isinstance(value, int):
        return [value]
    if isinstance(value, dict):
        return list(value.values())
    return [x for x in value if isinstance(x, int)]


@settings(max_examples=120, deadline=None)
@given(plans, st.integers(0, 10**6))
def test_values_stay_within_their_bounds_all_the_way(plan, seed):
    draw, hints = Draw("inputs", seed), hints_of(plan.root)
    limits = [d.bounds for d in plan.domains]
    for index in range(4):
        inputs = [sample(draw, d, hints, index) for d in plan.domains]
        for node in plan.root.nodes():
            result, limit = evaluate(node, inputs), bound(node, limits)
            for number in integers(result):
                assert limit.low <= number <= limit.high
                assert abs(number) <= MAX_VALUE < 2**31
            if isinstance(result, list | dict | str):
                assert len(result) <= limit.size
            if isinstance(result, str):
                assert result.isascii()


@settings(max_examples=60, deadline=None)
@given(plans)
def test_canonical_form_is_stable_and_tells_kinds(plan):
    once = canonical(plan.root)
    assert canonical(once) == once
    assert once.kind == plan.root.kind
    assert [n.key for n in once.nodes()] == [n.key for n in plan.root.nodes()]


def test_what_grows_without_limit_is_refused():
    x = leaf(0, NUMBERS)
    node = make("numbers.apply", [x], Lambda("square"))
    for _ in range(5):
        node = make("numbers.apply", [node], Lambda("square"))
    from geex_jax.benchmark.embedded.inputs import Domain

    with pytest.raises(TooLarge):
        bound(node, [Domain(NUMBERS, small=True).bounds])


@pytest.mark.parametrize(
    ("key", "function", "constants", "value", "result"),
    [
        ("numbers.gaps", None, (), [3, 5, 4], [2, -1]),
        ("numbers.running", None, (), [3, 5, -4], [3, 8, 4]),
        ("numbers.largest", None, (), [], 0),
        ("numbers.apply", Lambda("last_digit"), (), [-27, 305], [7, 5]),
        ("numbers.apply", Lambda("if", (), (Lambda("even"), Lambda("halve"), Lambda("negate"))),
         (), [-6, 7], [-3, -7]),
        ("numbers.keep", Lambda("not", (), (Lambda("multiple", (3,)),)), (), [-3, -2, 0, 4],
         [-2, 4]),
        ("text.split", None, (), " a  bc ", ["a", "bc"]),
        ("text.tally", None, (), "noon", {"n": 2, "o": 2}),
        ("words.longest", None, (), ["ab", "abc", "xyz"], "abc"),
        ("words.by_length", None, (), ["tea", "b", "ant"], ["b", "tea", "ant"]),
        ("words.join", None, ("-",), ["a", "b"], "a-b"),
        ("counts.best", None, (), {"z": 3, "b": 3, "a": 1}, "b"),
        ("counts.keep", Lambda("above", (1,)), (), {"a": 1, "b": 2}, {"b": 2}),
        ("int.divisors", None, (), 12, [1, 2, 3, 4, 6, 12]),
        ("int.upto", None, (), -1, []),
    ],
)  # fmt: skip
def test_interpreter(key, function, constants, value, result):
    kind = OPERATIONS[key].sources[0]
    assert evaluate(make(key, [leaf(0, kind)], function, constants), [value]) == result


# Cases ------------------------------------------------------------------------------------------


def test_tests_tell_near_misses_apart(tasks):
    """What differs from a task on one of many fresh inputs fails one of its few tests."""
    missed = tried = 0
    for task in tasks[:: len(tasks) // 24]:
        plan, draw = task.plan, Draw("fresh", task.number)
        hints = hints_of(plan.root)
        fresh = [[sample(draw, d, hints, 9) for d in plan.domains] for _ in range(30)]
        wanted = [evaluate(plan.root, x) for x in fresh]
        for other in [*shorter(plan.root), *altered(plan.root)]:
            try:
                bound(other, [d.bounds for d in plan.domains])
            except TooLarge:
                continue
            if [evaluate(other, x) for x in fresh] == wanted:
                continue
            tried += 1
            missed += all(evaluate(other, x) == y for x, y in task.problem.tests)
    assert tried > 100
    assert missed <= 0.03 * tried  # differences as rare as one input in a hundred remain


def test_cases_are_right_and_of_the_promised_number(tasks):
    for task in tasks:
        assert 5 <= len(task.problem.tests) <= 8
        assert len(task.problem.examples) == (1 if task.level <= 2 else 2)
        for inputs, output in (*task.problem.tests, *task.problem.examples):
            assert evaluate(task.plan.root, inputs) == output
        results = [repr(y) for _, y in task.problem.tests]
        assert len(set(results)) >= 2
        if task.plan.root.kind == "bool":
            assert min(results.count("True"), results.count("False")) >= 2


def test_nothing_in_a_task_can_be_left_out(tasks):
    for task in tasks[::5]:
        for other in shorter(task.plan.root):
            try:
                bound(other, [d.bounds for d in task.plan.domains])
            except TooLarge:
                continue
            assert any(evaluate(other, x) != y for x, y in task.problem.tests), task.composition


# What is written ----------------------------------------------------------------------------------


def test_rows_have_the_fields_of_humaneval_x(tasks):
    same = {"task_id", "prompt", "declaration", "canonical_solution", "test", "example_test"}
    more = {"python": {"text"}, "java": {"text"}, "go": {"import", "docstring", "test_setup"}}
    for task in tasks[::7]:
        for name, row in task.rows.items():
            assert set(row) == same | more.get(name, set())
            assert row["task_id"] == f"{BACKENDS[name].prefix}/{task.number}"
            text = "".join(row.values())
            assert text.isascii() and "$" not in text.replace("${", "")


def test_fields_fit_together_as_in_the_published_data(tasks):
    for task in tasks[::7]:
        rows = task.rows
        go, python, java = rows["go"], rows["python"], rows["java"]
        assert go["prompt"] == go["import"] + "\n" + go["docstring"] + go["declaration"][1:]
        assert python["prompt"].startswith(python["declaration"])
        assert python["text"].strip() in python["prompt"]
        assert java["canonical_solution"].endswith("    }\n}")
        head, line = java["declaration"].rsplit("    public ", 1)
        assert java["prompt"].startswith(head) and java["prompt"].endswith(line)
        for name in ("cpp", "javascript"):
            line = rows[name]["declaration"].strip("\n").split("\n")[-1]
            assert rows[name]["prompt"].endswith(line + "\n")
        rust = rows["rust"]
        assert rust["prompt"].startswith("\n/*\n") and rust["prompt"].endswith("*/\n")
        assert "fn " not in rust["prompt"] and rust["declaration"].endswith("{\n")


def test_python_solutions_are_small_and_parse(tasks):
    for task in tasks:
        row = task.row("python")
        ast.parse(row["prompt"] + row["canonical_solution"])
        assert row["canonical_solution"].count("\n") <= 30


def test_descriptions_name_every_constant(tasks):
    for task in tasks:
        text = " ".join(task.problem.lines)
        for hint in hints_of(task.plan.root):
            assert (f"'{hint}'" if isinstance(hint, str) else str(hint)) in text


def test_descriptions_do_not_look_like_imports_in_go(tasks):
    # The harness imports a package where code has its name and a dot.
    for task in tasks:
        assert not any(f"{p}." in " ".join(task.problem.lines) for p in ("strings", "sort", "math"))


def test_kinds_of_inputs_are_all_there(tasks):
    kinds = {d.kind for t in tasks for d in t.plan.domains}
    results = {t.plan.root.kind for t in tasks}
    assert {NUMBERS, WORDS, COUNTS, "text", "int"} <= kinds
    assert {NUMBERS, WORDS, COUNTS, "text", "int", "bool"} <= results
