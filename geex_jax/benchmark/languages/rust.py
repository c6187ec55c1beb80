"""Rust: many programs as modules of one crate, judged by `rustc --test` and one run for each."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from geex_jax.benchmark.languages import rust_text, rust_tools
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
from geex_jax.files import atomic_write, fingerprint, write_json

if TYPE_CHECKING:
    from geex_jax.benchmark.sandbox.finished import Channel, Finished
    from geex_jax.benchmark.sandbox.jail import Jail

_MAIN = "\nfn main(){ \n } \n"
_ASSERTION = r"(?m)^assertion (failed|`)|panicked at 'assertion failed"
_MEMORY = r"memory allocation of \d+ bytes failed"
_ERRORS_READ = 16 << 20
_COMPILER_MEMORY = 512 << 20  # it and its linker fail in odd ways with less than half of this


class Rust(Language):
    """The reference runs `cargo check` and `cargo test` for each program; see README."""

    name, title, prefix, data = "rust", "Rust", "Rust", "rust"
    batch = 48

    def __init__(self) -> None:
        self.tools: dict[str, Any] = {}

    # On the host -------------------------------------------------------------------------

    def toolchain(self) -> Toolchain:
        """rustc and cargo, of rustup or of the system; a linker; the crates programs may use."""
        versions, missing = {}, []
        for tool, get in (
            ("rustc", rust_tools.GET_RUST),
            ("cargo", rust_tools.GET_RUST),
            ("cc", "apt-get install gcc"),
        ):
            path = rust_tools.find(tool)
            said = version([path, "--version"]) if path else None
            if said:
                versions[tool] = said
            else:
                missing.append((tool, get))
        crates = rust_tools.debian_crates()
        versions["crates"] = " ".join(crates) or "crates.io"
        names = f"crates {', '.join(rust_tools.CRATES)} (else fetched from crates.io)"
        advice = () if crates else ((names, rust_tools.GET_CRATES),)
        return Toolchain(versions, tuple(missing), advice)

    def prepare(self, cache: pathlib.Path) -> None:
        """Builds the crates that programs may use, once for each compiler."""
        tools = rust_tools.find_tools()
        rustc = version([tools["rustc"], "--version"]) or ""
        crates = rust_tools.debian_crates()
        folder = cache / f"crates-{fingerprint(rustc, *crates, repr(rust_tools.CRATES))}"
        if not folder.exists():
            rust_tools.build_crates(tools, folder, [True, False] if crates else [False])
        externs = json.loads((folder / "externs.json").read_text())
        release = [int(x) for x in re.findall(r"\d+", rustc)[:2]]
        linker = [x for x in ("lld", "gold") if shutil.which(f"ld.{x}")][:1]
        if release >= [1, 90] and os.uname().machine == "x86_64":
            linker = []  # its own lld is the default
        write_json(cache / "tools.json", {
            **{k: tools[k] for k in ("rustc", "sysroot", "libraries")},
            "crates": folder.name, "externs": externs, "linker": linker,
        })  # fmt: skip
        flags = [
            f"-Ldependency={folder}",
            *(f"--extern={k}={folder}/{v}" for k, v in externs.items()),
        ]
        with atomic_write(cache / "reference-flags") as file:  # for the benchmark of the harness
            file.write(" ".join(flags))

    def mounts(self, cache: pathlib.Path) -> list[str]:
        """The compiler's own folder."""
        return [rust_tools.find_tools()["sysroot"]]

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
            if its.refused:
                yield i, Verdict(Outcome.VIOLATION, its.refused)
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
        # Several times what is usual. What takes longer gets its full time alone.
        usual = min(limits.compile_seconds, 2 + len(programs) // 8)
        hasty = dataclasses.replace(limits, compile_seconds=usual)
        while live:
            lines = [f'#[path = "{stem}{i}.rs"] mod {stem}{i};\n' for i in live]
            _write(jail, "root.rs", "".join(lines))
            done, said = self._compile(jail, "root.rs", ["--test", "-o", "tests"], hasty)
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
        """As the reference, compiles without `cfg(test)` too. Returns `verdict` if that works."""
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
            self.tools["rustc"], "--sysroot", self.tools["sysroot"], source,
            "--edition", rust_tools.EDITION, "-Awarnings", "--error-format=json",
            "-Cprefer-dynamic", "-Ccodegen-units=1", "-L", f"dependency={crates}", *options,
        ]  # fmt: skip
        for name, file in self.tools["externs"].items():
            argv += ["--extern", f"{name}={crates}/{file}"]
        for name in self.tools["linker"]:
            argv += [f"-Clink-arg=-fuse-ld={name}"]
        enough = dataclasses.replace(
            limits, memory_bytes=max(limits.memory_bytes, _COMPILER_MEMORY)
        )
        messages = os.memfd_create("messages", os.MFD_CLOEXEC)
        try:
            done = jail.run(
                argv, limits=enough, compiling=True, env={"TMPDIR": jail.work},
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
    memory = re.search(_MEMORY, said)
    if done.status != 1 and memory:
        return Verdict(Outcome.MEMORY, f"compiler: {memory[0]}", compile_seconds=seconds)
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
            summary = message.get("message", "").startswith("aborting due to")
            if message.get("level") == "error" and "spans" in message and not summary:
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
            text = (message["rendered"] or message["message"]).replace(
                f"{stem}{i}.rs", "program.rs"
            )
            out[i] = head(f"{out.get(i, '')}\n{text}")
    return out
