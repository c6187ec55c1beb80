"""Java: assembly, javac as a service, programs that try to pass without being right."""

import gzip
import json
import random
import re
import subprocess

import pytest

from geex_jax.benchmark.languages import java_tools
from geex_jax.benchmark.languages.java import Java
from geex_jax.benchmark.languages.types import Limits, Outcome, Program
from geex_jax.benchmark.sandbox.client import Sandbox
from geex_jax.errors import GeexError

LIMITS = Limits(cpu_seconds=1, wall_seconds=3, compile_seconds=3, memory_bytes=1 << 29)
PROBLEM = {
    "task_id": "Java/0",
    "prompt": "import java.util.*;\nimport java.lang.*;\n\nclass Solution {\n"
              "    public int add(int a, int b) {\n",
    "test": "public class Main {\n    public static void main(String[] args) {\n"
            "        Solution s = new Solution();\n"
            "        List<Boolean> correct = Arrays.asList(s.add(1, 2) == 3, s.add(2, 2) == 4);\n"
            "        if (correct.contains(false)) {\n            throw new AssertionError();\n"
            "        }\n    }\n}\n",
}  # fmt: skip
LYING_ARRAYS = "class Arrays { static <T> List<T> asList(T... x) { return new ArrayList<>(); } }"
GOOD = "return a + b;"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def sandbox(cache):
    if Java().toolchain().missing:
        pytest.skip("Java is not installed")
    try:
        box = Sandbox(Java(), cache)
    except GeexError as error:
        pytest.skip(str(error))
    with box:
        yield box


@pytest.fixture(scope="module")
def rows(shared):
    with gzip.open(shared / "humaneval-x/humaneval_java.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def program(body, after="", before=""):
    """A program whose add() has this body, with text before it and after its class."""
    done = Java().assemble(PROBLEM, f"{body}\n    }}\n}}\n{after}")
    return Program(before + done.code, done.test)


def judge(sandbox, *programs, limits=LIMITS):
    verdicts = dict(sandbox.judge(programs, limits))
    assert sorted(verdicts) == list(range(len(programs)))
    return [verdicts[i] for i in range(len(programs))]


def outcomes(sandbox, programs, limits=LIMITS):
    """name -> outcome. Each program has a good neighbour, which must not notice."""
    some = [x for one in programs.values() for x in (one, program(GOOD))]
    found = judge(sandbox, *some, limits=limits)
    assert {v.outcome for v in found[1::2]} == {Outcome.PASSED}
    return dict(zip(programs, (v.outcome for v in found[::2]), strict=True))


# On the host ---------------------------------------------------------------------------------


def test_assembly_is_the_references():
    done = Java().assemble(PROBLEM, "        return 1;\n    }\n}")
    assert done.text == (
        PROBLEM["prompt"] + "        return 1;\n    }\n}" + "\n" + PROBLEM["test"]
    )  # fmt: skip
    assert (done.test, done.task_id, done.options) == (PROBLEM["test"], "Java/0", ())


def test_a_completion_is_over_when_it_closes_the_method():
    java = Java()
    assert java.is_finished("        if (a) { return 1; }\n        return 2;\n    }")
    assert not java.is_finished("        if (a) { return 1; }")
    assert not java.is_finished("        return 1;\n    }\n}")


@pytest.mark.parametrize(
    ("code", "cleaned"),
    [
        ("        return 1;\n    }", "        return 1;\n    }\n}"),
        ("        return 1;\n    }\n}", "        return 1;\n    }\n}"),
        ("        return 1;\n    }\n}\n// more", "        return 1;\n    }\n}"),
        ("    return 1; }\n    public static void main(String[] a) { f(); }\n}",
         "    return 1; }\n    }"),
        ("        return 1;", "        return 1;"),
    ],
)  # fmt: skip
def test_clean_up_is_the_references(code, cleaned):
    assert Java().clean(code) == cleaned


def test_an_old_or_missing_jdk_is_told_with_its_remedy(monkeypatch):
    lines = {"javac": "javac 1.8.0_392", "java": None}
    monkeypatch.setattr("geex_jax.benchmark.languages.java.version", lambda x: lines[x[0]])
    found = Java().toolchain()
    assert found.versions == {}
    assert [how for _, how in found.missing] == ["apt-get install openjdk-17-jdk-headless"] * 2
    lines |= {"javac": "javac 21.0.1", "java": 'openjdk version "21.0.1" 2023-10-17'}
    assert not Java().toolchain().missing
    monkeypatch.setenv("PATH", "")
    with pytest.raises(GeexError, match="no javac; apt-get install"):
        java_tools.home("javac")


def test_the_heap_fits_into_the_memory_of_a_run():
    tools = java_tools.Tools([], [], "", ("", ""), "/x/run.jsa", [])
    options = tools.run_options(2 << 30, 5)
    assert "-Xmx1728m" in options and "-XX:TieredStopAtLevel=1" in options
    assert "-XX:SharedArchiveFile=/x/run.jsa" in options
    assert "-Xmx128m" in tools.run_options(256 << 20, 5)
    assert "-XX:TieredStopAtLevel=1" not in tools.run_options(2 << 30, 60)


def test_what_is_built_is_built_once(sandbox, cache):
    folder = cache / "java"
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.name != ".lock"}
    assert {p.name for p in before} >= {"server.jar", "java_run", "run.jsa", "server.jsa"}
    Java().prepare(folder)
    assert {p: p.stat().st_mtime_ns for p in before} == before


# Verdicts ------------------------------------------------------------------------------------


def test_classes_of_outcomes(sandbox):
    wanted = {
        GOOD: Outcome.PASSED,
        "return a - b;": Outcome.WRONG_ANSWER,
        "return a + ;": Outcome.COMPILE_ERROR,
        "return missing;": Outcome.COMPILE_ERROR,
        "int[] x = new int[1]; return x[a];": Outcome.RUNTIME_ERROR,
        "return add(a, b) + 1;": Outcome.RUNTIME_ERROR,
        "return new Scanner(System.in).nextInt();": Outcome.RUNTIME_ERROR,
        "while (a > 0) { } return 3;": Outcome.TIMEOUT,
        "while (a > 0) { System.out.println(s); } return 3;": Outcome.OUTPUT_LIMIT,
        "List<long[]> l = new ArrayList<>(); while (a > 0) l.add(new long[1 << 18]); return 3;":
            Outcome.MEMORY,
    }  # fmt: skip
    start = 'String s = "a".repeat(999); '
    found = outcomes(sandbox, {body: program(start + body) for body in wanted})
    assert found == wanted
    assert sandbox.warnings == []


def test_messages_are_those_of_java_and_javac(sandbox):
    wrong, error = judge(sandbox, program("return a - b;"), program("return a +;"))
    assert wrong.message.startswith(
        'Exception in thread "main" java.lang.AssertionError\n\tat Main'
    )
    assert error.message == (
        "Main.java:6: error: illegal start of expression\nreturn a +;\n          ^"
    )  # fmt: skip
    assert wrong.cpu_seconds > 0 and wrong.compile_seconds > 0 and wrong.memory_bytes > 1 << 20
    assert error.cpu_seconds == 0 and error.compile_seconds > 0


def test_programs_as_java_has_them(sandbox):
    bodies = {
        "assertions are off": program("assert a > 100; return a + b;"),
        "subclass first": program("return new B1().f(a, b);", "class B1 extends A1 implements I1 { "
                                  "}\nclass A1 { int f(int a, int b) { return a + b; } }\n"
                                  "interface I1 { }"),
        "records and enums": program("return new P(a, b).sum();", "record P(int a, int b) { int "
                                     "sum() { return a + b; } }\nenum E { A, B { } }"),
        "lambdas": program("return java.util.stream.IntStream.of(a, b).map(x -> x).sum();"),
        "other letters": program("String \u00e9 = \"\u00fc\u20ac\"; return \u00e9.length() == 2 && "
                                 "\u00e9.getBytes().length == 5 ? a + b : 0;"),
        "deep recursion": program("return down(4000) + a + b;").text,
        "writes a file": program("try { java.io.FileWriter w = new java.io.FileWriter(\"x\"); "
                                 "w.write(\"a\"); w.close(); } catch (java.io.IOException e) { "
                                 "return 0; } return a + b;"),
        "reads a file": program('try { java.nio.file.Files.readString(java.nio.file.Path.of("/etc'
                                '/passwd")); } catch (java.io.IOException e) { return 0; } return '
                                "a + b;"),
        "daemon thread": program("Thread t = new Thread(() -> { while (true) { } }); "
                                 "t.setDaemon(true); t.start(); return a + b;"),
        "hook": program("Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("
                        "1))); return a + b;"),
    }  # fmt: skip
    text = bodies["deep recursion"].replace(
        "    public int add", "    int down(int n) { return n == 0 ? 0 : down(n - 1); }\n"
        "    public int add")  # fmt: skip
    bodies["deep recursion"] = Program(text.removesuffix(PROBLEM["test"]), PROBLEM["test"])
    assert set(outcomes(sandbox, bodies).values()) == {Outcome.PASSED}


def test_only_the_end_of_the_tests_passes(sandbox):
    runtime, wrong = Outcome.RUNTIME_ERROR, Outcome.WRONG_ANSWER
    wanted = {
        "exit": (program("System.exit(0); return 7;"), runtime),
        "halt": (program("Runtime.getRuntime().halt(0); return 7;"), runtime),
        "exit when loaded": (program("return X.y;", "class X { static int y; static { System.exit("
                                     "0); } }"), runtime),
        "handler": (program("Thread.setDefaultUncaughtExceptionHandler((t, e) -> System.exit(0)); "
                            "return 7;"), runtime),
        "hook": (program("Runtime.getRuntime().addShutdownHook(new Thread(() -> Runtime"
                         ".getRuntime().halt(0))); return a + b;"), runtime),
        "exit status 1 later": (program("new Thread(() -> { try { Thread.sleep(300); } catch ("
                                        "Exception e) { } System.exit(1); }).start(); return a + b"
                                        ";"), runtime),
        "thread that stays": (program("new Thread(() -> { while (true) { } }).start(); return a + "
                                      "b;"), Outcome.TIMEOUT),
        "main of its own": (program("return 7;", "class Main { public static void main(String[] a)"
                                    " { } }"), Outcome.COMPILE_ERROR),
        "tests in a comment": (program("return 7;", "/*"), Outcome.COMPILE_ERROR),
        "package": (program(GOOD, before="package other;\n"), runtime),
        "Arrays": (program("return 7;", LYING_ARRAYS), wrong),
        "List": (program("return 7;", "class List<T> { boolean contains(T x) { return false; } }\n"
                         "class Arrays { static <T> List<T> asList(T... x) { return new List<T>(); "
                         "} }"), wrong),
        "AssertionError": (program("return 7;", "class AssertionError extends RuntimeException { "
                                   "AssertionError() { System.exit(0); } }"), wrong),
        "String": (program(GOOD, "class String { }"), runtime),
        "Boolean": (program(GOOD, "class Boolean { }"), Outcome.COMPILE_ERROR),
        "honest Arrays": (program(GOOD, LYING_ARRAYS), Outcome.PASSED),
        "descriptors": (program("for (int i = 3; i < 300; i++) try (java.io.FileOutputStream f = "
                                "new java.io.FileOutputStream(\"/proc/self/fd/\" + i)) { f.write("
                                "\"1\".getBytes()); } catch (java.io.IOException e) { } return 7;"),
                        wrong),
        "network": (program("try { new java.net.Socket(\"127.0.0.1\", 9).close(); } catch (java"
                            ".io.IOException e) { } return a + b;"), Outcome.VIOLATION),
        "process": (program("try { new ProcessBuilder(\"/bin/true\").start(); } catch (java.io"
                            ".IOException e) { } return a + b;"), Outcome.VIOLATION),
    }  # fmt: skip
    found = outcomes(sandbox, {name: one for name, (one, _) in wanted.items()})
    assert found == {name: outcome for name, (_, outcome) in wanted.items()}


def test_the_parts_of_the_proof_have_no_name_in_java(sandbox):
    body = (
        'try { new java.io.FileInputStream("/proc/self/mem").close(); } catch (java.io'
        '.IOException e) { System.err.println("no memory file"); } '
        'System.err.println(System.getenv() + " " + ProcessHandle.current().info()); '
        'System.getProperties().forEach((k, v) -> { if (k.toString().matches("user.*|sun.*")) '
        'System.err.println(k + " " + v); }); throw new RuntimeException("end");'
    )
    (verdict,) = judge(sandbox, program(body))
    assert "no memory file" in verdict.message and "user.dir /tmp" in verdict.message
    assert not re.search(r"\b\d{8,10}\b", verdict.message)


def test_compilers_survive_bombs(sandbox):
    nested = "null"
    for _ in range(10):
        nested = f"m({nested}, {nested})"
    doubled = " ".join(f"static final String A{i + 1} = A{i} + A{i};" for i in range(30))
    wanted = {
        "inference": (program(GOOD, "class Q { static <A, B extends A> A m(A a, B b) { return a; } "
                              f"Object o = {nested}; }}"), Outcome.TIMEOUT),
        "memory": (program(GOOD, f"class Q {{ static final String A0 = \"{'x' * 30000}\"; {doubled}"
                           " }"), Outcome.COMPILE_ERROR),
        "nesting": (program(f"return {'(' * 20000}a + b{')' * 20000};"), Outcome.COMPILE_ERROR),
        "sum": (program(f"return a + b{' + a' * 50000};"), Outcome.COMPILE_ERROR),
        "array": (program(f"int[] x = {{{'1, ' * 30000}}}; return a + b;"), Outcome.COMPILE_ERROR),
        "string": (program(f"String x = \"{'x' * 70000}\"; return a + b;"), Outcome.COMPILE_ERROR),
        "fairly nested": (program(f"return {'(' * 400}a + b{')' * 400};"), Outcome.PASSED),
    }  # fmt: skip
    found = outcomes(sandbox, {name: one for name, (one, _) in wanted.items()})
    assert found == {name: outcome for name, (_, outcome) in wanted.items()}


def test_a_javac_that_fails_says_so_in_one_line(sandbox):
    deep = program(f"return {'(' * 20000}a + b{')' * 20000};")
    (verdict,) = judge(sandbox, deep)
    assert verdict.message == "javac failed: java.lang.StackOverflowError"


def test_nothing_of_a_program_is_left_in_the_compiler(sandbox):
    pair = (
        "class Pair { int a, b; Pair(int x, int y) { a = x; b = y; } int sum() { return a + b; } }"
    )
    uses = program("return new Pair(a, b).sum();")
    imports = "import other.*;\n"
    alone = judge(sandbox, uses)[0]
    kinds = judge(
        sandbox,
        program(GOOD, pair), uses, program("return new Pair(a, b).sum();", pair), uses,
        program(GOOD, "class Solution2 { }", before="package other;\n"),
        program(GOOD, before=imports),
        program(GOOD, "class Object { }\nclass java { static class util { } }"), program(GOOD),
        program("return 7;", before="package java.lang;\n"), program(GOOD),
        program(GOOD, "class List<T> { }"), program(GOOD),
        program(GOOD, "interface Integer { }\nclass Q { Integer x; }"),
        program("Integer x = a; return x + b;"),
        program(GOOD, before="module other { }\n"), program(GOOD),
    )  # fmt: skip
    assert [v.outcome for v in kinds] == [
        Outcome.PASSED, Outcome.COMPILE_ERROR, Outcome.PASSED, Outcome.COMPILE_ERROR,
        Outcome.RUNTIME_ERROR, Outcome.COMPILE_ERROR,
        Outcome.PASSED, Outcome.PASSED, Outcome.COMPILE_ERROR, Outcome.PASSED,
        Outcome.COMPILE_ERROR, Outcome.PASSED, Outcome.PASSED, Outcome.PASSED,
        Outcome.COMPILE_ERROR, Outcome.PASSED,
    ]  # fmt: skip
    assert kinds[1].message == kinds[3].message == alone.message
    assert "package other does not exist" in kinds[5].message


def test_without_a_c_compiler_programs_run_by_the_java_command(sandbox, tmp_path, monkeypatch):
    monkeypatch.setattr(java_tools, "c_compiler", lambda: None)
    monkeypatch.setattr(java_tools, "_archive", lambda *_: None)
    assert [what for what, _ in Java().toolchain().advice] == [
        "a C compiler: Java programs start twice as fast"
    ]
    wanted = {
        GOOD: Outcome.PASSED, "return 7;": Outcome.WRONG_ANSWER,
        "System.exit(0); return 7;": Outcome.RUNTIME_ERROR,
        "int[] x = new int[1]; return x[a];": Outcome.RUNTIME_ERROR,
        "return new Scanner(System.in).nextInt();": Outcome.RUNTIME_ERROR,
    }  # fmt: skip
    with Sandbox(Java(), tmp_path) as box:
        assert box.warnings == [
            "Java: programs run by the java command, twice as slow: no C compiler"
        ]
        assert outcomes(box, {body: program(body) for body in wanted}) == wanted
        (verdict,) = judge(box, program("return 7;"))
    assert verdict.message.startswith(
        'Exception in thread "main" java.lang.AssertionError\n\tat Main'
    )


# The data ------------------------------------------------------------------------------------


def test_canonical_solutions_pass(sandbox, rows):
    some = [Java().assemble(row, row["canonical_solution"]) for row in rows[2::8]]
    found = judge(sandbox, *some)
    assert [(x.task_id, v.message) for x, v in zip(some, found, strict=True)
            if v.outcome is not Outcome.PASSED] == []  # fmt: skip


def mutated(code: str, source: random.Random) -> str:
    """`code` with an operator changed (often), or a character or a letter too many or few."""
    swaps = ["< >", "> >=", "+ -", "- +", "* +", "== !=", "&& ||", "0 1", "1 2", "true false"]
    spots = [
        (m.start(), *swap.split()) for swap in swaps
        for m in re.finditer(r"(?<=\s)" + re.escape(swap.split()[0]) + r"(?=[\s;)])", code)
    ]  # fmt: skip
    if spots and source.random() < 0.6:
        at, old, new = source.choice(spots)
        return code[:at] + new + code[at + len(old) :]
    at = source.choice([m.start() for m in re.finditer(r"[;(){}]|\b[a-z]\w+", code)])
    return code[:at] + code[at + 1 :]


# javac itself, called once a folder: a process each would take most of its time to start.
JAVACS = """
class Javacs {
    public static void main(String[] folders) {
        var javac = javax.tools.ToolProvider.getSystemJavaCompiler();
        var nothing = java.io.OutputStream.nullOutputStream();
        for (String x : folders) javac.run(null, nothing, nothing, "-d", x, "-cp", x,
            "-encoding", "UTF-8", x + "/Main.java");
    }
}
"""


def reference(folder) -> Outcome:
    """The verdict of a java of the program's own, over what javac has left in the folder."""
    if not (folder / "Main.class").exists():
        return Outcome.COMPILE_ERROR
    quick = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    command = ["bash", "-c", f"ulimit -t 4; exec java {quick} -cp . Main"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode in (0, 1):
        wrong = "AssertionError" in done.stderr
        failed = Outcome.WRONG_ANSWER if wrong else Outcome.RUNTIME_ERROR
        return failed if done.returncode else Outcome.PASSED
    return Outcome.TIMEOUT


@pytest.mark.slow
def test_verdicts_are_the_references(sandbox, rows, tmp_path):
    source = random.Random(7)
    codes = [
        row["canonical_solution"] if source.random() < 0.4
        else mutated(row["canonical_solution"], source) for row in rows
    ]  # fmt: skip
    programs = [Java().assemble(row, code) for row, code in zip(rows, codes, strict=True)]
    found = judge(sandbox, *programs, limits=Limits())
    assert len({v.outcome for v in found}) >= 4
    folders = [tmp_path / str(number) for number in range(len(programs))]
    for folder, one in zip(folders, programs, strict=True):
        folder.mkdir()
        (folder / "Main.java").write_text(one.text)
    (tmp_path / "Javacs.java").write_text(JAVACS)
    subprocess.run(["java", tmp_path / "Javacs.java", *folders], check=True)
    for folder, one, verdict in zip(folders, programs, found, strict=True):
        assert verdict.outcome is reference(folder), (one.task_id, verdict.message)
