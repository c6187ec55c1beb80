"""What Java's judge needs, built once for each JDK: servers, and archives of JDK classes.

An archive ("class data sharing") holds parsed classes, which a new Java machine maps instead of
reading them: a third of its start. Only the JDK's own classes are put in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable, Sequence

from geex_jax import files
from geex_jax.benchmark.languages.base import NATIVE, tail
from geex_jax.errors import GeexError

_CURRENT = "current.json"
_SOURCES = (
    "JavaCompileServer.java", "JavaFiles.java", "JavaLaunch.java", "JavaWarm.java", "java_run.c",
    "zygote.h",
)  # fmt: skip
_EXPORTS = [
    x for package in ("api", "main")
    for x in ("--add-exports", f"jdk.compiler/com.sun.tools.javac.{package}=ALL-UNNAMED")
]  # fmt: skip
# Archives are mapped where they were made for: some JDKs move them elsewhere, at 10 ms each.
_SHARED = ["-XX:+UnlockDiagnosticVMOptions", "-XX:ArchiveRelocationMode=0", "-Xshare:auto"]
_SERVER = [
    "-XX:+IgnoreUnrecognizedVMOptions", "-XX:-UsePerfData", *_SHARED, "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1", "-Xmn64m", "-Xmx1g", "-XX:+ExitOnOutOfMemoryError",
    "-XX:+DisplayVMOutputToStderr", "-Duser.language=en", *_EXPORTS,
]  # fmt: skip
_RUN = [
    # Only G1 maps archived objects in JDK 17; with SerialGC a start takes 15 ms longer.
    "-XX:+IgnoreUnrecognizedVMOptions", *_SHARED, "-XX:+UseG1GC", "-XX:ParallelGCThreads=1",
    "-XX:ConcGCThreads=1", "-XX:-UsePerfData", "-XX:-UseContainerSupport", "-Xms16m",
    "-XX:CompressedClassSpaceSize=64m", "-XX:+DisableAttachMechanism",
    "-XX:+DisplayVMOutputToStderr",
]  # fmt: skip
_BESIDE_HEAP = 320 << 20  # code, class data, stacks, the collector's tables


@dataclasses.dataclass(frozen=True)
class Tools:
    """Commands and files, as they are called inside the sandbox or outside.

    Attributes:
      server: command of the compile server.
      runner: command of the fork server, or empty: none could be built.
      why_no_runner: in words.
      launch: `java`, and the class path of JavaLaunch, for runs without the fork server.
      archive: class archive for runs, or "".
      mounts: host folders of the JDK.
    """

    server: list[str]
    runner: list[str]
    why_no_runner: str
    launch: tuple[str, str]
    archive: str
    mounts: list[str]

    def run_options(self, memory_bytes: int, cpu_seconds: float) -> list[str]:
        """Options of the machine that runs a program.

        Args:
          memory_bytes: what the program may use in all.
          cpu_seconds: of CPU time that it may use.
        """
        heap = max(memory_bytes // 2, memory_bytes - _BESIDE_HEAP) >> 20
        options = [*_RUN, f"-Xmx{heap}m"]
        if cpu_seconds < 10:
            # The optimizing compiler takes 5 ms to start, and pays in long runs only.
            options.append("-XX:TieredStopAtLevel=1")
        if self.archive:
            options.append(f"-XX:SharedArchiveFile={self.archive}")
        return options


def c_compiler() -> str | None:
    """Path of a C compiler, or None."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def read(cache: str | os.PathLike[str]) -> Tools:
    """Returns what `build` left in `cache`, which may have another path by now.

    Raises:
      OSError: nothing has been built there.
    """
    cache = pathlib.Path(cache)
    built = json.loads((cache / _CURRENT).read_text())
    folder = cache / built["folder"]
    java, javac = pathlib.Path(built["java"]), pathlib.Path(built["javac"])

    def archive(name: str) -> str:
        return str(folder / name) if (folder / name).is_file() else ""

    server = [str(javac / "bin/java"), *_SERVER]
    if archive("server.jsa"):
        server.append(f"-XX:SharedArchiveFile={archive('server.jsa')}")
    libraries = [f"{java}/lib/{x}" for x in ("server/libjvm.so", "libjava.so", "libjimage.so",
                                             "libzip.so")]  # fmt: skip
    return Tools(
        [*server, "-cp", str(folder / "server.jar"), "JavaCompileServer"],
        [] if built["no_runner"] else [str(folder / "java_run"), *libraries],
        built["no_runner"], (str(java / "bin/java"), str(folder / "launch.jar")),
        archive("run.jsa"), built["mounts"],
    )  # fmt: skip


def build(cache: pathlib.Path) -> None:
    """Builds everything for the `java` and `javac` of the PATH, unless it is there.

    One builder at a time, please: the sandbox sees to it.

    Raises:
      GeexError: there is no JDK, or it cannot compile the compile server.
    """
    java, javac = home("java"), home("javac")
    parts: list[str | bytes] = [(NATIVE / name).read_bytes() for name in _SOURCES]
    for folder in (java, javac):
        info = os.stat(_modules(folder))
        parts.append(f"{folder} {info.st_size} {info.st_mtime_ns}")
    parts.append(f"{c_compiler()} {_SERVER} {_RUN}")
    name = files.fingerprint(*parts)
    if not (cache / name).is_dir():
        with tempfile.TemporaryDirectory(dir=cache, prefix=".build-") as temporary:
            built = pathlib.Path(temporary) / "tools"
            built.mkdir()
            _build(built, java, javac)
            os.rename(built, cache / name)
    settings = {
        "folder": name, "java": str(java), "javac": str(javac),
        "no_runner": (cache / name / "no_runner.txt").read_text(),
        "mounts": _mounts({java, javac}),
    }  # fmt: skip
    with contextlib.suppress(OSError, ValueError):
        if json.loads((cache / _CURRENT).read_text()) == settings:
            return
    files.write_json(cache / _CURRENT, settings)


def home(tool: str) -> pathlib.Path:
    """The JDK that a tool of the PATH belongs to.

    Raises:
      GeexError: the tool is not there.
    """
    path = shutil.which(tool)
    if path is None:
        raise GeexError(f"Java: no {tool}", "apt-get install openjdk-17-jdk-headless")
    folder = pathlib.Path(path).resolve().parent.parent
    if _modules(folder).is_file():
        return folder
    # Something like jenv or sdkman stands before the real one.
    shown = _run([path, *(["-J-XshowSettings:properties"] if tool == "javac" else
                          ["-XshowSettings:properties"]), "-version"])  # fmt: skip
    found = re.search(r"java\.home = (.+)", shown)
    if not found or not _modules(pathlib.Path(found[1])).is_file():
        raise GeexError(f"Java: cannot tell which JDK {path} belongs to", "put its bin into PATH")
    return pathlib.Path(found[1])


def _modules(folder: pathlib.Path) -> pathlib.Path:
    return folder / "lib/modules"


def _mounts(homes: Iterable[pathlib.Path]) -> list[str]:
    """The JDKs' folders, and folders outside that their links lead to."""
    found = {str(x) for x in homes}
    for folder in list(found):
        for base, folders, names in os.walk(folder):
            for name in (*folders, *names):
                path = os.path.join(base, name)
                if os.path.islink(path):
                    real = os.path.realpath(path)
                    real = real if os.path.isdir(real) else os.path.dirname(real)
                    if real.startswith("/etc/") and "java" in real:
                        found.add(real)
    return sorted(found)


def _run(argv: Sequence[str], stdin: bytes = b"", cwd: pathlib.Path | None = None) -> str:
    """Runs a command; returns what it printed.

    Raises:
      GeexError: it failed.
    """
    environment = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
    try:
        done = subprocess.run(
            argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
            env={**environment, "LANG": "C.UTF-8"}, cwd=cwd,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GeexError(f"Java: {argv[0]}: {error}", "see 'geex doctor'") from None
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        raise GeexError(f"Java: {os.path.basename(argv[0])} failed: {tail(text, 300)}",
                        "see 'geex doctor'")  # fmt: skip
    return text


def _build(folder: pathlib.Path, java: pathlib.Path, javac: pathlib.Path) -> None:
    classes = folder / "classes"
    sources = [str(NATIVE / x) for x in _SOURCES if x.endswith(".java")]
    _run([str(javac / "bin/javac"), "-nowarn", *_EXPORTS, "-d", str(classes), *sources])
    jars = {"server": ("JavaCompileServer", "JavaFiles"), "launch": ("JavaLaunch",)}
    for name, starts in jars.items():
        with zipfile.ZipFile(folder / f"{name}.jar", "w") as jar:
            for path in sorted(classes.glob("*.class")):
                if path.name.startswith(starts):
                    jar.write(path, path.name)
    why = ""
    try:
        _build_runner(folder, java, javac)
    except GeexError as error:
        why = error.what
    (folder / "no_runner.txt").write_text(why)
    # An archive is a gift: where it cannot be made, the JDK's own is used.
    with contextlib.suppress(GeexError):
        _archive(folder, "run", java, [*_RUN, "-Xmx256m"], ["-cp", str(classes), "JavaWarm"])
    with contextlib.suppress(GeexError):
        _archive(folder, "server", javac, _SERVER,
                 ["-cp", str(classes), "JavaCompileServer"], _training())  # fmt: skip
    shutil.rmtree(classes)


def _build_runner(folder: pathlib.Path, java: pathlib.Path, javac: pathlib.Path) -> None:
    compiler = c_compiler()
    if compiler is None:
        raise GeexError("no C compiler")
    include = next((x / "include" for x in (java, javac) if (x / "include/jni.h").is_file()), None)
    if include is None:
        raise GeexError("the JDK has no jni.h")
    if not (java / "lib/server/libjvm.so").is_file():
        raise GeexError("the JDK has no libjvm.so")
    # Its `socket` has to come before the C library's.
    out = ["-rdynamic", "-o", str(folder / "java_run"), "-ldl", "-lpthread"]
    _run([compiler, "-O2", f"-I{include}", f"-I{include}/linux", str(NATIVE / "java_run.c"), *out])


def _archive(
    folder: pathlib.Path, name: str, jdk: pathlib.Path, options: Sequence[str],
    program: Sequence[str], stdin: bytes = b"",
) -> None:  # fmt: skip
    """Makes `name`.jsa of the JDK's classes that a run of `program` loads."""
    java, listing, out = str(jdk / "bin/java"), folder / f"{name}.list", folder / f"{name}.jsa"
    _run([java, *options, f"-XX:DumpLoadedClassList={listing}", *program], stdin, folder)
    lines: dict[str, None] = {}
    for path in (jdk / "lib/classlist", listing):
        if path.is_file():
            text = path.read_text(errors="replace")
            lines |= dict.fromkeys(x for x in text.splitlines() if _of_the_jdk(x))
    listing.write_text("\n".join(lines) + "\n")
    _run([java, *options, "-Xshare:dump", f"-XX:SharedClassListFile={listing}",
          f"-XX:SharedArchiveFile={out}"], cwd=folder)  # fmt: skip
    listing.unlink()
    try:
        _run([java, *options, "-Xshare:on", f"-XX:SharedArchiveFile={out}", *program], stdin,
             folder)  # fmt: skip
    except GeexError:
        out.unlink(missing_ok=True)
        raise


def _of_the_jdk(line: str) -> bool:
    return bool(re.match(r"(@lambda-form-invoker |(java|javax|jdk|sun|com/sun)/)", line)) and (
        "source:" not in line
    )


def _training() -> bytes:
    """Requests that make the compile server load what most programs need."""
    warm = (NATIVE / "JavaWarm.java").read_bytes()
    out = b""
    for text in (warm, warm.replace(b";", b"", 1), warm.replace(b"List<", b"Lost<", 1)):
        message = struct.pack(">I", len(text)) + text
        out += struct.pack(">I", len(message)) + message
    return out
