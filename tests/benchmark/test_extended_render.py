"""Cases of the extended tests as text of each language."""

import pytest

from geex_jax.benchmark.extended import render
from geex_jax.benchmark.extended.render import Case, NotRenderable
from geex_jax.benchmark.extended.render.base import Type, generic

DECLARATIONS = {
    "python": "def f(a, b):\n",
    "cpp": "vector<{r}> f(vector<{a}> a, {b} b){{\n",
    "java": "class Solution {{\n    public List<{r}> f(List<{a}> a, {b} b) {{\n",
    "javascript": "const f = (a, b) => {{\n",
    "go": "func F(a []{a}, b {b}) []{r} {{\n",
    "rust": "fn f(a: Vec<{a}>, mut b: {b}) -> Vec<{r}> {{\n",
}
TYPES = {
    "cpp": ("float", "string", "int"), "java": ("Double", "String", "Integer"),
    "go": ("float64", "string", "int"), "rust": ("f32", "&str", "i32"),
}  # fmt: skip


def problem(language, types=None):
    a, b, r = types or TYPES.get(language, ("", "", ""))
    text = DECLARATIONS[language].format(a=a, b=b, r=r)
    call = "F(" if language == "go" else "f("
    test = f"func TestF(t *testing.T) {{ {call}1) }}" if language == "go" else f"{call}1)"
    if language == "python":
        test = "def check(c):\n    assert c([1.0], 'x') == [1]\n\ncheck(f)\n"
    prompt = "/*\n>>> f (1, 2)\nreturn f (3)\n*/\n" + text
    return {"task_id": "X/0", "prompt": prompt, "declaration": text, "canonical_solution": "",
            "test": test}  # fmt: skip


STATEMENTS = {
    "python": "assert geex_same(candidate([1.0, -0.5], 'a\"b\\n'), [3, 4])",
    "cpp": 'assert (geex_same(f(vector<float>{(float)1.0, (float)-0.5}, string("a\\"b\\n")), '
    "vector<int>{3, 4}));",
    "java": "check(same(s.f(new java.util.ArrayList<Double>(java.util.Arrays.<Double>asList(1.0, "
    '-0.5)), "a\\"b\\n"), java.util.Arrays.<Object>asList(3, 4)));',
    "javascript": "console.assert(JSON.stringify(f([1.0, -0.5], 'a\"b\\n')) === "
    "JSON.stringify([3, 4]))",
    "go": 'assert.Equal([]int{3, 4}, F([]float64{1.0, -0.5}, "a\\"b\\n"))',
    "rust": 'assert_eq!(f(vec![1.0, -0.5], "a\\"b\\n"), vec![3, 4]);',
}


@pytest.mark.parametrize("language", list(STATEMENTS))
def test_a_call_is_written_with_the_declared_types(language):
    writer = render.renderer(language, problem(language))
    case = writer.case(Case(([1.0, -0.5], 'a"b\n'), [3, 4]))
    assert case.strip() == STATEMENTS[language]
    assert case in writer.test([case])


@pytest.mark.parametrize("language", list(TYPES))
@pytest.mark.parametrize(
    "case",
    [
        Case(([1.0], 5), [3]),  # a number where text is wanted
        Case(([1.0], "x"), ["y"]),
        Case(([True], "x"), [3]),
        Case(([1.0], "ä"), [3]),
        Case(([1.0],), [3]),
        Case(([1.0], None), [3]),
    ],
)
def test_what_a_type_does_not_hold_is_refused(language, case):
    if language == "java" and case.expected == ["y"]:
        return  # results are compared as objects there
    with pytest.raises(NotRenderable):
        render.renderer(language, problem(language)).case(case)


@pytest.mark.parametrize("language", ["cpp", "java", "rust"])
def test_numbers_beyond_32_bits_are_refused(language):
    kinds = {"cpp": ("int", "int", "int"), "java": ("Integer", "int", "Integer"),
             "rust": ("i32", "i32", "i32")}[language]  # fmt: skip
    writer = render.renderer(language, problem(language, kinds))
    assert "2147483647" in writer.case(Case(([2**31 - 1], 0), [1]))
    with pytest.raises(NotRenderable):
        writer.case(Case(([2**31], 0), [1]))


@pytest.mark.parametrize("language", ["cpp", "go", "rust"])
def test_no_float_is_cut_to_a_whole_argument(language):
    kinds = {"cpp": ("int", "int", "int"), "go": ("int", "int", "int"),
             "rust": ("i32", "i32", "i32")}[language]  # fmt: skip
    writer = render.renderer(language, problem(language, kinds))
    with pytest.raises(NotRenderable):
        writer.case(Case(([2.0], 0), [1]))
    with pytest.raises(NotRenderable):
        writer.case(Case(([2], 0), [1.5]))
    assert "2" in writer.case(Case(([1], 0), [2.0]))  # Python divides to floats


def test_floats_are_compared_with_tolerance():
    kinds = {"cpp": ("float", "int", "float"), "go": ("float64", "int", "float64"),
             "rust": ("f32", "i32", "f32"), "java": ("Double", "int", "Double")}  # fmt: skip
    for language in STATEMENTS:
        writer = render.renderer(language, problem(language, kinds.get(language)))
        whole = writer.test([writer.case(Case(([1.0], 1), [0.1]))])
        assert any(word in whole for word in ("ear(", "geex_same(", "same("))
        if language in ("javascript", "go", "rust"):
            assert "0.1" in whole and "JSON" not in whole and "assert_eq" not in whole


def test_a_function_that_the_tests_do_not_call_is_not_taken():
    one = problem("rust")
    one = {**one, "declaration": "fn helper(x: i32) -> i32 {\n    x\n}\n" + one["declaration"]}
    assert render.renderer("rust", one).name == "f"
    with pytest.raises(NotRenderable, match="not found"):
        render.renderer("rust", {**one, "test": "g(1)"})
    with pytest.raises(NotRenderable, match="no tests are written"):
        render.renderer("cobol", one)


def test_types_are_read_as_trees():
    inner = Type("vector", (Type("long long"),))
    assert generic("map<string, vector<long  long>>") == Type("map", (Type("string"), inner))
    assert str(inner) == "vector<long long>"
    with pytest.raises(NotRenderable):
        generic("vector<int")


def test_imports_of_the_given_go_tests_stay_used():
    one = problem("go")
    setup = 'package main\n\nimport (\n    "math/rand"\n    "testing"\n)\n'
    one = {**one, "test_setup": setup, "test": one["test"] + " rand.Intn(3)"}
    assert "    _ = rand.Intn\n" in render.renderer("go", one).test([])
