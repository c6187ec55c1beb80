"""Builds what makes C++ quick to judge: a compiler and a linker that fork instead of starting.

The folder that `build` makes holds, for each set of headers in `PREFIXES`, a precompiled header
and a main file that includes it and then the sample; an archive of common template instances; and
the library that turns cc1plus and ld into fork servers (native/cc1plus_serve.c).
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence

from geex_jax import files
from geex_jax.benchmark.sandbox import native
from geex_jax.errors import GeexError

STANDARD = "-std=c++11"
# The reference puts these before a program whose prompt lacks them, so all are always there.
HEADERS = (
    "stdlib.h", "algorithm", "math.h", "stdio.h", "vector", "string", "climits", "cstring",
    "iostream",
)  # fmt: skip
# Further headers of programs that get a compiler of their own, which has read them already.
PREFIXES: tuple[tuple[str, ...], ...] = ((), ("map",))
# Instances of templates that nearly every program would compile anew, compiled once. A program
# sees the same declarations, and gets the same machine code, as without them.
_ELEMENTS = (
    "int", "float", "double", "char", "long long", "string", "vector<int>", "vector<string>",
    "vector<float>",
)  # fmt: skip
_INSTANCES = ("vector<{0}>", "_Vector_base<{0}, allocator<{0}>>", "allocator<{0}>")


@dataclasses.dataclass(frozen=True)
class Commands:
    """The command lines that `g++ -std=c++11` runs, in parts.

    Attributes:
      compile: cc1plus and its flags, without input and output.
      assemble: as and its flags, without output (the input is standard input).
      linkers: paths of linkers, best first.
      link_head: flags, start files and folders, up to the program's own objects.
      link_tail: libraries and end files, from there on.
      archives: static parts of the C and compiler libraries.
    """

    compile: list[str]
    assemble: list[str]
    linkers: list[str]
    link_head: list[str]
    link_tail: list[str]
    archives: list[str]


def driver() -> str | None:
    """Path of g++, or None. The reference runs /usr/bin/g++."""
    return "/usr/bin/g++" if os.access("/usr/bin/g++", os.X_OK) else shutil.which("g++")


def commands(gxx: str) -> Commands:
    """Asks g++ what it runs.

    Raises:
      ValueError: its answer has another form than expected.
    """
    said = _run([gxx, "-###", STANDARD, "sample.cpp", "-o", "program"]).stderr
    lines = [shlex.split(x) for x in said.splitlines() if x.startswith(" ")]
    try:
        compiler = next(x for x in lines if x[0].endswith("cc1plus"))
        assembler = next(x for x in lines if os.path.basename(x[0]).endswith("as"))
        linker = next(x for x in lines if os.path.basename(x[0]) in ("collect2", "ld"))
    except StopIteration:
        raise ValueError("g++ -### names no cc1plus, as and collect2") from None
    made = assembler[assembler.index("-o") + 1]
    at = linker.index(made)
    archives = [_run([gxx, f"-print-file-name={x}"]).stdout.strip()
                for x in ("libc_nonshared.a", "libgcc.a")]  # fmt: skip
    return Commands(
        _without(compiler, {"sample.cpp"}, {"-o", "-dumpdir", "-dumpbase", "-dumpbase-ext"}),
        [shutil.which(assembler[0]) or assembler[0],
         *_without(assembler[1:], {x for x in assembler if x.endswith(".s")}, {"-o"})],
        [x for x in map(shutil.which, ("ld.gold", "ld.bfd")) if x],
        [x for x in _without(linker[1:at], {"--build-id"}, {"-o", "-plugin"})
         if not x.startswith("-plugin-opt")],
        linker[at + 1 :],
        [x for x in archives if os.path.isabs(x)],
    )  # fmt: skip


def _without(words: Iterable[str], single: set[str], with_value: set[str]) -> list[str]:
    out, words = [], iter(words)
    for word in words:
        if word in with_value:
            next(words, None)
        elif word not in single:
            out.append(word)
    return out


def linking(parts: Commands, linker: str, folder: str, script: str, output: str) -> list[str]:
    """Command line of a linker that forks when it comes to the sample.

    All libraries come before it, so that they have been read by then. Gold reads all files
    before it looks at any, except those that a script names: hence the script.

    Args:
      parts: see `Commands`.
      linker: its path.
      folder: what `build` made.
      script: path of a linker script that names the sample's object.
      output: path of the program.
    """
    ends = [x for x in parts.link_tail if x.endswith(".o")]
    return [
        linker, *parts.link_head, "-o", output, f"{folder}/proof.o", "--no-as-needed",
        "-lstdc++", "-lm", "-lgcc_s", "-lc", script, f"{folder}/classes.a", *parts.archives, *ends,
    ]  # fmt: skip


def key(gxx: str) -> str:
    """Name of the folder for this compiler and these sources."""
    sources = [pathlib.Path(__file__), *sorted(native.NATIVE.glob("cc1plus_*")),
               native.NATIVE / "zygote.h"]  # fmt: skip
    tools = [_run([gxx, "-v"]).stderr, *(_run([x, "--version"]).stdout
             for x in ("ld.gold", "ld.bfd", "as") if shutil.which(x))]  # fmt: skip
    return files.fingerprint(*(x.read_bytes() for x in sources), *tools)


def build(cache: pathlib.Path) -> None:
    """Makes the folder unless it is there, and notes its name in `cache`/current.

    What is needed in any case is proof.o; without commands.json, plain g++ is used, and the file
    "why" says what is wrong with the fork servers.

    Raises:
      GeexError: there is no g++, or it does not work.
    """
    gxx = driver()
    if gxx is None:
        raise GeexError("g++ is not installed", "apt-get install g++")
    name = key(gxx)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cache / name).exists():
            temporary = pathlib.Path(tempfile.mkdtemp(dir=cache))
            try:
                _fill(temporary, gxx)
                _open_to_all(temporary)
                os.replace(temporary, cache / name)
            except (OSError, subprocess.SubprocessError) as error:
                raise GeexError(
                    f"g++ does not compile what C++ is judged with: {_reason(error)}",
                    "apt-get install g++",
                ) from None
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        with files.atomic_write(cache / "current") as file:
            file.write(name)


def _reason(error: Exception) -> str:
    lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _open_to_all(folder: pathlib.Path) -> None:
    """Compilers in the sandbox are other users."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _fill(folder: pathlib.Path, gxx: str) -> None:
    for name in ("proof.hpp", "tests.hpp"):
        shutil.copy(native.NATIVE / f"cc1plus_{name}", folder / name)
    source = str(native.NATIVE / "cc1plus_{}.c")
    _make([gxx, "-x", "c", "-O1", "-fPIC", "-fno-stack-protector", "-c", source.format("proof"),
           "-o", "proof.o"], folder)  # fmt: skip
    try:
        parts = commands(gxx)
        _make([gxx, "-x", "c", "-O2", "-fPIC", "-shared", source.format("serve"), "-o",
               "serve.so"], folder)  # fmt: skip
        extern = _classes(folder, gxx)
        for prefix in PREFIXES:
            inner = folder / prefix_name(prefix)
            inner.mkdir()
            shutil.copy(folder / "tests.hpp", inner)
            head = _includes((*HEADERS, *prefix)) + (folder / "proof.hpp").read_text() + extern
            (inner / "prefix.hpp").write_text(head)
            (inner / "main.cpp").write_text('#include "prefix.hpp"\n#include "sample.cpp"\n')
            _make([gxx, STANDARD, "-x", "c++-header", "prefix.hpp", "-o", "prefix.hpp.gch"], inner)
        (folder / "commands.json").write_text(json.dumps(dataclasses.asdict(parts)))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        (folder / "why").write_text(_reason(error))


def prefix_name(prefix: Sequence[str]) -> str:
    """Name of the folder of a set of further headers."""
    return "-".join(("prefix", *prefix))


def _includes(headers: Iterable[str]) -> str:
    return "".join(f"#include <{x}>\n" for x in headers)


def _classes(folder: pathlib.Path, gxx: str) -> str:
    """Builds classes.a. Returns the declarations that go with it; "" if they don't compile."""
    inner = folder / "classes"
    inner.mkdir()
    extern = ""
    try:
        (inner / "all.hpp").write_text(_includes(HEADERS))
        _make([gxx, STANDARD, "-x", "c++-header", "all.hpp", "-o", "all.hpp.gch"], inner)
        for number, element in enumerate(_ELEMENTS):
            lines = [f"template class {x.format(element)};" for x in _INSTANCES]
            extern += "".join(f"extern {line}\n" for line in lines)
            text = '#include "all.hpp"\nnamespace std {\n' + "\n".join(lines) + "\n}\n"
            (inner / f"{number}.cpp").write_text(text)
            _make([gxx, STANDARD, "-c", f"{number}.cpp"], inner)
        objects = [f"classes/{x}.o" for x in range(len(_ELEMENTS))]
    except subprocess.SubprocessError:
        extern, objects = "", []
    _make(["ar", "rcs", "classes.a", *objects], folder)
    shutil.rmtree(inner)
    return f"namespace std {{\n{extern}}}\n"


def _make(command: Sequence[str], folder: pathlib.Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300,
                   env=_environment())  # fmt: skip


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, errors="replace",
                          env=_environment())  # fmt: skip


def _environment() -> dict[str, str]:
    """Without variables that change what a compiler does (CPATH, LIBRARY_PATH, ...)."""
    kept = ("PATH", "HOME", "TMPDIR")
    return {"LC_ALL": "C", **{k: os.environ[k] for k in kept if k in os.environ}}
