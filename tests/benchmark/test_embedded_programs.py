"""Every emitted solution passes its own tests in every language, by plain toolchains.

Many programs go into one process or compilation unit: this is about the programs, not about how
the judge builds them.
"""

import os
import re
import shutil
import subprocess

import pytest

from geex_jax.benchmark.embedded import LEVELS, SPLITS, generate

EACH = 3  # tasks of each level and split
TESTS = ("test", "example_test")


@pytest.fixture(scope="module")
def tasks():
    return [t for level in LEVELS for split in SPLITS for t in generate(11, EACH, level, split)]


def tool(*names):
    places = os.pathsep.join((os.environ.get("PATH", ""), os.path.expanduser("~/.cargo/bin")))
    paths = [shutil.which(name, path=places) for name in names]
    if None in paths:
        pytest.skip(f"no {names[paths.index(None)]} here")
    return paths


def run(*command, cwd):
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, (done.stderr or done.stdout)[:4000]
    assert not done.stderr, done.stderr[:4000]
    return done.stdout


def each(tasks, language):
    """(a number, row, name of the tests, tests) of every program."""
    for i, task in enumerate(tasks):
        row = task.row(language)
        for j, which in enumerate(TESTS):
            yield 2 * i + j, row, row[which]


def spoiled(text, pattern):
    """Tests whose first expected value is another: they must fail, or this file checks nothing."""
    changed, count = re.subn(pattern, r"\g<1>12345", text, count=1)
    assert count == 1
    return changed


def test_python(tasks):
    for _, row, tests in each(tasks, "python"):
        exec(compile(row["prompt"] + row["canonical_solution"] + "\n" + tests, "task", "exec"), {})


def test_python_tests_can_fail(tasks):
    row = tasks[0].row("python")
    for tests in (row["test"], row["example_test"]):
        text = row["prompt"] + row["canonical_solution"] + "\n"
        with pytest.raises(AssertionError):
            exec(text + spoiled(tests, r"( == ).*"), {})


def test_javascript(tasks, tmp_path):
    (node,) = tool("node")
    parts = ['"use strict"']
    for i, row, tests in each(tasks, "javascript"):
        text = row["prompt"] + row["canonical_solution"] + "\n" + tests
        # In a block of its own; a failed assertion would print.
        parts.append(f"{{ const number = {i};\n{text} }}")
    (tmp_path / "a.js").write_text("\n".join(parts))
    assert run(node, "a.js", cwd=tmp_path) == ""


def test_cpp(tasks, tmp_path):
    (gxx,) = tool("g++")
    headers = "stdlib.h algorithm math.h stdio.h vector string climits cstring iostream map sstream"
    parts = [f"#include<{h}>" for h in headers.split()]
    parts += ["#undef NDEBUG", "#include<assert.h>", "using namespace std;"]
    calls = []
    for i, row, tests in each(tasks, "cpp"):
        text = row["prompt"] + row["canonical_solution"] + "\n" + tests
        text = re.sub(r"^#.*$|^using namespace std;$", "", text, flags=re.MULTILINE)
        parts.append(f"namespace t{i} {{\n{text.replace('int main(', 'void run(')}\n}}")
        calls.append(f"t{i}::run();")
    (tmp_path / "a.cpp").write_text("\n".join(parts) + "\nint main(){" + "".join(calls) + "}\n")
    run(gxx, "-std=c++11", "-w", "-O0", "a.cpp", "-o", "a.out", cwd=tmp_path)
    run("./a.out", cwd=tmp_path)


def test_cpp_prompts_include_what_the_solution_needs(tasks, tmp_path):
    (gxx,) = tool("g++")
    row = next(r for t in tasks for r in [t.row("cpp")] if "stringstream" in r["prompt"]
               or "stringstream" in r["canonical_solution"])  # fmt: skip
    (tmp_path / "a.cpp").write_text(row["prompt"] + row["canonical_solution"] + row["test"])
    run(gxx, "-std=c++11", "-w", "-O0", "a.cpp", "-o", "a.out", cwd=tmp_path)
    run("./a.out", cwd=tmp_path)


def test_java(tasks, tmp_path):
    javac, java = tool("javac", "java")
    parts, calls = ["import java.util.*;"], []
    for i, row, tests in each(tasks, "java"):
        text = row["prompt"] + row["canonical_solution"] + "\n" + tests
        text = re.sub(r"^import .*$", "", text, flags=re.MULTILINE)
        text = text.replace("public class Main", f"class Main{i}")
        parts.append(re.sub(r"\bSolution\b", f"Solution{i}", text))
        calls.append(f"        Main{i}.main(null);")
    parts += ["public class Main {", "    public static void main(String[] args) {", *calls, "}}"]
    (tmp_path / "Main.java").write_text("\n".join(parts))
    run(javac, "-nowarn", "-d", "out", "Main.java", cwd=tmp_path)
    run(java, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", "out", "Main", cwd=tmp_path)


ASSERT = """package assert
import ("fmt"; "os"; "reflect")
type Assertions struct{}
func New(t interface{}) *Assertions { return &Assertions{} }
func (a *Assertions) Equal(x, y interface{}, m ...interface{}) bool {
    if !reflect.DeepEqual(x, y) { fmt.Println("not equal:", x, y); os.Exit(1) }
    return true
}
"""


def test_go(tasks, tmp_path):
    (go,) = tool("go")
    (tmp_path / "assert").mkdir()
    (tmp_path / "assert" / "assert.go").write_text(ASSERT)
    (tmp_path / "go.mod").write_text("module m\n\ngo 1.18\n")
    parts, calls, packages = [], [], {"testing", "m/assert"}
    for i, row, tests in each(tasks, "go"):
        imported = set(re.findall(r'"(.+)"', row["import"]))
        body = row["canonical_solution"]
        assert imported == {p for p in ("math", "sort", "strconv", "strings") if f"{p}." in body}
        packages |= imported
        name = re.search(r"func (\w+)\(", row["declaration"])[1]
        text = row["docstring"] + row["declaration"] + body + "\n" + tests
        parts.append(re.sub(rf"\b(Test)?{name}\b", rf"\g<0>{i}", text))
        calls.append(f"    Test{name}{i}(nil)")
    head = ["package main", "import (", *(f'    "{p}"' for p in sorted(packages)), ")"]
    (tmp_path / "main.go").write_text(
        "\n".join([*head, *parts, "func main() {", *calls, "}"]) + "\n"
    )
    run(go, "vet", ".", cwd=tmp_path)
    run(go, "run", "main.go", cwd=tmp_path)


def test_rust(tasks, tmp_path):
    (rustc,) = tool("rustc")
    parts = ["#![allow(warnings)]"]
    for i, row, tests in each(tasks, "rust"):
        text = row["declaration"] + row["prompt"] + row["canonical_solution"] + tests
        parts.append(f"mod t{i} {{\n{text}\n}}")
    (tmp_path / "a.rs").write_text("\n".join(parts))
    run(rustc, "--test", "--edition", "2021", "-Cdebuginfo=0", "a.rs", "-o", "a", cwd=tmp_path)
    out = run("./a", "--test-threads", "1", cwd=tmp_path)
    assert f"{2 * len(tasks)} passed; 0 failed" in out
