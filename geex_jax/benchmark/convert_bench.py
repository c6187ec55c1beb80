"""Peak host memory of `geex convert` on a synthetic checkpoint, and what a kill leaves behind.

Three conversions of the same files, each in a process of its own: one whole; one ended by SIGKILL
when half of its bytes are on disk; the same again, which must go on where that one stopped and
end in the same content. Peaks are the kernel's (`ru_maxrss`), of anonymous memory and mapped files
alike. They are held against the promise: twice the largest stacked tensor plus 1 GB.

With `--peer` the usual way runs as well: transformers loads the folder, the layers are stacked in
memory, Orbax's StandardCheckpointer saves the tree.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from geex_jax.benchmark import synthetic
from geex_jax.errors import GeexError, did_you_mean

SMALLEST = 0.05  # GB; below it no array is large enough to be written layer by layer
SPARE = 10**9  # bytes of memory beyond the two tensors
KILL_AT = 0.5  # share of the bytes
# A process begins with the peak of the one that started it, so a small one starts the measured.
LAUNCHER = """
import json, os, sys
log, *command = sys.argv[1:]
to = (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
pid = os.posix_spawn(command[0], command, os.environ,
                     file_actions=[to, (os.POSIX_SPAWN_DUP2, 1, 2)])
print(pid, flush=True)
status, used = os.wait4(pid, 0)[1:]
print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_maxrss]))
"""
PEER = "import sys; from geex_jax.benchmark import convert_bench as b; b.usual_way(*sys.argv[1:])"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `geex bench convert`."""
    add = parser.add_argument
    add("--gigabytes", type=float, default=3, metavar="N", help="size of the weights (default 3)")
    add("--family", default="llama", metavar="NAME",
        help=f"form of the checkpoint: {', '.join(synthetic.FIELDS)} (default llama)")  # fmt: skip
    add("--workdir", metavar="DIR",
        help="where to make the temporary folder, of about three times the weights, four with"
        " --peer (default: the system's)")  # fmt: skip
    add("--keep", action="store_true", help="leave that folder there")
    add("--peer", action="store_true",
        help="run the usual way too: transformers, stacking in memory, Orbax")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measures and prints; 1 if the bound or the equality does not hold."""
    if args.family not in synthetic.FIELDS:
        raise GeexError(
            f"unknown family {args.family!r}", did_you_mean(args.family, synthetic.FIELDS)
        )
    if not args.gigabytes >= SMALLEST:
        raise GeexError(f"--gigabytes {args.gigabytes}", f"give at least {SMALLEST}")
    if args.peer:
        _check_peer(args.family)
    with _workspace(args.workdir, args.gigabytes * (4 if args.peer else 3), args.keep) as folder:
        result = measure(folder, args.family, args.gigabytes, args.peer)
    print(json.dumps(result) if args.json else report(result))
    return 0 if result["holds"] else 1


def _check_peer(family: str) -> None:
    if family in (synthetic.CODEGEEX, "chatglm"):
        raise GeexError(f"transformers has no class for {family}", "leave --peer out")
    missing = [name for name in ("torch", "transformers") if not importlib.util.find_spec(name)]
    if missing:
        raise GeexError(f"--peer needs {' and '.join(missing)}", 'pip install "geex-jax[convert]"')


@contextlib.contextmanager
def _workspace(parent: str | None, gigabytes: float, keep: bool) -> Iterator[pathlib.Path]:
    """A temporary folder on a disk with room for it; removed at the end."""
    place = pathlib.Path(parent or tempfile.gettempdir()).absolute()
    if not place.is_dir():
        raise GeexError(f"no folder {place}", "make it, or choose another --workdir")
    free, needed = shutil.disk_usage(place).free / 1e9, 1.05 * gigabytes
    if needed > free:
        raise GeexError(
            f"{place} has {free:.1f} GB free, {needed:.1f} GB are needed",
            "choose another --workdir, or fewer --gigabytes",
        )
    folder = pathlib.Path(tempfile.mkdtemp(prefix="geex-convert-", dir=place))
    try:
        yield folder
    finally:
        if keep:
            _say(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def measure(folder: pathlib.Path, family: str, gigabytes: float, peer: bool) -> dict[str, Any]:
    """Returns the figures of one run, as `--json` prints them.

    Args:
      folder: an empty one, for all files.
      family: a key of synthetic.FIELDS.
      gigabytes: of the weights, about.
      peer: whether the usual way runs too.

    Raises:
      GeexError: a conversion failed.
    """
    from geex_jax.checkpoints import inspecting

    config = synthetic.shape(family, gigabytes)
    source = synthetic.write_checkpoint(folder / "source", family, config)
    about = inspecting.inspect(source, fingerprint=False)
    stacked = synthetic.largest_stacked(config, 2)
    _say("converting it whole")
    runs = {"geex convert": convert(source, folder / "whole")}
    whole = inspecting.inspect(folder / "whole")
    runs["killed"], runs["restarted"], kill = kill_and_restart(source, folder, whole.nbytes)
    again = inspecting.inspect(folder / "again")
    kill |= {
        "equal": whole.fingerprint == again.fingerprint,
        "same_files": _names(folder / "whole") == _names(folder / "again"),
    }
    result = {
        "family": family,
        "config": whole.config,
        "parameters": whole.parameters,
        "nbytes": whole.nbytes,
        "dtype": next(iter(about.dtypes)),
        "files": about.storage["files"],
        "largest_stacked": stacked,
        "kill": kill,
        "fingerprint": whole.fingerprint,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "numpy")},
    }
    if peer:
        _say("the usual way: transformers, stacking, Orbax")
        runs["usual way"] = peer_run(source, folder, whole.fingerprint)
    ours = [done.peak for name, done in runs.items() if name != "usual way"]
    return result | {
        "runs": {name: dataclasses.asdict(done) for name, done in runs.items()},
        **verdict(max(ours), stacked[1], kill),
    }


def verdict(peak: int, largest: int, kill: dict[str, Any]) -> dict[str, Any]:
    """Whether the promises hold.

    Args:
      peak: bytes of memory, the most of all conversions.
      largest: bytes of the largest stacked tensor.
      kill: what `kill_and_restart` found, and "equal" and "same_files".
    """
    bound = 2 * largest + SPARE
    undamaged = kill["dest_absent"] and kill["equal"] and kill["same_files"]
    went_on = kill["kept"] > 0 and not kill["written_again"]
    held = {"bound": bound, "peak": peak, "within_bound": peak <= bound}
    held |= {"undamaged": undamaged, "went_on": went_on}
    return held | {"holds": peak <= bound and undamaged and went_on}


@dataclasses.dataclass(frozen=True)
class Run:
    """One process: exit status (minus the signal that ended it), seconds, peak bytes of memory."""

    status: int
    seconds: float
    peak: int


def run_child(command: list[str], log: pathlib.Path, stop: Callable[[], bool] | None = None) -> Run:
    """Runs Python with `command` and measures it; ends it by SIGKILL as soon as `stop()`."""
    root = str(pathlib.Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    started = time.perf_counter()
    launcher = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", LAUNCHER, str(log), sys.executable, *command],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C comes to us alone, and we end the child
    )  # fmt: skip
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    try:
        while stop is not None and launcher.poll() is None:
            if stop():
                break
            time.sleep(0.01)
        if stop is None:
            launcher.wait()
    finally:
        if launcher.poll() is None:  # stopped, or this process is interrupted
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            launcher.wait()
    status, peak = json.loads(launcher.communicate()[0])
    seconds = time.perf_counter() - started
    return Run(status, seconds, peak * (1 if sys.platform == "darwin" else 1024))


def _whole(done: Run, log: pathlib.Path) -> Run:
    """The run, if it ended well."""
    if done.status:
        said = (log.read_text(errors="replace").strip().splitlines() or ["no word"])[-1][:300]
        raise GeexError(f"a child ended with status {done.status} ({said})", "report it as a bug")
    return done


def convert(source: pathlib.Path, dest: pathlib.Path) -> Run:
    """One whole `geex convert`, or the rest of one that was killed."""
    log = dest.with_name("log")
    return _whole(run_child(_command(source, dest), log), log)


def _command(source: pathlib.Path, dest: pathlib.Path) -> list[str]:
    return ["-m", "geex_jax", "convert", str(source), str(dest)]


def kill_and_restart(
    source: pathlib.Path, folder: pathlib.Path, total: int
) -> tuple[Run, Run, dict[str, Any]]:
    """A conversion to folder/again that is killed half-way, the one that ends it, and findings.

    Raises:
      GeexError: it was not to be caught alive.
    """
    dest, partial, log = folder / "again", folder / ".again.partial", folder / "log"
    for share in (KILL_AT, KILL_AT / 2, KILL_AT / 4):  # a small one may be done before we look
        _say(f"converting it again, to be killed at {share:.0%}")
        killed = run_child(
            _command(source, dest), log, lambda s=share: _bytes(partial / "params") >= s * total
        )
        if killed.status == -signal.SIGKILL and (partial / "done").is_file():
            break
        if killed.status != -signal.SIGKILL:
            _whole(killed, log)
        shutil.rmtree(dest, ignore_errors=True)
    else:
        raise GeexError("the conversion was too quick to be killed", "give more --gigabytes")
    absent, reached = not dest.exists(), _bytes(partial / "params")
    done = (partial / "done").read_text().splitlines()
    before = {name: (partial / "params" / name).stat() for name in _chunks(source, partial, done)}
    _say(f"killed with {len(done)} tensors done; restarting")
    restarted = convert(source, dest)
    after = {name: (dest / "params" / name).stat() for name in before}
    again = [n for n in before if before[n].st_mtime_ns != after[n].st_mtime_ns]
    findings = {
        "share": reached / total,
        "dest_absent": absent,
        "tensors_done": len(done),
        "kept": len(before),
        "kept_bytes": sum(stat.st_size for stat in before.values()),
        "written_again": len(again),
    }
    return killed, restarted, findings


def _bytes(folder: pathlib.Path) -> int:
    """Bytes of the files in a folder in which another process writes."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # renamed meanwhile
                total += os.stat(os.path.join(place, name)).st_size
    return total


def _names(folder: pathlib.Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def _chunks(source: pathlib.Path, partial: pathlib.Path, done: list[str]) -> list[str]:
    """The chunk files of outside tensors that the journal calls done, below params/."""
    from geex_jax.checkpoints.sources import open_source

    bindings = open_source(source).bindings
    found = []
    for name in done:
        for path, _ in bindings[name].parts:
            array = path.replace("/", ".")
            layer = bindings[name].layer
            pattern = "[0-9]*" if layer is None else f"{layer}.*"
            found += [f"{array}/{f.name}" for f in (partial / "params" / array).glob(pattern)]
    return found


def peer_run(source: pathlib.Path, folder: pathlib.Path, fingerprint: str | None) -> Run:
    """The usual way in a process of its own; its result must equal ours.

    Raises:
      GeexError: it failed, or the content differs.
    """
    from geex_jax.checkpoints import inspecting

    dest, log = folder / "usual", folder / "log"
    dest.mkdir()
    done = _whole(run_child(["-c", PEER, str(source), str(dest / "params")], log), log)
    shutil.copyfile(folder / "whole" / "config.json", dest / "config.json")
    if inspecting.inspect(dest).fingerprint != fingerprint:
        raise GeexError("the usual way gives other content", "report it as a bug")
    return done


def usual_way(source: str, dest: str) -> None:
    """Loads with transformers, stacks the layers, saves with Orbax: all of it in memory."""
    import orbax.checkpoint as ocp
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    from geex_jax.checkpoints.sources import open_source

    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    state = model.state_dict()
    del model
    layers: dict[str, list[np.ndarray]] = {}
    for name, binding in open_source(source).bindings.items():  # names and order of layers
        array = state[name].view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
        for path, part in binding.inward(array).items():
            layers.setdefault(path, []).append(part)
    tree: dict[str, Any] = {}
    for path, parts in layers.items():
        *inner, leaf = path.split("/")
        here = tree
        for key in inner:
            here = here.setdefault(key, {})
        here[leaf] = np.stack(parts) if inner[0] == "layers" else np.ascontiguousarray(parts[0])
    del state, layers, parts, part, array
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(pathlib.Path(dest), tree)


def report(result: dict[str, Any]) -> str:
    """The figures as text for people."""
    config, kill, runs = result["config"], result["kill"], result["runs"]
    path, largest = result["largest_stacked"]
    lines = [
        f"{result['family']}, {config['num_layers']} layers of width {config['d_model']}, "
        f"{result['parameters'] / 1e9:.2f}B parameters, {result['dtype']}: "
        f"{_gb(result['nbytes'])} in {result['files']} file{'s' if result['files'] > 1 else ''}",
        f"  {'':<16}{'seconds':>10}{'MB/s':>10}{'peak memory':>14}",
    ]
    for name, done in runs.items():
        whole = name in ("geex convert", "usual way")
        speed = f"{result['nbytes'] / 1e6 / done['seconds']:.0f}" if whole else ""
        lines.append(f"  {name:<16}{done['seconds']:>10.1f}{speed:>10}{_gb(done['peak']):>14}")
    yes = {True: "yes", False: "NO"}
    lines += [
        f"bound: 2 x {_gb(largest)} ({path}) + {_gb(SPARE)} = {_gb(result['bound'])}; "
        f"peak {_gb(result['peak'])}; within it: {yes[result['within_bound']]}",
        f"killed with {kill['share']:.0%} on disk, nothing at DEST: {yes[kill['dest_absent']]}; "
        f"the restart kept {kill['kept']} chunks of {_gb(kill['kept_bytes'])}, wrote "
        f"{kill['written_again']} of them again",
        f"content equal to the uninterrupted one's: {yes[kill['equal']]} "
        f"({result['fingerprint']}); the same files: {yes[kill['same_files']]}",
    ]
    if "usual way" in runs:
        ours, usual = runs["geex convert"], runs["usual way"]
        lines.append(
            f"the usual way, with equal content: {usual['peak'] / ours['peak']:.1f} times the "
            f"memory, {usual['seconds'] / ours['seconds']:.1f} times the time"
        )
    return "\n".join([*lines, "all of it holds" if result["holds"] else "IT DOES NOT HOLD"])


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
