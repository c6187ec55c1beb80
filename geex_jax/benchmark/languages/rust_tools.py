"""Rust's compiler, and the crates that programs may use, on the user's machine."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from geex_jax.errors import GeexError
from geex_jax.files import write_json

EDITION = "2021"  # of the reference's Cargo.toml
# The reference names rand 0.4; this is what today's systems have (Rust/50's test needs 0.4).
CRATES = {"rand": "0.8", "regex": "1", "md5": "0.7"}
DEBIAN_CRATES = pathlib.Path("/usr/share/cargo/registry")
GET_RUST = "apt-get install rustc cargo gcc  (or https://rustup.rs)"
GET_CRATES = "apt-get install librust-rand+default-dev librust-regex+default-dev librust-md5-dev"


def find(tool: str) -> str | None:
    """Path of a tool, also where rustup puts it without telling PATH; None if there is none."""
    home = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    return shutil.which(tool) or shutil.which(tool, path=os.path.join(home, "bin"))


def find_tools() -> dict[str, str]:
    """The compiler itself instead of rustup's proxy, which costs a start more.

    Returns:
      Paths: rustc, cargo ("" if there is none), sysroot, libraries (of the standard library).

    Raises:
      GeexError: there is no rustc.
    """
    rustc = find("rustc")
    if rustc is None:
        raise GeexError("Rust: no rustc", GET_RUST)
    asked = [_output([rustc, "--print", x]) for x in ("sysroot", "target-libdir")]
    sysroot, libraries = (os.path.realpath(x) for x in asked)
    tools = {"sysroot": sysroot, "libraries": libraries}
    for tool in ("rustc", "cargo"):
        own = os.path.join(sysroot, "bin", tool)
        tools[tool] = own if os.access(own, os.X_OK) else find(tool) or ""
    return tools


def _output(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd="/")
    except (OSError, subprocess.CalledProcessError) as error:
        raise GeexError(f"Rust: {argv[0]} does not run: {error}", GET_RUST) from None
    return done.stdout.strip()


def debian_crates() -> list[str]:
    """Folders of CRATES' sources from the system's packages; empty unless all are there."""
    found = [sorted(DEBIAN_CRATES.glob(f"{k}-{v}.*")) for k, v in CRATES.items()]
    return [x[-1].name for x in found] if all(found) else []


def build_crates(tools: Mapping[str, str], folder: pathlib.Path, ways: Sequence[bool]) -> None:
    """Builds CRATES into `folder`, from the system's sources (a true way) or from crates.io."""
    if not tools["cargo"]:
        raise GeexError("Rust: no cargo", GET_RUST)
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
        f"{GET_CRATES}; or connect to crates.io",
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
