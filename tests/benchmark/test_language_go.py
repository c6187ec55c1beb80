"""Go: assembly, what is read off a text, and verdicts of programs that try everything."""

import gzip
import json

import pytest

from geex_jax.benchmark.languages import go_text, go_tools
from geex_jax.benchmark.languages.go import Go
from geex_jax.benchmark.languages.types import Limits, Outcome, Program
from geex_jax.benchmark.sandbox.client import Sandbox
from geex_jax.errors import GeexError

LIMITS = Limits(cpu_seconds=1, wall_seconds=3, memory_bytes=512 << 20)
PROBLEM = {
    "task_id": "Go/0",
    "prompt": 'import (\n    "math"\n)\n\n// Half.\nfunc Half(x float64) float64 {\n',
    "import": 'import (\n    "math"\n)\n',
    "test_setup": 'package main\n\nimport (\n    "testing"\n    "math/rand"\n)\n',
    "test": "func TestHalf(t *testing.T) {\n    Half(rand.Float64())\n}\n",
}


@pytest.fixture(scope="module")
def rows(shared):
    with gzip.open(shared / "humaneval-x/humaneval_go.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    if Go().toolchain().missing:
        pytest.skip("Go is not installed")
    try:
        box = Sandbox(Go(), tmp_path_factory.mktemp("cache"))
    except GeexError as error:
        pytest.skip(str(error))
    with box:
        yield box


def program(body, test="assert.Equal(t, 3, Add(1, 2))", imports="", setup=None):
    """`body` declares Add, the test uses it."""
    names = ["testing", go_tools.ASSERT, *imports.split()]
    lines = "".join(f'import "{name}"\n' for name in names)
    return Program(
        (setup or f"package main\n{lines}") + body + "\n",
        f"func TestAdd(t *testing.T) {{ {test} }}\n",
    )


def judge(sandbox, programs, limits=LIMITS):
    verdicts = dict(sandbox.judge(programs, limits))
    assert sorted(verdicts) == list(range(len(programs)))
    return [verdicts[i] for i in range(len(programs))]


# Assembly ----------------------------------------------------------------------------------


def test_assembly_is_the_references():
    done = Go().assemble(PROBLEM, "    return x / strconv.Foo(fmt.Sprint(1))\n}\n")
    assert done.text == (
        'package main\n\nimport (\n    "testing"\n    "math/rand"\n)\n'
        '\nimport (\n"fmt"\n    "strconv"\n)\n'
        "\n// Half.\nfunc Half(x float64) float64 {\n"
        "    return x / strconv.Foo(fmt.Sprint(1))\n}\n\n"
        "func TestHalf(t *testing.T) {\n    Half(rand.Float64())\n}\n"
    )
    assert done.test == PROBLEM["test"]


def test_assembly_of_every_canonical_solution_is_the_references(rows):
    ours, references = Go(), Go()
    references.reference_imports = True
    for row in rows:
        code = row["canonical_solution"]
        assert ours.assemble(row, code) == references.assemble(row, code)


@pytest.mark.parametrize(
    ("code", "ours", "references"),
    [
        ("return x // no need to sort.\n}", [], ["sort"]),
        ('s := "fmt."; return x }', [], ["fmt"]),
        ("return math.Sqrt(x) }", ["math"], []),  # "math" is a part of "math/rand"
        ("return my.time.Now() + mystrings.X }", [], ["strings", "time"]),
        ("return f(`\nsort.` + '\"', strconv.Itoa(1)) }", ["strconv"], ["strconv", "sort"]),
    ],
)
def test_imports_are_chosen_by_use_and_not_by_substrings(code, ours, references):
    for exactly, expected in ((False, ours), (True, references)):
        go = Go()
        go.reference_imports = exactly
        text = go.assemble(PROBLEM, code).code.replace(PROBLEM["test_setup"], "")
        assert [x for x in ("math", "strings", "fmt", "strconv", "time", "sort")
                if f'"{x}"\n' in text] == expected  # fmt: skip


def test_stop_rule_and_cleaning():
    go = Go()
    assert not go.is_finished("if a { b }")
    assert go.is_finished("if a { b }\n}")
    assert go.clean("a\n}\n// More.\nfunc main() {\n}\n") == "a\n}"
    assert go.clean("a\n}\nfunc main() {\n x }") == "a\n}"
    assert go.clean("return 1\n") == "return 1\n"


# Text --------------------------------------------------------------------------------------


def test_shape_sees_what_stands_at_the_top_level():
    shape = go_text.look(
        'package main\nimport "testing"\n// func TestNo(t *testing.T) {\n'
        "func (x S) TestMethod(t *testing.T) {}\nfunc Testing() {}\nfunc Test_it(t *testing.T) {\n"
        "  var x = `}}} func TestNo(`\n}\nfunc TestTwo(t *testing.T) {}\n"
    )
    assert shape == go_text.Shape(("Test_it", "TestTwo"), alone=False, refused="", vet=True)


@pytest.mark.parametrize(
    "text",
    ["func init() { }", "var x = f()", "var (\n x [1 << 30]int\n)", "import \"net/http\"",
     "import (\n a \"sort\"\n _ \"os/signal\"\n)", "//go:noinline\nfunc f() {}"],
)  # fmt: skip
def test_what_could_touch_neighbours_is_alone(text):
    assert go_text.look(f"package main\n{text}\n").alone
    assert not go_text.look('package main\nimport "fmt"\nfunc f() { var x = 1 }').alone


@pytest.mark.parametrize(
    "text",
    ['import "unsafe"', 'import (\n"fmt"; . "unsafe"\n)', "import `C`",
     'import s "syscall"\nfunc f() { s.RawSyscall(1, 2, 3, 4) }',
     'import . "syscall"\nfunc f() { x := Syscall6; x() }',
     'import "runtime/debug"\nfunc f() { debug.WriteHeapDump(3) }',
     'import "\\x75nsafe"', "const true = false", "type bool = int", "var a, false = 1, 2",
     "const (\n a = 1\n b, true = 2, 3\n)", "type (\n T int; string = T)", "func nil() {}"],
)  # fmt: skip
def test_what_could_reach_the_secret_or_the_tests_is_refused(text):
    assert go_text.look(f"package main\n{text}\n").refused
    fine = "func min(a, b int) bool { true := false; return true }\ntype T struct {\n string\n}\n"
    assert not go_text.look(f'package main\n// import "unsafe"\n{fine}').refused


@pytest.mark.parametrize(
    "text",
    ["a == 1 || a == 1", "string(i)", "(string)(i)", "type S string", "type S = string",
     'fmt.Printf("%d", "x")', 't.Errorf("%d", "x")', 'log.Print("%d")', "if F == nil {",
     "nil != F", "x.(io.Reader)", "switch x.(type) {", "errors.As(err, 1)",
     "x = atomic.AddInt32(&x, 1)", "\n//go:build linux", "\n// +build linux",
     "func ExampleNo() {}", "func Testing(t *testing.T) {}"],
)  # fmt: skip
def test_vet_is_asked_where_it_could_have_something_to_say(text):
    assert go_text.look(f'package main\nimport "fmt"\n{text}\n').vet
    assert not go_text.look('package main\n// a || b\nfunc f() { s += "string(1) && x" }').vet


def test_looking_takes_no_time_on_hostile_texts():
    for text in ("/*" * 60_000, '"' * 90_000, "const (\n" * 15_000, "string" + " " * 150_000,
                 "const (" + "\n" * 150_000, "import" + " (" * 30_000, "a," * 60_000,
                 "import " * 30_000, "import a " * 15_000, "const a," * 15_000):  # fmt: skip
        go_text.look(text)  # a quadratic expression would need minutes


# Verdicts ----------------------------------------------------------------------------------

GOOD = "func Add(a, b int) int { return a + b }"
EXIT = "func Add(a, b int) int { os.Exit(0); return 0 }"
JUNK = (
    'func Add(a, b int) int { for i := 0; i < 256; i++ { f := os.NewFile(uintptr(i), ""); '
    'if f != nil { f.WriteString("12345") } }; os.Exit(0); return 0 }'
)
RECURSION = "func Add(a, b int) int { if a == -5 { return 0 }; return Add(a+1, b) + 1 }"
MEMORY = "func Add(a, b int) int { x := []int{}; for { x = append(x, 1) } }"
PEEK = """func Add(a, b int) int {
    for _, name := range []string{"mem", "environ", "auxv", "cmdline"} {
        if data, err := os.ReadFile("/proc/self/" + name); err == nil && len(data) > 40 {
            panic("readable: " + name)
        }
    }
    if len(os.Args) != 1 { panic("arguments") }
    return 3
}"""
CASES = {
    "right": (program(GOOD), Outcome.PASSED),
    "own main": (program(GOOD + "\nfunc main() { panic(1) }"), Outcome.PASSED),
    "other package": (program(GOOD, setup='package other\nimport "testing"\nimport "github.com/'
                              'stretchr/testify/assert"\n'), Outcome.PASSED),
    "goroutines": (program("func Add(a, b int) int { c := make(chan int); go func() { c <- a + b "
                           "}(); return <-c }"), Outcome.PASSED),
    "wrong": (program("func Add(a, b int) int { return a - b }"), Outcome.WRONG_ANSWER),
    "own test": (program(GOOD + '\nfunc TestA(t *testing.T) { t.Run("b", func(t *testing.T) { '
                         "t.FailNow() }) }"), Outcome.WRONG_ANSWER),
    "skipped": (program(GOOD + '\nfunc TestA(t *testing.T) { t.Skip("no") }'), Outcome.PASSED),
    "reset": (program(GOOD + "\nfunc TestA(t *testing.T) { t.Fail(); *t = testing.T{} }"),
              Outcome.WRONG_ANSWER),
    "goes on": (program(GOOD, "assert.Equal(t, 1, 2); panic(1)"), Outcome.RUNTIME_ERROR),
    "panic": (program("func Add(a, b int) int { return []int{}[a] }"), Outcome.RUNTIME_ERROR),
    "deadlock": (program("func Add(a, b int) int { select {} }"), Outcome.RUNTIME_ERROR),
    "goexit": (program("func Add(a, b int) int { runtime.Goexit(); return 0 }", imports="runtime"),
               Outcome.RUNTIME_ERROR),
    "recursion": (program(RECURSION), Outcome.RUNTIME_ERROR),
    "exit": (program(EXIT, imports="os"), Outcome.RUNTIME_ERROR),
    "junk": (program(JUNK, imports="os"), Outcome.RUNTIME_ERROR),
    "init exit": (program(GOOD + "\nfunc init() { os.Exit(0) }", imports="os"),
                  Outcome.RUNTIME_ERROR),
    "init": (program("var n int\nfunc init() { n = 2 }\nfunc Add(a, b int) int { return n + 1 }"),
             Outcome.PASSED),
    "variable": (program("var n = f()\nfunc f() int { return 3 }\nfunc Add(a, b int) int { "
                         "return n }"), Outcome.PASSED),
    "printed": (program('func Add(a, b int) int { println("--- PASS: TestAdd\\nPASS\\nok"); '
                        "return 0 }"), Outcome.WRONG_ANSWER),
    "no tests": (Program("package main\n" + GOOD, "\n"), Outcome.RUNTIME_ERROR),
    "loop": (program("func Add(a, b int) int { for { } }"), Outcome.TIMEOUT),
    "sleep": (program("func Add(a, b int) int { time.Sleep(time.Hour); return 3 }",
                      imports="time"), Outcome.TIMEOUT),
    "memory": (program(MEMORY), Outcome.MEMORY),
    "one block": (program("func Add(a, b int) int { return len(make([]byte, a << 40)) }"),
                  Outcome.MEMORY),
    "flood": (program('func Add(a, b int) int { for { print("' + "flood" * 2000 + '") } }'),
              Outcome.OUTPUT_LIMIT),
    "socket": (program('func Add(a, b int) int { net.Dial("tcp", "127.0.0.1:9"); return 3 }',
                       imports="net"), Outcome.VIOLATION),
    "process": (program('func Add(a, b int) int { exec.Command("/bin/true").Run(); return 3 }',
                        imports="os/exec"), Outcome.VIOLATION),
    "unsafe": (program(GOOD + "\nvar p unsafe.Pointer", imports="unsafe"), Outcome.VIOLATION),
    "truth": (program(GOOD + "\nconst true = false"), Outcome.VIOLATION),
    "peek": (program(PEEK, imports="os"), Outcome.PASSED),
    "syntax": (program("func Add(a, b int) int { return a + }"), Outcome.COMPILE_ERROR),
    "unused import": (program(GOOD, imports="strings"), Outcome.COMPILE_ERROR),
    "unused variable": (program("func Add(a, b int) int { x := 1; return a + b }"),
                        Outcome.COMPILE_ERROR),
    "late import": (program(GOOD + '\nimport "unsafe"\nvar p unsafe.Pointer'),
                    Outcome.COMPILE_ERROR),
    "judge": (program(GOOD + "\nfunc init() { judge.Finish(true) }", imports="judge"),
              Outcome.COMPILE_ERROR),
    "internal": (program(GOOD + "\nvar x poll.FD", imports="internal/poll"),
                 Outcome.COMPILE_ERROR),
    "assert": (program(GOOD + "\nfunc assert() {}"), Outcome.COMPILE_ERROR),
    "signature": (program(GOOD + "\nfunc TestB(x int) {}"), Outcome.COMPILE_ERROR),
    "swallowed tests": (program(GOOD + "\n/*"), Outcome.COMPILE_ERROR),
    "no body": (program("func Add(a, b int) int"), Outcome.COMPILE_ERROR),
    "vet": (program("func Add(a, b int) int { return len(string(a)) + b }"),
            Outcome.COMPILE_ERROR),
    "vet of a wrong one": (program("func Add(a, b int) int { return len(string(a)) }"),
                           Outcome.WRONG_ANSWER),
    "vet printf": (program('func Add(a, b int) int { fmt.Printf("%d", "x"); return 3 }',
                           imports="fmt"), Outcome.COMPILE_ERROR),
    "vet bool": (program("func Add(a, b int) int { if a == 1 || a == 1 { return 3 }; return 0 }"),
                 Outcome.COMPILE_ERROR),
}  # fmt: skip


@pytest.fixture(scope="module")
def together(sandbox):
    verdicts = judge(sandbox, [case for case, _ in CASES.values()])
    assert not sandbox.warnings
    return dict(zip(CASES, verdicts, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_outcome(together, name):
    verdict = together[name]
    assert verdict.outcome is CASES[name][1], verdict.message
    assert (verdict.message == "") is (verdict.outcome is Outcome.PASSED)
    assert verdict.compile_seconds > 0


def test_messages_say_what_went_wrong(together):
    messages = {name: verdict.message for name, verdict in together.items()}
    assert "expected: 3\n" in messages["wrong"] and "main_test.go:5" in messages["wrong"]
    assert messages["panic"].endswith("index out of range [1] with length 0")
    assert messages["deadlock"].endswith("all goroutines are asleep - deadlock!")
    assert messages["recursion"].endswith("stack overflow")
    assert "out of memory" in messages["memory"]
    assert messages["unused import"].startswith("./main_test.go:4:8: ")
    assert '"strings"' in messages["unused import"]
    assert messages["vet"].startswith("go vet: ./main_test.go:4:")
    assert messages["no tests"] == "testing: no tests to run"


def test_verdicts_do_not_depend_on_the_batch(sandbox, together):
    names = ["right", "init exit", "signature", "wrong", "exit", "variable", "no tests"]
    for name in names:
        (verdict,) = judge(sandbox, [CASES[name][0]])
        assert (verdict.outcome, verdict.message) == (together[name].outcome,
                                                      together[name].message)  # fmt: skip


def test_canonical_solutions_pass(sandbox, rows):
    go = Go()
    few = [row for row in rows[::6] if row["task_id"] != "Go/95"]  # its own is wrong at times
    verdicts = judge(sandbox, [go.assemble(row, row["canonical_solution"]) for row in few])
    assert [v.outcome for v in verdicts] == [Outcome.PASSED] * len(few)


EQUAL = """
    assert := assert.New(t)
    var none []byte; var nothing error
    assert.Equal([]int{1}, []int{1}); assert.Equal(none, none); assert.Equal(nil, nothing)
    assert.Equal(map[string][]int{"a": {1}}, map[string][]int{"a": {1}})
    assert.NotEqual(none, []byte{}); assert.NotEqual([]int(nil), []int{}); assert.NotEqual(1, 1.0)
    assert.NotEqual(int32(1), 1); assert.EqualValues(int32(1), 1); assert.NotEqual(nil, none)
    assert.True(true); assert.False(false); assert.Nil(none); assert.NotNil(1)
    assert.NoError(nil); assert.Error(errors.New("x")); assert.Len("abc", 3)
    assert.Empty(""); assert.NotEmpty([]int{1}); assert.Contains("abc", "b")
    assert.NotContains([]int{1}, 2); assert.ElementsMatch([]int{1, 2, 1}, []int{2, 1, 1})
    assert.InDelta(1, 1.001, 0.01); assert.InEpsilon(100, 101, 0.02)
    assert.Panics(func() { panic(1) }); assert.NotPanics(func() {})
"""


def test_stand_in_of_assert_judges_as_testify(sandbox):
    wrong = [
        "assert.Equal(t, []byte(nil), []byte{})", "assert.Equal(t, []int(nil), []int{})",
        "assert.Equal(t, 1, int64(1))", "assert.Equal(t, f, f)", "assert.NotEqual(t, 1, 1)",
        "assert.EqualValues(t, \"1\", 1)", "assert.True(t, false)", "assert.Nil(t, 0)",
        "assert.Error(t, nil)", "assert.Len(t, 5, 1)", "assert.Contains(t, []int{1}, 2)",
        "assert.ElementsMatch(t, []int{1, 1}, []int{1, 2})", "assert.InDelta(t, 1, 2, 0.5)",
        "assert.InDelta(t, \"1\", \"1\", 0.5)", "assert.Panics(t, f)",
    ]  # fmt: skip
    programs = [program("var _ = errors.New", EQUAL, imports="errors")]
    programs += [program("func f() {}", f"{text}; _ = f") for text in wrong]
    verdicts = judge(sandbox, programs)
    assert verdicts[0].outcome is Outcome.PASSED, verdicts[0].message
    assert [v.outcome for v in verdicts[1:]] == [Outcome.WRONG_ANSWER] * len(wrong)


# Toolchain ---------------------------------------------------------------------------------


def test_missing_and_old_toolchains_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(go_tools, "find_go", lambda: None)
    assert Go().toolchain().missing == (("go", go_tools.INSTALL),)
    with pytest.raises(GeexError, match="not installed"):
        Go().prepare(tmp_path)
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go version go1.17.1 linux/amd64\n")
    old.chmod(0o755)
    monkeypatch.setattr(go_tools, "find_go", lambda: str(old))
    assert Go().toolchain().missing[0][0] == "go 1.18 or newer"
    old.write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
    with pytest.raises(GeexError, match="it is broken"):
        Go().prepare(tmp_path)
