"""Inputs of the extended tests: read from the given tests, and mutated."""

import pytest

from geex_jax.benchmark.extended import mutation, reading
from geex_jax.benchmark.extended.reading import NotReadable
from geex_jax.benchmark.humaneval_x import tasks


def problem(test, **more):
    return {"task_id": "Python/0", "test": test, **more}


def given(*inputs):
    return reading.Given("f", list(inputs), list(inputs))


FORMS = """
def check(candidate):
    assert candidate([1, 2], 'a') == True, "message: " + str(candidate([9], 'z'))
    assert abs(candidate([-1.5], 'b') - 0.5) < 1e-6
    assert not candidate([], 'c')
    assert candidate([3 * 19, 2 ** 3], 'd' + 'e') is False
    assert tuple(candidate([1], 'f')) == tuple([1])
    assert candidate([1, 2], 'a') == True
    for x in range(3):
        assert candidate(x, 'g')
    assert candidate(open('/etc/passwd'), 'h')
    assert True

check(f)
"""


def test_all_forms_of_calls_are_read_and_nothing_else():
    read = reading.read(problem(FORMS, example_test="def check(f):\n    assert f([7], 'y')\n"))
    assert read.function == "f"
    assert read.tests == [
        ([1, 2], "a"), ([-1.5], "b"), ([], "c"), ([57, 8], "de"), ([1], "f"),
    ]  # fmt: skip
    assert read.examples == [*read.tests, ([7], "y")]


@pytest.mark.parametrize(
    "test",
    [
        "def check(c):\n    assert c(9 ** 9 ** 9) == 1\n\ncheck(f)\n",  # would not end
        "def check(c):\n    assert c(x=1) == 1\n\ncheck(f)\n",
        "def check(c):\n    assert c(1) == 1\n",
        "def check(c):\n    assert c(1e999) == 1\n\ncheck(f)\n",
        "def check(c):\n    assert c(1) and c(1, 2)\n\ncheck(f)\n",
        "def check(c:\n",
    ],
)
def test_what_is_no_call_with_literals_is_refused(test):
    with pytest.raises(NotReadable):
        reading.read(problem(test))


def test_mutation_is_a_function_of_seed_and_task():
    some = given(([1, 2, 3], "ab c"), ([4], "x"), ([], "hello you"), ([5, -6], ""))
    first = mutation.mutate(some, 1, "7")
    assert first == mutation.mutate(some, 1, "7")
    assert first != mutation.mutate(some, 2, "7")
    assert first != mutation.mutate(some, 1, "8")
    assert len(first) == mutation.COUNT
    assert len({repr(x) for x in first}) == mutation.COUNT
    assert not {repr(x) for x in first} & {repr(x) for x in some.examples}


def test_types_stay_and_numbers_fit():
    some = given(
        (2**31 - 2, 1.5, True, "Az9", [1], {"a": 1}, (1, "x")),
        (1, 2.25, False, "b", [2, 3], {"b": 2, "c": 3}, (2, "y")),
    )
    for new in mutation.mutate(some, 0, "1"):
        assert [type(x) for x in new] == [int, float, bool, str, list, dict, tuple]
        assert 0 < new[0] < 2**31
        assert new[3].isascii()


@pytest.mark.parametrize(
    ("inputs", "holds"),
    [
        ([([1, 2, 5],), ([3, 9],), ([0, 0, 4, 8],)], lambda x: x[0] == sorted(x[0])),
        ([("()",), ("(())",), ("()()",)], lambda x: x[0].count("(") == x[0].count(")")),
        ([([3, 1], 1), ([2, 5, 4], 3), ([1, 7], 2)], lambda x: x[1] <= len(x[0])),
        ([(["+"], [1, 2]), (["-", "*"], [4, 2, 1]), (["*"], [3, 3])],
         lambda x: len(x[0]) + 1 == len(x[1])),
        ([([[0, 1], [1, 1]],), ([[1], [0]],), ([[0, 0, 1], [1, 0, 1]],)],
         lambda x: len({len(row) for row in x[0]}) == 1),
        ([("110", "001"), ("0", "1"), ("0101", "1100")], lambda x: len(x[0]) == len(x[1])),
        ([([5, 1],), ([2, 2],), ([8, 3, 4],)], lambda x: len(x[0]) >= 2 and min(x[0]) >= 1),
        ([("3 apples and 4 oranges", 9), ("1 apples and 0 oranges", 2)],
         lambda x: " apples and " in x[0] and x[0].endswith(" oranges")),
    ],
)  # fmt: skip
def test_what_all_given_inputs_promise_is_kept(inputs, holds):
    assert all(map(holds, inputs))
    found = mutation.mutate(given(*inputs), 0, "2")
    assert len(found) >= 4
    assert [x for x in found if not holds(x)] == []


def test_a_rule_that_one_input_breaks_is_no_rule():
    some = given(([1, 2, 5],), ([3, 9],), ([0, 4, 8],), ([3, 1, 2],))
    assert any(x[0] != sorted(x[0]) for x in mutation.mutate(some, 0, "3"))


def test_most_real_tasks_are_read(shared):
    problems = tasks.load("python", shared / "humaneval-x")
    read = {}
    for one in problems:
        try:
            read[one["task_id"]] = reading.read(one)
        except NotReadable:
            continue
    assert {p["task_id"] for p in problems} - set(read) == {"Python/32", "Python/38", "Python/50"}
    assert read["Python/25"].tests[2:4] == [(8,), (57,)]
    made = [mutation.mutate(some, 0, name, 12) for name, some in read.items()]
    assert sum(map(len, made)) > 11 * len(read)
