"""JavaScript in the judge: verdicts as plain node's, by forks and by processes; no cheat passes."""

import gzip
import json
import os
import random
import re
import shutil
import subprocess
import types

import pytest

from geex_jax.benchmark.languages import javascript, javascript_tools
from geex_jax.benchmark.languages.javascript import PRINTS_OK, JavaScript, judged_tests
from geex_jax.benchmark.languages.types import Limits, Outcome, Program
from geex_jax.benchmark.sandbox.client import Sandbox
from geex_jax.benchmark.sandbox.helpers import HelperDied

LIMITS = Limits(cpu_seconds=2, wall_seconds=5)
TEST = "const testF = () => {\n  console.assert(JSON.stringify(f(1)) === JSON.stringify([2]))\n" \
    "  console.assert(Math.abs(f(2)[0] - 3) < 1e-6)\n}\n\ntestF()\n"  # fmt: skip
RIGHT = "const f = x => [x + 1]"
P, W, R, C = (
    Outcome.PASSED, Outcome.WRONG_ANSWER, Outcome.RUNTIME_ERROR, Outcome.COMPILE_ERROR,
)  # fmt: skip
needs_node = pytest.mark.skipif(
    not javascript_tools.node_version()[1], reason="no node: apt-get install nodejs npm"
)
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def folder_with_md5(base):
    """A cache that has a js-md5 of our own, so that none is fetched."""
    package = base / "javascript" / "node_modules" / "js-md5"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"name": "js-md5", "main": "index.js"}')
    (package / "index.js").write_text(
        "module.exports = t => require('crypto').createHash('md5').update(t).digest('hex')"
    )
    return base


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    with Sandbox(JavaScript(), folder_with_md5(tmp_path_factory.mktemp("forks"))) as box:
        assert box.warnings == []
        yield box


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """The same where no compiler is installed."""
    real = shutil.which
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "which", lambda x: None if x in ("cc", "gcc", "clang") else real(x))
        box = Sandbox(JavaScript(), folder_with_md5(tmp_path_factory.mktemp("processes")))
    with box:
        (warning,) = box.warnings
        assert "no C compiler" in warning
        yield box


@pytest.fixture(params=["forks", "processes"])
def box(request):
    return request.getfixturevalue(request.param)


def judge(box, *codes, test=TEST, options=(), limits=LIMITS):
    programs = [Program(code + "\n", test, options) for code in codes]
    verdicts = dict(box.judge(programs, limits))
    return [verdicts[i] for i in range(len(codes))]


# Outside of sandboxes ------------------------------------------------------------------------


def test_assembly_is_the_reference_s():
    problem = {"task_id": "JavaScript/0", "prompt": "const f = (x) => {\n", "test": "f(1)\n"}
    program = JavaScript().assemble(problem, "  return x\n}\n")
    assert program.text == "const f = (x) => {\n  return x\n}\n\nf(1)\n"
    assert program.test == "f(1)\n" and program.options == ()


def test_completions_end_with_their_brace():
    language = JavaScript()
    assert language.is_finished("  if (x) { y() }\n}")
    assert not language.is_finished("  if (x) { y() }\n")
    assert language.clean("  return x\n}\nconst y") == "  return x\n}"
    assert language.clean("  return x") == "  return x"


def test_tests_are_judged_with_functions_of_their_own():
    judged, locked = judged_tests(
        "console.assert(JSON.stringify(f([...a].map(g))) === my.JSON.stringify(1))\n"
        "console.log(Math . abs(Math.PI), 'Math.abs(1)'.length)\n"
    )
    assert judged == (
        "$geex.console_assert($geex.JSON_stringify(f([...a].map(g))) === my.JSON.stringify(1))\n"
        "console.log($geex.Math_abs(Math.PI), 'Math.abs(1)'.length)\n"
    )
    assert locked == "abs iterator log map stringify"


def test_toolchain_names_what_is_missing(monkeypatch):
    monkeypatch.setattr(javascript_tools, "find_node", lambda: None)
    tools = JavaScript().toolchain()
    assert tools.missing == (("node >= 16", "apt-get install nodejs npm"),)
    monkeypatch.setattr(javascript_tools, "find_node", lambda: "node")
    monkeypatch.setattr(javascript_tools, "version", lambda _: "v12.22.9")
    tools = JavaScript().toolchain()
    assert tools.missing[0][0] == "node >= 16 (there is v12.22.9)"
    assert "node" not in tools.versions


def test_js_md5_is_found_where_node_path_points(tmp_path, monkeypatch):
    package = tmp_path / "modules" / "js-md5"
    package.mkdir(parents=True)
    (package / "package.json").write_text("{}")
    monkeypatch.setenv("NODE_PATH", f"{tmp_path}/nowhere:{tmp_path}/modules")
    assert javascript_tools.module_folders(None) == ((str(tmp_path / "modules"),), True)
    assert str(tmp_path / "modules") in javascript_tools.mounts(tmp_path / "cache")
    tools = JavaScript().toolchain()
    assert tools.versions["js-md5"] == "0.7.3" and tools.advice == ()


@needs_node
def test_what_npm_cannot_fetch_is_not_asked_for_again_at_once(tmp_path, monkeypatch):
    calls = tmp_path / "calls"
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\necho $@ >> {calls}\nexit 1\n")
    npm.chmod(0o755)
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda x: str(npm) if x == "npm" else real(x))
    monkeypatch.setattr(javascript_tools, "module_folders", lambda _: ((), False))
    cache = tmp_path / "cache"
    cache.mkdir()
    JavaScript().prepare(cache)
    JavaScript().prepare(cache)
    assert calls.read_text().count("js-md5@0.7.3") == 1
    assert not javascript_tools.Tools.read(cache).package


def test_a_program_is_tried_again_and_then_alone_if_the_fork_server_dies():
    language, asked = JavaScript(), []

    class Dead:
        def run(self, *_, **__):
            asked.append("fork")
            raise HelperDied

    def run(argv, **_):
        asked.append(argv[0])
        return "finished"

    channel = types.SimpleNamespace(fd=70, first=1, second=2, close=lambda: None)
    jail = types.SimpleNamespace(cache="/c", tmp="/t", run=run, channel=lambda: channel)
    language._zygote = Dead()  # type: ignore[assignment]
    language._tools = javascript_tools.Tools("/node", "x", True, "", (), (), (), True, 0)
    assert language._run(jail, Program("", ""), LIMITS) == "finished"  # type: ignore[arg-type]
    assert asked == ["fork", "fork", "/node"]


# Verdicts ------------------------------------------------------------------------------------

PROGRAMS = [
    (RIGHT, P, ""),
    ("const f = x => [x]", W, "Assertion failed"),
    ("const f = x => {", C, "SyntaxError: missing|SyntaxError: Unexpected"),
    (RIGHT + "; }, g() {", C, "SyntaxError: Unexpected token '}'"),
    ("const f = x => super.x", C, "'super' keyword unexpected here"),
    ("import fs from 'fs'; " + RIGHT, C, "import statement outside a module"),
    ("const exports = 1; " + RIGHT, C, "'exports' has already been declared"),
    ("function testF() {}; " + RIGHT, C, "'testF' has already been declared"),
    ("const f = x => x.y.z", R, "TypeError: Cannot read properties of undefined"),
    ("const f = x => { throw 7 }", R, "Uncaught 7"),
    ("const f = x => [g(x)]; const g = x => g(x) + 1", R, "Maximum call stack size exceeded"),
    ("const f = x => JSON.parse('{')", R, "SyntaxError"),
    (RIGHT + "; Promise.reject(new Error('no'))", R, "Error: no"),
    (RIGHT + "; setTimeout(() => { throw new Error('no') }, 1)", R, "Error: no"),
    (RIGHT + "; require('fs').readFile('/dev/null', () => { throw new Error('no') })", R,
     "Error: no"),
    (RIGHT + "; process.on('uncaughtException', () => {}); f(null.x)", R, "ended before"),
    ("const f = x => { console.log(x); return [x + 1] }", W, "standard output; the reference"),
    ("const f = x => { console.error(x); return [x + 1] }", W, "standard error; the reference"),
    (RIGHT + "; setTimeout(() => console.log(1), 5)", W, "standard output; the reference"),
    (RIGHT + "; process.on('exit', () => console.log(1))", W, "standard output; the reference"),
    ("const f = x => { let a = []; for (let i = 0; i < 1e6; i++) a.push({i}); return [x + 1] }",
     P, ""),
    ("'use strict'; if (arguments.length !== 5 || this !== exports) throw 1; " + RIGHT, P, ""),
    ("function *g(x) { yield x }; const f = x => { for (const y of g(x)) return [y + 1] }", P, ""),
    ("class A { g(x) { return x } }; class B extends A { g(x) { return super.g(x) + 1 } }; "
     "const f = x => [new B().g(x)]", P, ""),
    ("if (typeof module === 'undefined') return; " + RIGHT, P, ""),
    ("\ufeff#!/usr/bin/env node\n" + RIGHT, P, ""),
    ("const f = x => { new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])); "
     "return [x + 1] }", P, ""),
    ("const f = x => [require('js-md5')('a') === '0cc175b9c0f1b6a831c399e269772661' && x + 1]",
     P, ""),
    ("const f = x => { const fs = require('fs'); fs.writeFileSync('a', '' + x); "
     "return [+fs.readFileSync('/tmp/a') + 1] }", P, ""),
    ("if (__filename !== process.argv[1] || require.main !== module || process.cwd() !== __dirname "
     "|| process.execArgv.length || process.env.LD_PRELOAD || process.pid !== "
     "+require('fs').readlinkSync('/proc/self')) throw 1; " + RIGHT, P, ""),
    ("const f = x => [x + 1]; (async () => { const r = require('fs').promises; await r.readFile("
     "'/dev/null'); if (require('fs').readFileSync('/dev/stdin').length) throw 1; })()", P, ""),
    ("const f = x => [x + 1]; process.stdin.on('end', () => setTimeout(() => process.stdin."
     "removeAllListeners(), 2)).resume(); require('zlib').gzip('a', (e) => { if (e) throw e })",
     P, ""),
    ("const f = x => { if (new Set(Array.from({length: 9}, Math.random)).size !== 9 || "
     "require('crypto').randomUUID().length !== 36) throw 1; return [x + 1] }", P, ""),
    ("for (;;) {}; " + RIGHT, Outcome.TIMEOUT, "CPU time"),
    ("require('child_process').execSync('true'); " + RIGHT, Outcome.VIOLATION, ""),
    ("new (require('worker_threads').Worker)('1', {eval: true}); " + RIGHT, R, "refused"),
    ("const a = []; for (;;) a.push(new Array(1e4).fill(1.5)); " + RIGHT, Outcome.MEMORY, ""),
    ("const a = []; for (;;) a.push(Buffer.alloc(1 << 24, 1)); " + RIGHT, Outcome.MEMORY, ""),
    ("for (;;) process.stdout.write('x'.repeat(1 << 16)); " + RIGHT, Outcome.OUTPUT_LIMIT, ""),
]  # fmt: skip


@needs_node
def test_verdicts_by_forks_and_by_processes(box):
    limits = Limits(cpu_seconds=2, memory_bytes=1 << 28, output_bytes=1 << 20)
    verdicts = judge(box, *(code for code, _, _ in PROGRAMS), limits=limits)
    wrong = [
        f"{code}\n  {verdict.outcome}: {verdict.message}"
        for (code, outcome, message), verdict in zip(PROGRAMS, verdicts, strict=True)
        if verdict.outcome is not outcome or not re.search(message, verdict.message)
    ]
    assert not wrong, "\n".join(wrong)


# Each gives wrong answers and would pass by the exit code, by an empty output or by a patch.
CHEATS = [
    "process.exit(0); const f = x => 7",
    "const f = x => process.exit(0)",
    "const f = x => process.reallyExit(0)",
    "const f = x => process.kill(process.pid, 'SIGKILL')",
    "const f = x => process.abort()",
    "return; const f = x => 7",
    "if (true) { return } const f = x => 7",
    "console.assert = () => {}; const f = x => 7",
    "const console = {assert() {}}; const f = x => 7",
    "globalThis.console = {assert() {}}; const f = x => 7",
    "const JSON = {stringify: () => 1}, Math = {abs: () => 0}; const f = x => 7",
    "JSON.stringify = () => 1; Math.abs = () => 0; const f = x => 7",
    "Array.prototype.toJSON = () => 1; const f = x => [x - Infinity]; Math.abs = () => 0",
    "Object.defineProperty(Object.prototype, 'toJSON', {value: () => 1}); const f = x => [x + 2]",
    "var $geex = {console_assert() {}, JSON_stringify: () => 1, Math_abs: () => 0}; "
    "const f = x => 7",
    "eval('var $geex = {console_assert() {}, JSON_stringify: () => 1, Math_abs: () => 0}'); "
    "const f = x => 7",
    "const f = x => { try { eval('super.tests.console_assert = () => {}') } catch {} return 7 }",
    "const f = x => { arguments.callee.call(exports); return 7 }",
    "const f = x => { try { f.caller.prototype.next = () => ({done: false}) } catch {} return 7 }",
    "Object.getPrototypeOf(function* () {}).prototype.next = () => ({done: false}); const f = 7",
    "yield; return; const f = x => 7",
    "var yield_ = 1; if (yield_) { return } function* g() { yield 1 } const f = x => 7",
    "}, '<anonymous>'() { return {next: () => ({done: false})}; const f = x => 7",
    "}, *'<anonymous>'() { const f = x => 7",
    "Reflect.apply = () => 0; Function.prototype.call = () => 0; const f = x => 7",
    "process.on('uncaughtException', () => {}); const f = x => { throw 1 }",
    "process.on('unhandledRejection', () => {}); const f = async x => { throw 1 }",
    "process.on('exit', () => process.reallyExit(0)); const f = x => 7",
    "process.removeAllListeners(); process.emit('exit', 0); const f = x => 7",
    "process.stderr.write = () => true; const f = x => 7",
    "for (let i = 0; i < 300; i++) try { require('fs').closeSync(i) } catch {} const f = x => 7",
    "for (let i = 3; i < 300; i++) try { require('fs').writeSync(i, '1') } catch {} "
    "const f = x => [x + 1]",
    "process.dlopen({exports: {}}, '/geex-cache/x.node'); const f = x => [x + 1]",
    "new (require('inspector').Session)().connect(); const f = x => [x + 1]",
    "process.binding('contextify'); const f = x => [x + 1]",
    "require('v8').getHeapSnapshot(); const f = x => [x + 1]",
    "require('v8').setFlagsFromString('--allow-natives-syntax'); eval('%GetHeapUsage()'); "
    "const f = x => [x + 1]",
    "console.log('passed'); const f = x => 7",
]


@needs_node
def test_no_cheat_passes(box):
    verdicts = judge(box, *CHEATS, RIGHT)
    passed = [c for c, v in zip(CHEATS, verdicts, strict=False) if v.outcome is P]
    assert passed == []
    assert verdicts[-1].outcome is P


@needs_node
def test_the_process_s_memory_cannot_be_opened(forks):
    paths = ("/proc/self/mem", "/proc/thread-self/mem", "/proc/self/task/' + process.pid + '/mem")
    codes = [f"require('fs').openSync('{path}', 'r'); {RIGHT}" for path in paths]
    assert all("EACCES" in v.message for v in judge(forks, *codes))


@needs_node
def test_methods_that_the_tests_use_stay_what_they_are(box):
    test = (
        "const s = ['a', 'b'].map(x => x + x).join('')\nconsole.assert(f(s) === 'aabb')\n"
        "for (const c of s) console.assert(f(c) !== '')\n"
    )
    patches = (
        "Array.prototype.join = () => ''", "Array.prototype.map = function () { return this }",
        "Array.prototype[Symbol.iterator] = function* () {}",
        "String.prototype[Symbol.iterator] = function* () {}",
    )  # fmt: skip
    verdicts = judge(box, *(f"{x}; const f = x => ''" for x in patches), test=test)
    assert [v.outcome for v in verdicts] == [W] * len(patches)
    verdicts = judge(box, *(f"{x}; const f = x => x" for x in patches), test=test)
    assert [v.outcome for v in verdicts] == [P] * len(patches)


@needs_node
def test_tests_cannot_be_swallowed(box):
    test = "console.assert(f(1) === `2`)\nconsole.assert(f(2) === 3)\n"
    swallowing = "const f = x => x + 1; const s = `"
    assert judge(box, swallowing, "const f = x => x", test=test)[0].outcome is not P
    quoted = "console.assert(f('*/') === 1)\nconsole.assert(f(1) === 1)\n"
    verdicts = judge(box, "const f = x => 1", "const f = x => 2; /*", test=quoted)
    assert verdicts[0].outcome is P and verdicts[1].outcome is not P


@needs_node
def test_modules_can_be_imported(box):
    # node 18 has no loader for programs that are compiled as ours are.
    if subprocess.run(["node", "-e", "process.exit(+!vm.constants)"]).returncode:
        pytest.skip("needs node >= 20.12")
    (verdict,) = judge(box, RIGHT + "; import('os').then(x => { if (!x.cpus) throw 1 })")
    assert verdict.outcome is P


@needs_node
def test_printing_can_be_allowed(box):
    prints = "const f = x => { console.log(x); console.error(x); return [x + 1] }"
    (verdict,) = judge(box, prints, options=(PRINTS_OK,))
    assert verdict.outcome is P and verdict.message == ""
    (verdict,) = judge(box, prints.replace("+ 1", "+ 2"), options=(PRINTS_OK,))
    assert verdict.outcome is W


@needs_node
def test_a_program_has_the_same_random_numbers_each_time(box):
    code = "const f = x => [Math.random() < 0.5 ? x + 1 : x + 1 + 1e-9]"
    test = "console.assert(f(1)[0] === 2)\n"
    assert len({v.outcome for v in judge(box, *[code] * 12, test=test)}) == 1


@needs_node
def test_programs_find_nothing_of_their_neighbours(forks):
    leave = (
        "globalThis.x = 1; require('fs').x = 1; Array.prototype.x = 1; "
        "require('fs').writeFileSync('/tmp/x', 'x'); Math.random(); " + RIGHT
    )
    find = (
        "if (globalThis.x || require('fs').x || [].x || require('fs').existsSync('/tmp/x')) "
        "throw 1; " + RIGHT
    )
    assert [v.outcome for v in judge(forks, leave, find, leave, find)] == [P] * 4


@needs_node
def test_another_memory_limit_means_another_heap(forks):
    code = "const a = []; for (let i = 0; i < 2e7; i++) a.push(i + 0.5); " + RIGHT
    small, large = Limits(memory_bytes=128 << 20), Limits(memory_bytes=2 << 30)
    outcomes = [judge(forks, code, limits=x)[0].outcome for x in (large, small, large)]
    assert outcomes == [P, Outcome.MEMORY, P]


# The data set --------------------------------------------------------------------------------


def problems(shared):
    with gzip.open(shared / "humaneval-x" / "humaneval_js.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


@needs_node
def test_canonical_solutions_pass(shared, forks):
    rows = problems(shared)
    programs = [JavaScript().assemble(x, x["canonical_solution"]) for x in rows]
    verdicts = dict(forks.judge(programs, LIMITS))
    failed = {rows[i]["task_id"]: v.outcome for i, v in verdicts.items() if v.outcome is not P}
    assert failed == {"JavaScript/112": W, "JavaScript/155": W}  # by the data's own fault


_OPERATORS = {"===": "!==", "==": "!=", "<=": "<", "+ ": "- ", "* ": "+ ", "&&": "||", "% ": "* "}


def mutate(rng, kind, code):
    """A canonical solution, one with another operator, or one with a sign missing."""
    if kind == "operator":
        hits = [(m.start(), x) for x in _OPERATORS for m in re.finditer(re.escape(x), code)]
        if hits:
            at, sign = rng.choice(hits)
            return code[:at] + _OPERATORS[sign] + code[at + len(sign) :]
    if kind == "syntax":
        at = rng.choice([i for i, c in enumerate(code) if c in "(){}[];,="])
        return code[:at] + code[at + 1 :]
    return code


def passes_in_node(program, folder):
    """As the reference has it: nothing on standard output, nothing on standard error."""
    path = folder / "test.js"
    path.write_text(program.text)
    try:
        done = subprocess.run(
            ["node", str(path)], capture_output=True, timeout=20, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return False
    return done.stdout == done.stderr == b""


@needs_node
def test_a_mix_gets_the_verdicts_of_plain_node(shared, forks, tmp_path):
    rng = random.Random(7)
    rows = [x for x in problems(shared) if not x["task_id"].endswith("/162")]
    kinds = ["right"] * 10 + ["operator"] * 9 + ["syntax"] * 6
    programs = [
        JavaScript().assemble(row, mutate(rng, kind, row["canonical_solution"]))
        for row, kind in zip(rng.sample(rows, len(kinds)), kinds, strict=True)
    ]
    verdicts = dict(forks.judge(programs, LIMITS))
    for i, program in enumerate(programs):
        expected = passes_in_node(program, tmp_path)
        assert (verdicts[i].outcome is P) == expected, (program.task_id, kinds[i], verdicts[i])
    assert {verdicts[i].outcome for i in range(len(programs))} >= {P, W, C}


def test_the_sources_of_helpers_are_shipped():
    for name in ("node_zygote.c", "node_judge.js", "zygote.h"):
        assert os.path.isfile(javascript.__file__.replace("javascript.py", f"native/{name}"))
