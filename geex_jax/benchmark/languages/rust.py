"""Rust: many programs as modules of one crate, judged by `rustc --test` and one run for each."""

from __future__ import annotations

import json
import os
import pathlib
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from geex_jax.benchmark.languages import rust_text
from geex_jax.benchmark.languages.base import Language, head, tail, verdict_of_run, version
from geex_jax.benchmark.languages.types import (
    Limits,
    Outcome,
    Problem,
    Program,
    Toolchain,
    Verdict,
)
from geex_jax.errors import GeexError
from geex_jax.files import fingerprint, write_json

if TYPE_CHECKING:
    from geex_jax.benchmark.sandbox.finished import Channel, Finished
    from geex_jax.benchmark.sandbox.jail import Jail

EDITION = "2021"  # of the reference's Cargo.toml
# The reference names rand 0.4; this is what today's systems have (Rust/50's test needs 0.4).
CRATES = {"rand": "0.8", "regex": "1", "md5": "0.7"}
DEBIAN_CRATES = pathlib.Path("/usr/share/cargo/registry")
_GET_RUST = "apt-get install rustc cargo gcc  (or https://rustup.rs)"
_GET_CRATES = "apt-get install librust-rand+default-dev librust-regex+default-dev librust-md5-dev"
_MAIN = "\nfn main(){ \n } \n"
_ASSERTION = r"(?m)^assertion (failed|`)|panicked at 'assertion failed"
_MEMORY = r"memory allocation of \d+ bytes failed"
_ERRORS_READ = 16 << 20


class Rust(Language):
    """The reference runs `cargo check` and `cargo test` for each program; see README."""

    name, title, prefix, data = "rust", "Rust", "Rust", "rust"
    batch = 32

    def __init__(self) -> None:
        self.tools: dict[str, Any] = {}

    # On the host -------------------------------------------------------------------------

    def toolchain(self) -> Toolchain:
        """rustc and cargo, of rustup or of the system; a linker; the crates programs may use."""
        versions, missing = {}, []
        for tool, get in (("rustc", _GET_RUST), ("cargo", _GET_RUST), ("cc", "apt-get install gcc")):
            path = _find(tool)
            said = version([path, "--version"]) if path else None
            if said:
                versions[tool] = said
            else:
                missing.append((tool, get))
        versions["crates"] = " ".join(_debian_crates()) or "crates.io"
        advice = () if _debian_crates() else (
            (f"crates {', '.join(CRATES)} (else fetched from crates.io)", _GET_CRATES),
        )  # fmt: skip
        return Toolchain(versions, tuple(missing), advice)

    def prepare(self, cache: pathlib.Path) -> None:
        """Builds the crates that programs may use, once for each compiler."""
        tools = self._find_tools()
        rustc = version([tools["rustc"], "--version"]) or ""
        crates = _debian_crates()
        folder = cache / f"crates-{fingerprint(rustc, *crates, repr(CRATES))}"
        if not folder.exists():
            _build_crates(tools, folder, [True, False] if crates else [False])
        externs = json.loads((folder / "externs.json").read_text())
        release = [int(x) for x in re.findall(r"\d+", rustc)[:2]]
        linker = [x for x in ("lld", "gold") if shutil.which(f"ld.{x}")][:1]
        if release >= [1, 90] and os.uname().machine == "x86_64":
            linker = []  # its own lld is the default
        write_json(cache / "tools.json", {
            **{k: tools[k] for k in ("rustc", "sysroot", "libraries")},
            "crates": folder.name, "externs": externs, "linker": linker,
        })  # fmt: skip

    def mounts(self, cache: pathlib.Path) -> list[str]:
        """The compiler's own folder."""
        return [self._find_tools()["sysroot"]]

    def assemble(self, problem: Problem, code: str) -> Program:
        """An empty main, declaration, the prompt (a comment, inside the body), code, tests.

        CodeGeeX2's data has the declaration in the prompt already.
        """
        declaration, prompt = problem["declaration"], problem["prompt"]
        if declaration.strip() and declaration.strip() in prompt:
            declaration = ""
        test, task_id = problem["test"], problem["task_id"]
        try:
            rust_text.with_proof(test, 0, 0, 0)
        except ValueError as error:
            raise GeexError(f"the tests of {task_id} cannot be run: {error}") from None
        return Program(_MAIN + declaration + prompt + code, test, task_id=task_id)

    def is_finished(self, code: str) -> bool:
        """CodeGeeX2's rule; the first reference has none for Rust."""
        return "\nfn main()" in code or code.count("{") + 1 == code.count("}")

    def clean(self, code: str) -> str:
        """CodeGeeX2's rule: up to the last closing brace."""
        return code[: code.rfind("}") + 1] if "}" in code else code

    def _find_tools(self) -> dict[str, str]:
        """The compiler itself instead of rustup's proxy, which costs a start more."""
        rustc = _find("rustc")
        if rustc is None:
            raise GeexError("Rust: no rustc", _GET_RUST)
        asked = [_output([rustc, "--print", x]) for x in ("sysroot", "target-libdir")]
        sysroot, libraries = (os.path.realpath(x) for x in asked)
        tools = {"rustc": rustc, "sysroot": sysroot, "libraries": libraries}
        for tool in ("rustc", "cargo"):
            own = os.path.join(sysroot, "bin", tool)
            tools[tool] = own if os.access(own, os.X_OK) else _find(tool) or ""
        return tools

    # In the sandbox ----------------------------------------------------------------------

    def start(self, jail: Jail) -> None:
        """Reads where `prepare` found the compiler."""
        self.tools = json.loads(pathlib.Path(jail.cache, "tools.json").read_text())

    def judge(
        self, jail: Jail, programs: Sequence[Program], limits: Limits
    ) -> Iterator[tuple[int, Verdict]]:
        """Those that may share a crate together, then the others one by one."""
        traits = [rust_text.traits_of(x.code) for x in programs]
        alone, together = [], []
        for i, its in enumerate(traits):
            if its.reads_files:
                said = "has the compiler read files (include!, include_str!, include_bytes!)"
                yield i, Verdict(Outcome.VIOLATION, said)
            else:
                (alone if its.alone else together).append(i)
        for i, verdict in self._together(jail, {i: programs[i] for i in together}, limits):
            if verdict is None:
                alone.append(i)
            elif verdict.outcome is Outcome.PASSED and traits[i].two_builds:
                yield i, self._without_tests(jail, programs[i], limits, verdict)
            else:
                yield i, verdict
        for i in alone:
            verdict = self._alone(jail, programs[i], limits)
            if verdict.outcome is Outcome.PASSED and traits[i].two_builds:
                verdict = self._without_tests(jail, programs[i], limits, verdict)
            yield i, verdict

    def _together(
        self, jail: Jail, programs: Mapping[int, Program], limits: Limits
    ) -> Iterator[tuple[int, Verdict | None]]:
        """Each program is a module in a file of its own, so that all it opens ends there.

        Programs with errors are left out and the rest is tried again. None: the compiler did
        not get through, or did not say whose fault it was; that program has to go alone.
        """
        if not programs:
            return
        jail.fresh()
        stem = f"p{secrets.token_hex(4)}_"  # no program can name another
        channels = {i: jail.channel() for i in programs}
        for i, program in programs.items():
            _write(jail, f"{stem}{i}.rs", _text(program, channels[i]))
        live, errors, spent, status = sorted(programs), dict[int, str](), 0.0, 0
        while live:
            lines = [f'#[path = "{stem}{i}.rs"] mod {stem}{i};\n' for i in live]
            _write(jail, "root.rs", "".join(lines))
            done, said = self._compile(jail, "root.rs", ["--test", "-o", "tests"], limits)
            spent, status = spent + done.cpu_seconds, done.status
            if status == 0:
                break
            found = {i: x for i, x in _by_file(said, stem).items() if i in live}
            if status != 1 or not found:
                break
            errors |= found
            live = [i for i in live if i not in found]
        share = spent / max(len(programs), 1)
        for i, text in errors.items():
            channels[i].close()
            yield i, Verdict(Outcome.COMPILE_ERROR, text, compile_seconds=share)
        if status != 0:
            for i in live:
                channels[i].close()
                yield i, None
        elif live:
            _hide_sources(jail)
            for i in live:
                verdict = self._run(jail, channels[i], limits, share, f"{stem}{i}::")
                verdict.message = verdict.message.replace(f"{stem}{i}::", "").replace(
                    f"{stem}{i}.rs", "program.rs"
                )
                yield i, verdict

    def _alone(self, jail: Jail, program: Program, limits: Limits) -> Verdict:
        """The program is the root of its crate, as in the reference."""
        jail.fresh()
        channel = jail.channel()
        _write(jail, "program.rs", _text(program, channel))
        options = ["--test", "-o", "tests", "--crate-name", _crate_name(program)]
        done, said = self._compile(jail, "program.rs", options, limits)
        if done.status == 0:
            _hide_sources(jail)
            return self._run(jail, channel, limits, done.cpu_seconds)
        channel.close()
        return _refused(done, said)

    def _without_tests(
        self, jail: Jail, program: Program, limits: Limits, verdict: Verdict
    ) -> Verdict:
        """The reference compiles once without `cfg(test)` first. Returns `verdict` if that works."""
        _write(jail, "program.rs", program.text)
        options = ["--emit=metadata", "-o", "program.rmeta", "--crate-name", _crate_name(program)]
        done, said = self._compile(jail, "program.rs", options, limits)
        os.unlink(os.path.join(jail.work, "program.rs"))
        return verdict if done.status == 0 else _refused(done, said)

    def _compile(
        self, jail: Jail, source: str, options: Sequence[str], limits: Limits
    ) -> tuple[Finished, str]:
        """Returns how the compiler ended and its messages, one JSON object a line."""
        crates = os.path.join(jail.cache, self.tools["crates"])
        argv = [
            self.tools["rustc"], "--sysroot", self.tools["sysroot"], source, "--edition", EDITION,
            "-Awarnings", "--error-format=json", "-Cprefer-dynamic", "-Ccodegen-units=1",
            "-L", f"dependency={crates}", *options,
        ]  # fmt: skip
        for name, file in self.tools["externs"].items():
            argv += ["--extern", f"{name}={crates}/{file}"]
        for name in self.tools["linker"]:
            argv += [f"-Clink-arg=-fuse-ld={name}"]
        messages = os.memfd_create("messages", os.MFD_CLOEXEC)
        try:
            done = jail.run(
                argv, limits=limits, compiling=True, env={"TMPDIR": jail.work},
                descriptors={2: messages},
            )  # fmt: skip
            return done, os.pread(messages, _ERRORS_READ, 0).decode("utf-8", "replace")
        finally:
            os.close(messages)

    def _run(
        self, jail: Jail, channel: Channel, limits: Limits, compile_seconds: float, only: str = ""
    ) -> Verdict:
        """Runs the tests whose names begin with `only`, each in a thread as cargo does."""
        run = jail.run(
            [f"{jail.work}/tests", "--nocapture", "--test-threads=2", *filter(None, [only])],
            limits=limits, channel=channel,
            env={"LD_LIBRARY_PATH": self.tools["libraries"], "RUST_BACKTRACE": "0"},
        )  # fmt: skip
        return verdict_of_run(
            run, assertion=_ASSERTION, memory=_MEMORY, compile_seconds=compile_seconds
        )


def _text(program: Program, channel: Channel) -> str:
    test = rust_text.with_proof(program.test, channel.fd, channel.first, channel.second)
    return program.code + test


def _crate_name(program: Program) -> str:
    return re.sub(r"\W", "_", program.task_id.lower()) or "program"


def _write(jail: Jail, name: str, text: str) -> None:
    with open(os.path.join(jail.work, name), "wb") as file:
        file.write(text.encode("utf-8", "surrogatepass"))


def _hide_sources(jail: Jail) -> None:
    """A program may run its tests, but read neither them nor their source."""
    for entry in os.scandir(jail.work):
        if entry.name.endswith(".rs"):
            os.unlink(entry.path)
    os.chmod(os.path.join(jail.work, "tests"), 0o711)


def _refused(done: Finished, said: str) -> Verdict:
    """What becomes of a program that the compiler, alone with it, did not get through."""
    seconds = done.cpu_seconds
    if done.timed_out:
        return Verdict(Outcome.TIMEOUT, f"compiler: {done.timed_out}", compile_seconds=seconds)
    if done.status != 1 and re.search(_MEMORY, said):
        return Verdict(Outcome.MEMORY, f"compiler: {tail(said)}", compile_seconds=seconds)
    texts = [x["rendered"] or x["message"] for x in _errors(said)]
    text = head("\n".join(texts)) or f"compiler: {tail(said) or done.how}"
    return Verdict(Outcome.COMPILE_ERROR, text, compile_seconds=seconds)


def _errors(said: str) -> Iterator[dict[str, Any]]:
    for line in said.splitlines():
        if line.startswith("{"):
            try:
                message = json.loads(line)
            except ValueError:  # cut off
                continue
            if message.get("level") == "error" and "spans" in message:
                yield message


def _by_file(said: str, stem: str) -> dict[int, str]:
    """Program -> the errors in its file, through the macros that they were found in."""
    name = re.compile(re.escape(stem) + r"(\d+)\.rs$")

    def programs(spans: Sequence[Mapping[str, Any]]) -> Iterator[int]:
        for span in spans:
            found = name.search(span["file_name"])
            if found:
                yield int(found[1])
            if span.get("expansion"):
                yield from programs([span["expansion"]["span"]])

    out: dict[int, str] = {}
    for message in _errors(said):
        spans = message["spans"]
        guilty = set(programs([x for x in spans if x["is_primary"]]))
        inner = [span for child in message["children"] for span in child["spans"]]
        for i in guilty or set(programs([*spans, *inner])):
            text = (message["rendered"] or message["message"]).replace(f"{stem}{i}.rs", "program.rs")
            out[i] = head(f"{out.get(i, str())}\n{text}")
    return out


# Tools and crates ------------------------------------------------------------------------


def _find(tool: str) -> str | None:
    home = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    return shutil.which(tool) or shutil.which(tool, path=os.path.join(home, "bin"))


def _output(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd="/")
    except (OSError, subprocess.CalledProcessError) as error:
        raise GeexError(f"Rust: {argv[0]} does not run: {error}", _GET_RUST) from None
    return done.stdout.strip()


def _debian_crates() -> list[str]:
    """Folders of CRATES' sources from the system's packages; empty unless all are there."""
    found = [sorted(DEBIAN_CRATES.glob(f"{k}-{v}.*")) for k, v in CRATES.items()]
    return [x[-1].name for x in found] if all(found) else []


def _build_crates(tools: Mapping[str, str], folder: pathlib.Path, ways: Sequence[bool]) -> None:
    """Builds CRATES into `folder`, from the system's sources (a true way) or from crates.io."""
    if not tools["cargo"]:
        raise GeexError("Rust: no cargo", _GET_RUST)
    why = ""
    with tempfile.TemporaryDirectory(prefix=".crates-", dir=folder.parent) as temporary:
        for i, offline in enumerate(ways):
            base = pathlib.Path(temporary, str(i))
            externs, why = _cargo(tools, base, offline)
            if externs:
                ready = base / "crates"
                ready.mkdir()
                for file in (base / "target/debug/deps").glob("*.rlib"):
                    shutil.copy(file, ready)
                write_json(ready / "externs.json", externs)
                try:
                    os.rename(ready, folder)
                except OSError:  # somebody else was faster
                    if not folder.exists():
                        raise
                return
    raise GeexError(
        f"Rust: the crates {', '.join(CRATES)} cannot be built ({why})",
        f"{_GET_CRATES}; or connect to crates.io",
    )


def _cargo(
    tools: Mapping[str, str], base: pathlib.Path, offline: bool
) -> tuple[dict[str, str], str]:
    """Returns ({crate: file name}, "") or ({}, why not)."""
    (base / "src").mkdir(parents=True)
    (base / "src/lib.rs").write_text("")
    wanted = "".join(f'{k} = "{v}"\n' for k, v in CRATES.items())
    (base / "Cargo.toml").write_text(
        f'[package]\nname = "crates"\nversion = "0.1.0"\nedition = "{EDITION}"\n'
        f"[dependencies]\n{wanted}[profile.dev]\ndebug = 0\nincremental = false\n[workspace]\n"
    )
    if offline:
        (base / ".cargo").mkdir()
        (base / ".cargo/config.toml").write_text(
            '[source.crates-io]\nreplace-with = "system"\n'
            f'[source.system]\ndirectory = "{DEBIAN_CRATES}"\n'
        )
    env = {k: v for k, v in os.environ.items() if "RUSTFLAGS" not in k and "CARGO_BUILD" not in k}
    env |= {"RUSTC": tools["rustc"], "CARGO_TARGET_DIR": f"{base}/target"}
    argv = [tools["cargo"], "build", "--message-format=json", *(["--offline"] if offline else [])]
    try:
        done = subprocess.run(argv, cwd=base, env=env, capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {}, str(error)
    if done.returncode != 0:
        lines = [x for x in done.stderr.splitlines() if x.startswith("error")]
        return {}, (lines or ["cargo failed"])[0]
    externs = {}
    for line in done.stdout.splitlines():
        artifact = json.loads(line)
        if artifact["reason"] == "compiler-artifact" and artifact["target"]["name"] in CRATES:
            files = [x for x in artifact["filenames"] if x.endswith(".rlib")]
            externs[artifact["target"]["name"]] = os.path.basename(files[0])
    return externs, ""
