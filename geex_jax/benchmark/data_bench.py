"""The corpus pipeline on real code, all stages on: speed of each part, peers, the same bytes.

* Pipeline: raw bytes per CPU second of one process, and which stage takes what share of it. CPU
  seconds (user and system) are counted, so other work on the machine counts little.
* Signatures: shingles and MinHash against `datasketch` on the same shingles, in turns.
* Tokenization: see `geex bench tokenizer`, whose peer this is.
* Loader: tokens per CPU second, prefetching switched off.
* Bytes: one process; two; three, ended by SIGKILL in the middle and started again.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import importlib.util
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from geex_jax.errors import GeexError

AIMS = {"pipeline": 4.0, "signatures": 20.0, "tokenization": 3.0, "loader": 10.0}
CHILD = "import sys; from geex_jax.benchmark import data_bench; data_bench.child(sys.argv[1])"
_PERMUTATIONS = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `geex bench data`."""
    add = parser.add_argument
    add("--tokenizer", required=True, metavar="SPEC", help="as for geex prepare")
    add(
        "--input",
        nargs="+",
        metavar="DIR",
        help="source folders (default: libraries that are installed here)",
    )
    add("--max-megabytes", type=float, default=30, help="code to look at (default 30)")
    add("--rounds", type=int, default=3, help="turns of each side (default 3)")
    add("--seq-len", type=int, default=2048, help="of the rows (default 2048)")
    add("--skip", nargs="+", default=(), choices=[*AIMS, "bytes"], metavar="PART",
        help=f"leave out any of {', '.join(AIMS)}, bytes")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measures and prints; returns 1 if two runs differ in a byte."""
    if args.rounds < 1 or args.max_megabytes <= 0:
        raise GeexError("--rounds and --max-megabytes must be positive", "leave them out")
    with tempfile.TemporaryDirectory(prefix="geex-bench-") as folder:
        result = measure(args, pathlib.Path(folder))
    print(json.dumps(result) if args.json else "\n".join(lines(result)))
    return 0 if result.get("bytes", {}).get("equal", True) else 1


def measure(args: argparse.Namespace, folder: pathlib.Path) -> dict[str, Any]:
    """Returns the figures of one run, as `--json` prints them.

    Args:
      args: the flags.
      folder: an empty one, for the input's copy and all results.
    """
    from geex_jax import tokenizers
    from geex_jax.tokenizers.base import cores

    size, texts = copy_input(args.input or default_input(), folder / "input", args.max_megabytes)
    tokenizer = tokenizers.load(args.tokenizer)
    tokenizer.save(folder / "tokenizer")
    result: dict[str, Any] = {
        "megabytes": size / 1e6, "files": len(texts), "cores": cores(), "seq_len": args.seq_len,
    }  # fmt: skip
    if {"pipeline", "loader", "bytes"} - set(args.skip):
        result["pipeline"] = pipeline(folder, args.seq_len, size)
    if "signatures" not in args.skip:
        result["signatures"] = signatures(texts, args.rounds)
    if "tokenization" not in args.skip:
        result["tokenization"] = tokenization(tokenizer, texts, args.rounds)
    if "loader" not in args.skip:
        result["loader"] = loader(folder / "one", args.rounds)
    if "bytes" not in args.skip:
        result["bytes"] = same_bytes(folder, args.seq_len)
    return result


def default_input() -> list[str]:
    """Returns folders of real code that may be on this machine, those that are."""
    places = (
        sysconfig.get_path("stdlib"), "/usr/include", "/usr/lib/go/src", "/usr/share/go-1.19/src",
        "/usr/lib/node_modules", "/usr/share/php", "/usr/share/cargo/registry",
    )  # fmt: skip
    return [place for place in places if os.path.isdir(place)]


def copy_input(
    inputs: Sequence[str], target: pathlib.Path, megabytes: float
) -> tuple[int, list[str]]:
    """Copies source files, evenly spread over the inputs; returns their bytes and their texts."""
    from geex_jax.data.sources import walk

    found = walk(inputs).found
    total = sum(file.size for file in found)
    if not found:
        raise GeexError(f"no source files in {', '.join(inputs)}", "give other folders: --input")
    take = max(1.0, total / (megabytes * 1e6))
    size, texts, due = 0, [], 0.0
    for number, file in enumerate(found):
        if number < due or size >= megabytes * 1e6:
            continue
        due += take
        try:
            data = pathlib.Path(file.path).read_bytes()
        except OSError:
            continue
        path = target / f"{number % 97:02d}" / f"{number}-{os.path.basename(file.path)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        size += len(data)
        texts.append(data.decode("utf-8", "replace"))
    return size, texts


# --- the pipeline, in processes of its own --------------------------------------------------


def _start(folder: pathlib.Path, output: str, workers: int, seq_len: int) -> subprocess.Popen[str]:
    spec = {"folder": str(folder), "output": output, "workers": workers, "seq_len": seq_len}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(spec)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip


def _finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = process.communicate()
    if process.returncode:
        raise GeexError("a run of the pipeline failed", "run geex prepare on the same input")
    return json.loads(said.splitlines()[-1])


def child(text: str) -> None:
    """Prepares data and prints the seconds it took, by stage and in all: a process of a bench."""
    from geex_jax.benchmark.embedded.corpus import write_benchmark
    from geex_jax.data.pipeline import prepare_recipe
    from geex_jax.data.recipe import Recipe, SourceSpec
    from geex_jax.data.stages import STAGES

    spec = json.loads(text)
    folder = pathlib.Path(spec["folder"])
    tasks = folder / "tasks"
    if not tasks.exists():  # a stand-in for HumanEval-X, of its size
        write_benchmark(tasks, 0, 164, 2)
    recipe = Recipe(
        (SourceSpec(str(folder / "input"), "tree", "input"),),
        stages={**{name: {} for name in STAGES}, "contamination": {"benchmarks": [str(tasks)]}},
        seq_len=spec["seq_len"],
    )
    seconds: collections.Counter[str] = collections.Counter()
    began, used = time.perf_counter(), _cpu_seconds()
    manifest = prepare_recipe(
        recipe, folder / spec["output"], folder / "tokenizer",
        workers=spec["workers"], seconds=seconds,
    )  # fmt: skip
    total = {split: sum(a.tokens for a in x.values()) for split, x in manifest.splits.items()}
    print(json.dumps({
        "cpu_seconds": _cpu_seconds() - used, "wall_seconds": time.perf_counter() - began,
        "seconds": dict(seconds), "tokens": sum(total.values()),
        "kept_megabytes": sum(a.bytes for x in manifest.splits.values() for a in x.values()) / 1e6,
    }))  # fmt: skip


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def pipeline(folder: pathlib.Path, seq_len: int, size: int) -> dict[str, Any]:
    """Returns speed and each stage's share of a run of one process into `folder/one`."""
    found = _finish(_start(folder, "one", 1, seq_len))
    seconds = found.pop("seconds")
    # What no stage's clock counted: listing, deduplication, order, manifest.
    seconds["other"] = max(0.0, found["cpu_seconds"] - sum(seconds.values()))
    shares = {name: value / sum(seconds.values()) for name, value in seconds.items()}
    return found | {
        "megabytes_per_cpu_second": size / 1e6 / found["cpu_seconds"],
        "shares": dict(sorted(shares.items(), key=lambda item: -item[1])),
        "slowest": max(shares, key=lambda name: shares[name]),
    }


def same_bytes(folder: pathlib.Path, seq_len: int) -> dict[str, Any]:
    """Compares `folder/one` with runs of two processes, and of three, one killed in the middle."""
    _finish(_start(folder, "two", 2, seq_len))
    killed = _kill_in_the_middle(_start(folder, "three", 3, seq_len), folder / "three")
    _finish(_start(folder, "three", 3, seq_len))
    digests = [digest(folder / name) for name in ("one", "two", "three")]
    return {"equal": len(set(digests)) == 1, "killed": killed, "sha256": digests[0]}


def _kill_in_the_middle(process: subprocess.Popen[str], output: pathlib.Path) -> bool:
    """Ends all its processes when the first documents are there; tells whether that was in time."""
    while process.poll() is None and not any(output.rglob("*.signatures.npy")):
        time.sleep(0.01)
    killed = process.poll() is None
    if killed:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return killed


def digest(folder: pathlib.Path) -> str:
    """Returns a SHA-256 over the names and contents of all files of a folder."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(folder)} {content}\n".encode())
    return whole.hexdigest()


# --- parts against their peers --------------------------------------------------------------


def _in_turns(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Returns the median CPU seconds of each side; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.process_time()
            side()
            seconds[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def signatures(texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Returns the speed of near-dedup signatures, from text, and how it compares."""
    from geex_jax.data.dedup import minhash
    from geex_jax.data.recipe import Dedup

    size = Dedup().shingle
    # The peer is slow: a few MB tell its speed.
    some, total = [], 0
    for text in texts:
        if total < 2e6:
            some.append(text)
            total += len(text.encode())

    def ours() -> None:
        minhash.signatures([minhash.shingles(text, size) for text in some], _PERMUTATIONS)

    sides: dict[str, Callable[[], Any]] = {"ours": ours}
    if importlib.util.find_spec("datasketch"):
        sides["datasketch, update"] = lambda: _datasketch(some, size, batch=False)
        sides["datasketch, update_batch"] = lambda: _datasketch(some, size, batch=True)
    seconds = _in_turns(sides, rounds)
    found = {name: total / 1e6 / value for name, value in seconds.items()}
    result: dict[str, Any] = {"megabytes_per_cpu_second": found, "megabytes": total / 1e6}
    if len(found) > 1:
        peers = {name: found["ours"] / speed for name, speed in found.items() if name != "ours"}
        return result | {"times_peer": peers}
    return result | {"skipped": "no datasketch here: pip install datasketch"}


def _datasketch(texts: Sequence[str], size: int, batch: bool) -> list[Any]:
    """Signatures by datasketch, a shingle at a time or all of a text's at once."""
    import re

    from datasketch import MinHash  # pyright: ignore

    result = []
    for text in texts:
        words = re.findall(rb"[0-9A-Za-z_\x80-\xff]+", text.encode())
        shingles = {b" ".join(words[i : i + size]) for i in range(len(words) - size + 1)}
        sketch = MinHash(num_perm=_PERMUTATIONS)
        if batch:
            sketch.update_batch(list(shingles))
        else:
            for shingle in shingles:
                sketch.update(shingle)
        result.append(sketch)
    return result


def tokenization(tokenizer: Any, texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Returns what `geex bench tokenizer` measures, or why it cannot be compared."""
    from geex_jax.benchmark import tokenizer_bench

    if tokenizer.kind != "codegeex":
        return {"skipped": "only the CodeGeeX vocabulary has an official path to compare with"}
    if not importlib.util.find_spec("transformers"):
        return {"skipped": 'no transformers here: pip install "geex-jax[convert]"'}
    some = texts[:: max(1, len(texts) // 500)]
    return tokenizer_bench.measure(tokenizer, list(some), rounds)


def loader(folder: pathlib.Path, rounds: int) -> dict[str, Any]:
    """Returns what `geex bench loader` measures in the calling thread, on prepared data."""
    from geex_jax.benchmark import loader_bench

    return loader_bench.timed(folder, 16, rounds, prefetch=0)[0]


# --- what is printed ------------------------------------------------------------------------


def lines(result: dict[str, Any]) -> list[str]:
    """Returns the figures for people."""
    found = [
        f"{result['files']} files, {result['megabytes']:.1f} MB of real code, rows of "
        f"{result['seq_len']}, {result['cores']} cores"
    ]
    if pipe := result.get("pipeline"):
        found.append(
            f"pipeline, all stages on: {pipe['megabytes_per_cpu_second']:.2f} MB/s of raw source a "
            f"core (aim {AIMS['pipeline']:g}); {pipe['tokens']:,} tokens of "
            f"{pipe['kept_megabytes']:.1f} MB kept"
        )
        found += [f"  {name:<14} {share:6.1%}" for name, share in pipe["shares"].items()]
        found.append(f"  slowest: {pipe['slowest']}")
    if part := result.get("signatures"):
        speeds = part["megabytes_per_cpu_second"]
        found.append(
            "near-dedup signatures: "
            + ", ".join(f"{name} {speed:.2f} MB/s" for name, speed in speeds.items())
        )
        for name, ratio in part.get("times_peer", {"": None}).items():
            found.append(_compared(ratio, part, AIMS["signatures"], name))
    if part := result.get("tokenization"):
        found.append("tokenization against transformers' official path:")
        found.append(_compared(part.get("ratio_batch"), part, AIMS["tokenization"]))
    if part := result.get("loader"):
        found.append(
            f"loader: {part['megatokens_per_cpu_second']:.1f} Mtokens/s a core "
            f"(aim {AIMS['loader']:g})"
        )
    if part := result.get("bytes"):
        how = "one killed by SIGKILL on its way" if part["killed"] else "over before the kill"
        verdict = "the same bytes" if part["equal"] else "OTHER BYTES"
        found.append(f"1, 2 and 3 processes, {how}: {verdict} (sha256 {part['sha256'][:16]})")
    return found


def _compared(ratio: float | None, part: dict[str, Any], aim: float, name: str = "the peer") -> str:
    if ratio is None:
        return f"  (peer left out: {part['skipped']})"
    return f"  {ratio:.2f} times {name} (aim {aim:g})"
