"""Rust: assembly, what may share a crate, the proof, verdicts through the real sandbox."""

import gzip
import json
import subprocess

import pytest

from geex_jax.benchmark import mutants
from geex_jax.benchmark.languages import rust_text, rust_tools
from geex_jax.benchmark.languages.rust import Rust
from geex_jax.benchmark.languages.types import Limits, Outcome
from geex_jax.benchmark.sandbox.client import Sandbox
from geex_jax.errors import GeexError
from geex_jax.files import cache_folder

PROBLEM = {
    "task_id": "Rust/0",
    "declaration": "\nuse std::collections::HashMap;\nuse regex::Regex;\nuse rand::Rng;\nuse md5;\n"
    "\nfn add(a: i32, b: i32) -> i32 {\n",
    "prompt": "\n/*\n The sum.\n*/\n",
    "canonical_solution": "    a + b\n}\n",
    "test": "\n#[cfg(test)]\nmod tests {\n    use super::*;\n\n#[test]\n    // adds\n"
    "    fn test_add() {\n        assert_eq!(add(1, 2), 3);\n        assert!(add(0, 0) == 0);\n"
    '        assert_eq!(format!("{}", add(2, 2)), "4");\n    }\n\n}\n',
}
RIGHT = PROBLEM["canonical_solution"]
WRONG = "    0\n}\n"


def begin(line: str) -> str:
    """A body that does something and then is wrong."""
    return f"    {line}\n    0\n}}\n"


# What a program tries, and what has to become of it.
HOSTILE = {
    "leaves": (begin("std::process::exit(0);"), Outcome.RUNTIME_ERROR),
    "says ok": (begin('println!("test result: ok. 1 passed"); std::process::exit(0);'),
                Outcome.RUNTIME_ERROR),
    "no asserts": (WRONG + "macro_rules! assert_eq { ($($t:tt)*) => {} }\n"
                   "macro_rules! assert { ($($t:tt)*) => {} }\n", Outcome.WRONG_ANSWER),
    "hook": (begin("std::panic::set_hook(Box::new(|_| std::process::exit(0)));"),
             Outcome.RUNTIME_ERROR),
    "fills descriptors": (begin(
        "use std::io::Write; use std::os::unix::io::FromRawFd; for fd in 3..256 { let mut f = "
        "unsafe { std::fs::File::from_raw_fd(fd) }; let _ = f.write_all(b\"12345\"); "
        "std::mem::forget(f); } std::process::exit(0);"), Outcome.RUNTIME_ERROR),
    "thread leaves": (begin("std::thread::spawn(|| std::process::exit(0)).join().ok();"),
                      Outcome.RUNTIME_ERROR),
    "no tests": (WRONG + "#[cfg(any())]\n", Outcome.RUNTIME_ERROR),
    "closes the module": (WRONG + "}\nmod other {\n", Outcome.COMPILE_ERROR),
    "reads source": (WRONG + 'pub static S: &str = include_str!("program.rs");\n',
                     Outcome.VIOLATION),
    "replaces memcmp": (WRONG + '#[no_mangle] pub extern "C" fn memcmp(_a: *const u8, _b: *const u8'
                        ", _n: usize) -> i32 { 0 }\n", Outcome.VIOLATION),
    "reads itself": (begin('std::fs::read("/proc/self/exe").unwrap();'), Outcome.VIOLATION),
    "starts a program": (begin('let _ = std::process::Command::new("/bin/true").status();'),
                         Outcome.VIOLATION),
    "own tests module": (RIGHT + "#[cfg(test)]\nmod tests { #[test] fn a() {} }\n",
                         Outcome.COMPILE_ERROR),
    "own test fails": (RIGHT + '#[test] fn own() { panic!("own") }\n', Outcome.RUNTIME_ERROR),
    "own test passes": (RIGHT + "#[test] fn own() { assert!(true) }\n", Outcome.PASSED),
    "wrong without tests": (RIGHT + "#[cfg(not(test))] fn own() { nothing(); }\n",
                            Outcome.COMPILE_ERROR),
    "macro bomb": (RIGHT + "macro_rules! b { ($($t:tt)*) => { b!($($t)* $($t)*); } }\nb!(a);\n",
                   None),
    "constant bomb": (RIGHT + "static X: u64 = { let mut i = 0u64; while i < u64::MAX { i += 1 } i"
                      " };\n", None),
    "deep": ("(" * 20000, Outcome.COMPILE_ERROR),
    "not UTF-8": ("    // \udc80\n" + RIGHT, Outcome.COMPILE_ERROR),
    "crate root": ("    crate::help(a, b)\n}\nfn help(a: i32, b: i32) -> i32 { a + b }\n",
                   Outcome.PASSED),
    "super": ("    super::main(); a + b\n}\n", Outcome.COMPILE_ERROR),
    "foreign impl": (RIGHT + "struct M; impl PartialEq<M> for bool { fn eq(&self, _: &M) -> bool "
                     "{ true } }\n", Outcome.PASSED),
    "one bool": ("    if true == \"true\".parse().unwrap() { a + b } else { 0 }\n}\n",
                 Outcome.PASSED),  # compiles only while bool is compared with nothing but bool
    "memory": (begin('let v = vec![1u8; 1usize << 41]; println!("{}", v.len());'), Outcome.MEMORY),
    "stack": (begin("fn f(n: u64) -> u64 { f(n + 1) + 1 } f(1);"), Outcome.RUNTIME_ERROR),
    "overflow": (begin("let mut x = i32::MAX - a; x += b; x += 9;"), Outcome.RUNTIME_ERROR),
    "floods": (begin('loop { println!("{}", "x".repeat(9999)); }'), Outcome.OUTPUT_LIMIT),
    "hangs": (begin("loop {}"), Outcome.TIMEOUT),
    "type error": ('    a + "x"\n}\n', Outcome.COMPILE_ERROR),
    "borrow error": ("    let s = String::new(); drop(s); drop(s); a + b\n}\n",
                     Outcome.COMPILE_ERROR),
    "blank": ("\n", Outcome.COMPILE_ERROR),
    "right": (RIGHT, Outcome.PASSED),
    "wrong": (WRONG, Outcome.WRONG_ANSWER),
}  # fmt: skip
LIMITS = Limits(cpu_seconds=1.0, compile_seconds=2.0, memory_bytes=512 << 20)


@pytest.fixture(scope="module")
def sandbox():
    rust = Rust()
    lacking = rust.toolchain().missing
    if lacking:
        pytest.skip(f"no {lacking[0][0]}: {lacking[0][1]}")
    try:
        box = Sandbox(rust, cache_folder() / "toolchains")
    except GeexError as error:
        pytest.skip(str(error))
    with box:
        yield box


def judge(box, programs, batch=32, limits=LIMITS):
    out = {}
    for start in range(0, len(programs), batch):
        for i, verdict in box.judge(programs[start : start + batch], limits):
            assert start + i not in out
            out[start + i] = verdict
    return [out[i] for i in range(len(programs))]


# Text -------------------------------------------------------------------------------------


def test_assembly_is_the_references():
    program = Rust().assemble(PROBLEM, "    CODE\n}\n")
    start = "\nfn main(){ \n } \n" + PROBLEM["declaration"] + PROBLEM["prompt"]
    assert program.text == start + "    CODE\n}\n" + PROBLEM["test"]
    assert program.code == start + "    CODE\n}\n"


def test_declaration_inside_the_prompt_is_not_doubled():
    other = PROBLEM | {"prompt": "/* The sum. */" + PROBLEM["declaration"]}
    assert Rust().assemble(other, RIGHT).text.count("fn add(") == 1


def test_stop_rule_and_clean_up_are_codegeex2s():
    rust = Rust()
    assert rust.is_finished("    if x { 1 }\n}") and not rust.is_finished("    if x { 1 }\n")
    assert rust.is_finished("    {\n\nfn main() {")
    assert rust.clean("    a\n}\n\n// next") == "    a\n}"
    assert rust.clean("no brace") == "no brace"


@pytest.mark.parametrize(
    "code",
    [
        "fn a() { crate::b() }", "extern crate md5;", 'extern "C" { fn f(); }', "use super::x;",
        "mod m { use super::super::x; }", "#[macro_export] macro_rules! m { () => {} }",
        "mod other;", '#[path = "x.rs"] mod m {}', "fn a() { env!(\"HOME\"); }",
        "fn a() { let x = file!(); }", "#[unknown] fn a() {}", "fn a() { /* ", 'fn a() { "',
        "impl PartialEq<A> for bool {} struct A;", "struct A; impl From<A> for String {}",
        "fn f() { struct String; impl From<String> for u8 {} }",
        "struct A; impl std::fmt::Display for Vec<A> {}", "fn a() { std::any::type_name::<A>() }",
        "macro_rules! m { ($t:ty) => { impl X for $t {} } }", "#![feature(x)] fn a() {}",
    ],
)  # fmt: skip
def test_these_go_alone(code):
    assert rust_text.traits_of(code).alone


@pytest.mark.parametrize(
    "code",
    [
        PROBLEM["declaration"] + RIGHT, "mod m { use super::*; }", "// crate::x\nfn a() {}",
        'fn a() { let s = "crate"; let r = r#"extern "x""#; }', "#[derive(Debug)] struct A;",
        "struct A<T>(T); impl<T: Fn() -> u8> std::fmt::Display for A<T> {}",
        "trait T {} impl T for Vec<i32> {}", "struct A; impl A { fn f(&self) {} }",
        "fn a() -> impl Iterator<Item = u8> {}", "fn a() { let c = '\"'; let d = '\\''; }",
        "fn a<'x>(s: &'x str) {} /* /* extern */ */", "fn a() { std::env::args(); }",
        "macro_rules! m { () => { 1 } }", "#[allow(unused)] fn a() {}",
    ],
)  # fmt: skip
def test_these_may_share_a_crate(code):
    assert rust_text.traits_of(code) == rust_text.Traits()


@pytest.mark.parametrize("code", [
    "#[cfg(test)] fn a() {}", "#[test] fn a() {}", "fn a() { if cfg!(test) {} }",
    "#[deny(unused)] fn a() {}",
])  # fmt: skip
def test_these_are_built_without_tests_too(code):
    its = rust_text.traits_of(code)
    assert its.two_builds and not its.alone


@pytest.mark.parametrize("code", [
    "fn a() { include!(x) }", "use std::include as x;", "fn a() { core::include_bytes!(x) }",
    "macro_rules! m { ($i:ident) => { $i!() } } m!(include);", "#[export_name = \"x\"] fn a() {}",
    "#[unsafe(no_mangle)] fn a() {}", "#[cfg_attr(all(), link_section = \"x\")] fn a() {}",
])  # fmt: skip
def test_these_are_refused(code):
    assert rust_text.traits_of(code).refused


def test_tests_get_real_asserts_and_a_proof_behind_them():
    text = rust_text.with_proof(PROBLEM["test"], 77, 11, 22)
    assert text.count("::std::assert_eq!") == 2 and text.count("::std::assert!") == 1
    assert text.index("geex_body();") > text.rindex("assert") and "from_raw_fd(77)" in text
    assert str(11 ^ 22) not in text.replace("22u32", "")
    assert text.count("{") == text.count("}")


def test_tests_that_cannot_prove_anything_are_refused():
    odd = PROBLEM | {"test": PROBLEM["test"].replace("#[test]", "#[test]\n#[should_panic]")}
    with pytest.raises(GeexError, match=r"Rust/0 cannot be run"):
        Rust().assemble(odd, RIGHT)


# Tools ------------------------------------------------------------------------------------


def test_missing_tools_are_named_with_their_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CARGO_HOME", str(tmp_path))
    missing = dict(Rust().toolchain().missing)
    assert set(missing) == {"rustc", "cargo", "cc"}
    assert all(x.startswith("apt-get install") for x in missing.values())
    with pytest.raises(GeexError, match=r"no rustc; apt-get install rustc"):
        Rust().prepare(tmp_path)


def test_no_crates_and_no_network(monkeypatch, tmp_path, sandbox):
    monkeypatch.setattr(rust_tools, "DEBIAN_CRATES", tmp_path / "none")
    monkeypatch.setenv("CARGO_NET_OFFLINE", "true")
    monkeypatch.setenv("CARGO_HOME", str(tmp_path / "home"))
    assert "librust-md5-dev" in Rust().toolchain().advice[0][1]
    tools = rust_tools.find_tools()
    with pytest.raises(GeexError, match=r"crates rand, regex, md5 cannot be built.*apt-get"):
        rust_tools.build_crates(tools, tmp_path / "crates", [False])
    assert not (tmp_path / "crates").exists()
    assert not list(tmp_path.glob(".crates-*"))


# Verdicts ---------------------------------------------------------------------------------


def test_hostile_programs_among_others(sandbox):
    rust = Rust()
    programs = [rust.assemble(PROBLEM, code) for code, _ in HOSTILE.values()]
    verdicts = judge(sandbox, programs, batch=len(programs))
    said = {name: v.outcome for name, v in zip(HOSTILE, verdicts, strict=True)}
    wanted = {name: outcome for name, (_, outcome) in HOSTILE.items() if outcome}
    assert {name: said[name] for name in wanted} == wanted
    for name in set(HOSTILE) - set(wanted):  # how a compiler gives up is its own affair
        assert said[name] in (Outcome.COMPILE_ERROR, Outcome.TIMEOUT, Outcome.MEMORY)


def test_alone_or_together_is_the_same(sandbox):
    names = ["leaves", "no asserts", "closes the module", "no tests", "own tests module",
             "own test fails", "own test passes", "wrong without tests", "crate root",
             "foreign impl", "one bool", "overflow", "type error", "borrow error", "right",
             "wrong"]  # fmt: skip
    programs = [Rust().assemble(PROBLEM, HOSTILE[name][0]) for name in names]
    alone = [v.outcome for v in judge(sandbox, programs, batch=1)]
    assert alone == [HOSTILE[name][1] for name in names]
    assert [v.outcome for v in judge(sandbox, programs, batch=16)] == alone


def test_messages_name_the_program_and_not_its_place_in_a_batch(sandbox):
    programs = [Rust().assemble(PROBLEM, HOSTILE[x][0]) for x in ("wrong", "type error")]
    wrong, refused = judge(sandbox, programs)
    assert "program.rs:" in wrong.message and "left: 0" in wrong.message
    assert "thread 'tests::test_add'" in wrong.message
    assert "--> program.rs:15:7" in refused.message and "E0277" not in wrong.message


def test_crates_work_and_tests_in_comments_pass_as_in_the_reference(sandbox):
    used = (
        '    let _ = Regex::new("a+").unwrap().is_match("aa"); '
        "let _: u32 = rand::thread_rng().gen();"
        '\n    assert_eq!(format!("{:x}", md5::compute("")).len(), 32);\n    a + b\n}\n'
    )
    commented = PROBLEM | {"test": "\n/*" + PROBLEM["test"] + "*/\n"}
    two = PROBLEM["test"].replace("#[test]", "#[test] fn first() { assert!(true) }\n#[test]")
    programs = [
        Rust().assemble(PROBLEM, used),
        Rust().assemble(commented, WRONG),
        Rust().assemble(commented, '    "x"\n}\n'),
        Rust().assemble(PROBLEM | {"test": two}, RIGHT),
        Rust().assemble(PROBLEM | {"test": two}, WRONG),
    ]
    assert [v.outcome for v in judge(sandbox, programs)] == [
        Outcome.PASSED, Outcome.PASSED, Outcome.COMPILE_ERROR, Outcome.PASSED, Outcome.WRONG_ANSWER,
    ]  # fmt: skip


def problems(shared):
    path = shared / "humaneval-x" / "humaneval_rust.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no {path}")
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def test_canonical_solutions_pass_but_for_the_one_whose_test_is_of_an_old_rand(sandbox, shared):
    rows = problems(shared)
    programs = [Rust().assemble(row, row["canonical_solution"]) for row in rows]
    verdicts = judge(sandbox, programs, limits=Limits())
    failed = {p.task_id: v.outcome for p, v in zip(programs, verdicts, strict=True)
              if v.outcome is not Outcome.PASSED}  # fmt: skip
    assert failed == {"Rust/50": Outcome.COMPILE_ERROR}


def test_mix_is_judged_as_by_the_compiler_alone(sandbox, shared, tmp_path):
    rows = [x for x in problems(shared) if x["task_id"] != "Rust/50"][::6]
    rust = Rust()
    chosen = mutants.mix(rows, "rust", 24, seed=4)
    programs = [rust.assemble(row, code) for row, code, _ in chosen]
    flags = (cache_folder() / "toolchains/rust/reference-flags").read_text().split()
    tools = rust_tools.find_tools()
    source, binary = tmp_path / "program.rs", tmp_path / "tests"
    wanted = []
    for program in programs:
        source.write_text(program.text)
        built = subprocess.run(
            [tools["rustc"], "--edition", "2021", "--test", "-Cprefer-dynamic", *flags, source,
             "-o", binary], capture_output=True,
        )  # fmt: skip
        if built.returncode:
            wanted.append("does not compile")
            continue
        try:
            ran = subprocess.run(
                [binary], capture_output=True, timeout=10,
                env={"LD_LIBRARY_PATH": tools["libraries"]},
            )  # fmt: skip
            wanted.append("fails" if ran.returncode else "passes")
        except subprocess.TimeoutExpired:
            wanted.append("fails")
    kinds = {Outcome.PASSED: "passes", Outcome.COMPILE_ERROR: "does not compile"}
    said = [kinds.get(v.outcome, "fails") for v in judge(sandbox, programs, limits=Limits())]
    assert said == wanted
    assert len(set(wanted)) == 3
