"""C++: programs as the reference's, verdicts as g++'s, and no way to "passed" but the tests."""

import gzip
import json
import shutil
import subprocess

import pytest

from geex_jax.benchmark import mutants
from geex_jax.benchmark.languages import cpp, cpp_tools
from geex_jax.benchmark.languages.cpp import Cpp, with_proof
from geex_jax.benchmark.languages.cpp_forks import split_lead
from geex_jax.benchmark.languages.types import Limits, Outcome, Program
from geex_jax.benchmark.sandbox.client import Sandbox

LANGUAGE = Cpp()
LIMITS = Limits(cpu_seconds=1, wall_seconds=5, compile_seconds=6, memory_bytes=1 << 29)
TEST = (
    "#undef NDEBUG\n#include<assert.h>\nint main(){\n    assert (add(2, 3) == 5);\n"
    "    assert (add(1, 1) == 2);\n}\n"
)
PROBLEM = {
    "task_id": "CPP/0", "prompt": "/*\nAdd.\n*/\n#include<stdio.h>\n#include<vector>\n"
    "using namespace std;\nint add(int x,int y){\n", "test": TEST,
}  # fmt: skip
NINE = [
    "stdlib.h", "algorithm", "math.h", "stdio.h", "vector", "string", "climits", "cstring",
    "iostream",
]  # fmt: skip

needs_tools = pytest.mark.skipif(
    bool(LANGUAGE.toolchain().missing), reason=f"not installed: {LANGUAGE.toolchain().missing}"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def box(cache):
    with Sandbox(Cpp(), cache) as sandbox:
        assert sandbox.warnings == []  # the fork servers work
        yield sandbox


@pytest.fixture(scope="module")
def rows(shared):
    path = shared / "humaneval-x" / "humaneval_cpp.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no {path}")
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def judge(box, codes, problem=PROBLEM, limits=LIMITS):
    found = dict(box.judge([LANGUAGE.assemble(problem, code) for code in codes], limits))
    return [found[i] for i in range(len(codes))]


def one(box, code, **options):
    return judge(box, [code], **options)[0]


class FakeChannel:
    fd, first, second = 77, 111, 222


# Text ------------------------------------------------------------------------------------


def test_program_is_the_reference_s_to_the_letter():
    program = LANGUAGE.assemble(PROBLEM, "    return x + y;\n}")
    lacking = [x for x in NINE if x not in ("stdio.h", "vector")]
    assert program.text == (
        "".join(f"#include<{x}>\n" for x in lacking) + "\n" + PROBLEM["prompt"]
        + "    return x + y;\n}\n" + TEST
    )  # fmt: skip
    assert program.test == TEST and program.options == ()


def test_all_given_programs_are_the_reference_s(rows):
    for row in rows:
        program = LANGUAGE.assemble(row, row["canonical_solution"])
        head = "".join(f"#include<{x}>\n" for x in NINE if f"#include<{x}>" not in row["prompt"])
        assert program.text == f"{head}\n{row['prompt']}{row['canonical_solution']}\n{row['test']}"
        wanted = ("-lcrypto", "-lssl") if row["task_id"] == "CPP/162" else ()
        assert program.options == wanted
        # None of them is left to plain g++.
        headers, _ = split_lead(program.code)
        assert headers.issuperset(NINE), row["task_id"]


@pytest.mark.parametrize(
    ("code", "finished"),
    [("  return 1;\n}", True), ("  if (x) {\n  }\n", False), ("", False), ("}\n}", False)],
)
def test_a_completion_ends_with_the_function(code, finished):
    assert LANGUAGE.is_finished(code) is finished


def test_clean_cuts_behind_the_last_brace():
    assert LANGUAGE.clean("  return 1;\n}\n\nint ma") == "  return 1;\n}"
    assert LANGUAGE.clean("  return 1;") == "  return 1;"


def test_lead_stops_at_the_first_code():
    code = "#include<map>\n// a\n/* b\n#include<set> */\n#include<vector>\nint i;\n#include<list>\n"
    headers, rest = split_lead(code)
    assert headers == {"map", "vector"}
    assert rest == code.replace("#include<vector>", "")


def test_line_comment_that_goes_on_ends_the_lead():
    assert split_lead("// a \\\n#include<vector>\n")[0] == frozenset()


def test_proof_keeps_the_lines_and_needs_the_head_of_main():
    marked = with_proof(TEST, FakeChannel())
    lines, before = marked.split("\n"), TEST.split("\n")
    assert len(lines) == len(before)
    assert lines[1] == '#include "tests.hpp"' and lines[3:5] == before[3:5]
    name = lines[2].removeprefix("enum{").partition("=")[0]
    assert lines[2] == f"enum{{{name}=111}};int main(){{"
    assert lines[5] == f"::__geex::__geex_done(77,{name},222);}}"
    assert name not in with_proof(TEST, FakeChannel())


def test_proof_stands_before_a_last_return():
    assert "222);return 0; }" in with_proof("int main() { f(); return 0; }\n", FakeChannel())


@needs_tools
def test_commands_are_taken_apart():
    parts = cpp_tools.commands(cpp_tools.driver())
    assert parts.compile[0].endswith("cc1plus") and "-std=c++11" in parts.compile
    assert "sample.cpp" not in parts.compile and "-o" not in parts.compile
    assert parts.assemble[0].startswith("/") and "-o" not in parts.assemble
    assert not any("plugin" in x for x in parts.link_head)
    assert any(x.endswith("crtn.o") for x in parts.link_tail) and "-lstdc++" in parts.link_tail


def test_missing_compiler_is_said(monkeypatch):
    monkeypatch.setattr(cpp_tools, "driver", lambda: None)
    monkeypatch.setenv("PATH", "/nowhere")
    missing = LANGUAGE.toolchain().missing
    assert ("g++", "apt-get install g++") in missing


# Verdicts --------------------------------------------------------------------------------

KINDS = {
    "    return x + y;\n}": Outcome.PASSED,
    "    printf(\"passed\"); cout << x; cerr << y; return x + y;\n}": Outcome.PASSED,
    "    return x - y;\n}": Outcome.WRONG_ANSWER,
    "    return z;\n}": Outcome.COMPILE_ERROR,
    "": Outcome.COMPILE_ERROR,
    "    return vector<int>(x).at(9);\n}": Outcome.RUNTIME_ERROR,
    "    int *p = 0; return *p;\n}": Outcome.RUNTIME_ERROR,
    "    return add(x + 1, y) + add(x, y);\n}": Outcome.RUNTIME_ERROR,
    "    for (volatile int i = 0;;) i = i + 1;\n}": Outcome.TIMEOUT,
    "    string s(1L << 33, 'x'); return s.size();\n}": Outcome.MEMORY,
    "    for (;;) puts(\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\");\n}": Outcome.OUTPUT_LIMIT,
    "    return x + y;\n}\nint g();\nint h() { return g(); }": Outcome.COMPILE_ERROR,
    "    return x + y;\n}\nint main() { return 0; }": Outcome.COMPILE_ERROR,
    "    asm(\"nonsense\"); return x + y;\n}": Outcome.COMPILE_ERROR,
    # What only plain g++ decides.
    "    return x + y;\n}\nstruct K {};\nnamespace std { template <> struct hash<K> {}; }":
        Outcome.PASSED,
    "    return x + y;\n}\n#pragma GCC optimize(\"O2\")": Outcome.PASSED,
    "    return x - y;\n}\n#pragma GCC optimize(\"O2\")": Outcome.WRONG_ANSWER,
    "    return x + z;\n}\n#pragma GCC optimize(\"O2\")": Outcome.COMPILE_ERROR,
}  # fmt: skip


@needs_tools
def test_every_class_of_verdict_alone_and_among_others(box):
    verdicts = judge(box, list(KINDS))
    wrong = [
        (code, verdict.outcome, verdict.message)
        for (code, wanted), verdict in zip(KINDS.items(), verdicts, strict=True)
        if verdict.outcome is not wanted
    ]
    assert not wrong
    again = [one(box, code).outcome for code in reversed(KINDS)]
    assert again[::-1] == [x.outcome for x in verdicts]


@needs_tools
def test_messages_name_lines_of_the_program(box):
    wrong, broken, unlinked = judge(box, [
        "    return x - y;\n}", "    return z;\n}", "    int g(); return g();\n}",
    ])  # fmt: skip
    text = LANGUAGE.assemble(PROBLEM, "    return x - y;\n}").text.split("\n")
    line = text.index("    assert (add(2, 3) == 5);") + 1
    assert wrong.message == f"sample.cpp:{line}: main: Assertion `add(2, 3) == 5' failed."
    line = text.index("    return x - y;") + 1
    assert broken.message.startswith(f"sample.cpp:{line}:12: error: 'z' was not declared".replace(
        "'z'", "\N{LEFT SINGLE QUOTATION MARK}z\N{RIGHT SINGLE QUOTATION MARK}"))  # fmt: skip
    assert f"{line} |     return z;" in broken.message  # the line itself is shown
    assert "undefined reference to `g()'" in unlinked.message
    assert broken.compile_seconds > 0 and wrong.memory_bytes > 0


@needs_tools
def test_a_program_sees_the_headers_that_it_includes_and_no_others(box):
    uses = "    {} a; return a.empty() ? x + y : 0;\n}}"
    names = ("map<int, int>", "set<int>", "list<int>", "unordered_map<int, int>")
    assert {x.outcome for x in judge(box, [uses.format(n) for n in names])} == {
        Outcome.COMPILE_ERROR
    }
    # So often that a compiler which has read <map> is started; it serves none of the others.
    mapped = {**PROBLEM, "prompt": "#include<map>\n" + PROBLEM["prompt"]}
    for _ in range(4):
        with_map = [one(box, uses.format(names[0]), problem=mapped).outcome for _ in range(2)]
        assert with_map == [Outcome.PASSED] * 2
        assert one(box, uses.format(names[0])).outcome is Outcome.COMPILE_ERROR
        assert one(box, uses.format(names[1]), problem=mapped).outcome is Outcome.COMPILE_ERROR


SAMPLES = {
    "instances": """
        vector<vector<string>> a(x, vector<string>(y, "a")); a.push_back({"b"});
        vector<float> b = {1, 2}; sort(b.rbegin(), b.rend());
        vector<long long> c(b.begin(), b.end()); c.insert(c.begin(), 2, 7); a.erase(a.begin());
        return a.size() + (c.size() == 4 && c[2] == 2 ? y : 0);
    }""",
    "exceptions": """
        try { vector<int>().at(1); } catch (const exception &e) { return x + y; }
        return 0;
    }""",
    "statics": "    static vector<int> v(1, x); v[0] = x; return v.size() * v[0] + y;\n}",
    "virtual": """
        struct A { virtual int f() { return 0; } virtual ~A() {} };
        struct B : A { int s; B(int s) : s(s) {} int f() { return s; } };
        A *a = new B(x + y); int r = dynamic_cast<B *>(a) ? a->f() : 0; delete a; return r;
    }""",
    "own new": "    vector<int> v(3); v.resize(99); return x + y + (news > 1 ? 0 : 1);\n}",
    "files": """
        FILE *f = fopen("/tmp/x", "w"); fprintf(f, "%d", x + y); fclose(f);
        int n; f = fopen("/tmp/x", "r"); fscanf(f, "%d", &n); fclose(f); return n;
    }""",
}


@needs_tools
def test_language_features_work_as_compiled_by_g(box):
    before = "static int news;\nvoid *operator new(size_t n) { news++; return malloc(n); }\n"
    own = {**PROBLEM, "prompt": PROBLEM["prompt"].replace("int add", before + "int add")}
    for name, code in SAMPLES.items():
        verdict = one(box, code, problem=own if name == "own new" else PROBLEM)
        assert verdict.outcome is Outcome.PASSED, (name, verdict.message)


# Attacks ---------------------------------------------------------------------------------

_SEVEN = "    return 7;\n}\n"
ATTACKS = {
    "exit": _SEVEN + "struct S { S() { exit(0); } } s;",
    "quick_exit": _SEVEN + "struct S { S() { quick_exit(0); } } s;",
    "destructor": _SEVEN + "__attribute__((destructor)) void f() { _Exit(0); }",
    "define assert": _SEVEN + "#define NDEBUG\n#define assert(x)",
    "guard of assert.h": _SEVEN + "#define _ASSERT_H 1\n#define assert(x)",
    "continued comment": _SEVEN + "#define NDEBUG\n#define assert(x)\n// \\",
    "define __assert_fail": _SEVEN + "#define __assert_fail(...) (void)0",
    "own __assert_fail": _SEVEN + 'extern "C" void __assert_fail(const char *, const char *, '
    "unsigned, const char *) throw() {}",
    "better overload": _SEVEN + "void __assert_fail(const char *, const char *, int, "
    "const char *) {}",
    "own abort": _SEVEN + 'extern "C" void abort() throw() { _Exit(0); }',
    "SIGABRT": "    signal(SIGABRT, [](int) { _Exit(0); }); return 7;\n}",
    "SIGABRT ignored": "    signal(SIGABRT, SIG_IGN); return 7;\n}",
    "local geex_fail": _SEVEN + 'static void f(const char *, const char *, int, const char *) '
    '__asm__("ge" "ex_fail");\nstatic void f(const char *, const char *, int, const char *) {}\n'
    "void *used = (void *)f;",
    "alias": _SEVEN + 'extern "C" void f() {}\nstatic void g() __asm__("geex_fail") '
    '__attribute__((alias("f")));\nvoid *used = (void *)g;',
    "assembler macro": _SEVEN + 'asm(".macro call target\\n.endm");',
    "assembler name": _SEVEN + 'int v __asm__("v\\n.macro call target\\n.endm\\nw") = 1;',
    "assembler section": _SEVEN + "__attribute__((section("
    '".data\\n.macro call target\\n.endm\\n.data"))) int v = 1;',
    "void": _SEVEN + "#define void int",
    "__geex": _SEVEN + "#define __geex X\nstruct X { static int __geex_fail(const char *) "
        "{ return 0; } static int __geex_done(int, int, int) { return 0; } };",
    "__geex_fail": _SEVEN + "#define __geex_fail(...) __geex_nothing()",
    "own geex_fail": _SEVEN + 'extern "C" void geex_fail(const char *, const char *, int, '
        "const char *) {}",
    "weak geex_fail": _SEVEN + 'extern "C" __attribute__((weak)) void geex_fail(const char *, '
        "const char *, int, const char *) {}",
    "done early": _SEVEN + "struct S { S() { for (int i = 3; i < 256; i++) "
        "::__geex::__geex_done(i, 1, 2); _Exit(0); } } s;",
    "tests.hpp early": _SEVEN + '#include "tests.hpp"\n#undef assert\n#define assert(x)\n#define '
        "_ASSERT_H",
    "own main": _SEVEN + "int main() {}\n#if 0",
    "comment": _SEVEN + "int main() {}\n/*",
    "raw string": _SEVEN + 'int main() {}\nconst char *s = R"x(',
    "raw string that ends": _SEVEN + 'int main() { string s = R"(',
    "main": _SEVEN + "int main() {}\n#define main other",
    "static main": _SEVEN + "int main(int, char **) {}\n#define main other",
    "int": _SEVEN + "#define int int main() {} int",
    "enum": _SEVEN + "#define enum struct",
    "poison": _SEVEN + "#pragma GCC poison assert",
    "macro with return": _SEVEN + "#define add(a, b) 7); return 0; ((void)0",
    "brace": _SEVEN + "struct Q {",
    "namespace": _SEVEN + "namespace q {",
    "catch": _SEVEN + "int tests();\nint main() { try { tests(); } catch (...) {} return 0; }\n"
        "#define main tests",
    "write": _SEVEN + 'extern "C" ssize_t write(int, const void *, size_t n) { return n; }\n'
        'struct S { S() { puts("333"); } } s;',
    "descriptors": _SEVEN + "#include <unistd.h>\nstruct S { S() { for (int i = 3; i < 999; i++) "
        'for (int k = 0; k < 99; k++) dprintf(i, "%d", rand()); } } s;',
    "close all": "    closefrom(0); return 7;\n}",
    "fork": "    return fork() ? 7 : 5;\n}",
}  # fmt: skip


@needs_tools
def test_no_attack_passes(box):
    head = "#include<unistd.h>\n#include<signal.h>\n"
    tests = TEST.replace(
        "    assert (add(1", '    assert (string(")").size() == 1);\n    assert (add(1'
    )
    problem = {**PROBLEM, "prompt": head + PROBLEM["prompt"], "test": tests}
    good = "    return x + y;\n}"
    *verdicts, last = judge(box, [*ATTACKS.values(), good], problem=problem)
    assert last.outcome is Outcome.PASSED
    by_name = dict(zip(ATTACKS, verdicts, strict=True))
    assert not [name for name, v in by_name.items() if v.outcome is Outcome.PASSED]
    for name in ("define assert", "guard of assert.h", "continued comment", "own abort", "SIGABRT",
                 "SIGABRT ignored", "better overload", "own __assert_fail", "void"):  # fmt: skip
        assert by_name[name].outcome is Outcome.WRONG_ANSWER, (name, by_name[name])


BOMBS = {
    "templates": "template <int N> struct A { typename A<N - 1>::t a, b; typedef A t; };\n"
    "template <int N, class... T> struct B { typedef typename B<N - 1, T..., T..., int>::t t; };"
    "\ntemplate <class... T> struct B<0, T...> { typedef int t; };\nB<30>::t zero;",
    "constant": "int big[1L << 40] = {1};",
    "device": '#include "/dev/zero"',
    "itself": "#include __FILE__",
    "secrets": '#include "/etc/shadow"\n#include "/proc/self/environ"',
    "nesting": "int deep = " + "(" * 200_000 + "1" + ")" * 200_000 + ";",
}  # fmt: skip


@needs_tools
def test_compile_bombs_hurt_nobody(box):
    good, wrong = "    return x + y;\n}\n", "    return x - y;\n}\n"
    codes = [x for bomb in BOMBS.values() for x in (good + bomb, good, wrong)]
    limits = Limits(cpu_seconds=1, wall_seconds=5, compile_seconds=2, memory_bytes=1 << 28)
    outcomes = [x.outcome for x in judge(box, codes, limits=limits)]
    assert set(outcomes[::3]) <= {Outcome.COMPILE_ERROR, Outcome.TIMEOUT}
    assert outcomes[1::3] == [Outcome.PASSED] * len(BOMBS)
    assert outcomes[2::3] == [Outcome.WRONG_ANSWER] * len(BOMBS)


# The slower ways -------------------------------------------------------------------------


@needs_tools
@pytest.mark.parametrize("broken", ["commands.json", "cc1plus", "linkers"])
def test_plain_compiler_where_forks_do_not_work(broken, box, cache, tmp_path):
    shutil.copytree(cache, tmp_path / "cache")
    folder = tmp_path / "cache" / "cpp" / (cache / "cpp" / "current").read_text()
    path = folder / "commands.json"
    if broken == "commands.json":
        path.unlink()
        (folder / "why").write_text("because")
    else:
        parts = json.loads(path.read_text())
        if broken == "linkers":
            parts["linkers"] = ["/bin/false"]
        else:
            parts["compile"] = ["/bin/true"]
        path.write_text(json.dumps(parts))
    codes = [list(KINDS)[i] for i in (0, 2, 3)]
    with Sandbox(Cpp(), tmp_path / "cache") as sandbox:
        assert len(sandbox.warnings) == 1 and "one g++ for each program" in sandbox.warnings[0]
        assert [x.outcome for x in judge(sandbox, codes)] == [KINDS[x] for x in codes]


@needs_tools
def test_helpers_are_built_once(cache, box):
    before = sorted((p, p.stat().st_mtime_ns) for p in (cache / "cpp").rglob("*.gch"))
    Cpp().prepare(cache / "cpp")
    assert before == sorted((p, p.stat().st_mtime_ns) for p in (cache / "cpp").rglob("*.gch"))
    assert len(before) == len(cpp_tools.PREFIXES)


# The data --------------------------------------------------------------------------------


@needs_tools
def test_canonical_solutions_pass(box, rows):
    some = [x for i, x in enumerate(rows) if i % 5 == 0 or i in (22, 95, 137, 160, 162)]
    programs = [LANGUAGE.assemble(x, x["canonical_solution"]) for x in some]
    failed = [(some[i]["task_id"], v.message) for i, v in box.judge(programs, Limits())
              if v.outcome is not Outcome.PASSED]  # fmt: skip
    assert not failed


def plain(program: Program, folder) -> str:
    (folder / "test.cpp").write_text(program.text)
    command = ["g++", "-std=c++11", "test.cpp", *program.options]
    if subprocess.run(command, cwd=folder, capture_output=True).returncode:
        return "compile error"
    run = subprocess.run(["./a.out"], cwd=folder, capture_output=True, timeout=60)
    return "passed" if run.returncode == 0 else "failed"


@needs_tools
def test_same_verdicts_as_plain_compiler(box, rows, tmp_path):
    mixed = mutants.mix(rows[:8], "cpp", 8, 5)
    programs = [LANGUAGE.assemble(row, code) for row, code, _ in mixed]
    found = dict(box.judge(programs, Limits()))
    known = {Outcome.PASSED: "passed", Outcome.COMPILE_ERROR: "compile error"}
    mine = [known.get(found[i].outcome, "failed") for i in range(len(programs))]
    assert mine == [plain(x, tmp_path) for x in programs]
    assert len(set(mine)) == 3  # all kinds were among them


def test_a_missing_library_leaves_its_programs_out(monkeypatch):
    monkeypatch.setattr(cpp, "_FOLDERS", ("/nowhere",))
    tools = LANGUAGE.toolchain()
    assert not tools.missing and len(tools.advice) == 2
    program = Program("#include<boost/any.hpp>\n", "int main(){}\n")
    (_, verdict), *rest = LANGUAGE.judge(None, [program], Limits())
    assert not rest and verdict.outcome is Outcome.NOT_RUN
    assert "apt-get install libboost-dev" in verdict.message
