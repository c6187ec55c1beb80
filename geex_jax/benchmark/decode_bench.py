"""Decoding on this machine against transformers and CTranslate2: `geex bench decode`.

All hold the same random weights of one shape (see `decode_sides`), get the same prompt and decode
greedily; float32 sides must draw the same tokens before anything is timed. Each is a process of its
own, and they take turns. Decode steps are timed apart from the prompt: ours by itself, a peer's as
the difference of two generations, of one token and of `tokens` more. Ratios are of medians over
rounds.

A step reads every weight once, so bytes over the measured bandwidth of the memory is its floor.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from typing import Any

from geex_jax.benchmark import turns
from geex_jax.benchmark.decode_sides import FORMATS, OURS, PeerSide, shape_of
from geex_jax.benchmark.train_step_bench import parse_cores
from geex_jax.errors import GeexError, did_you_mean
from geex_jax.kernels import cpu_native
from geex_jax.models import to_dict

NATIVE = "geex+C++"
PEERS = ("transformers float32", "transformers bfloat16", "ctranslate2 int8", "ctranslate2 float32")
BASES = ("transformers float32", "ctranslate2 int8")  # ratios are to these
# PyTorch's and OpenMP's threads wait busily for their next work; others' turns begin after that.
PAUSE = 0.3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `geex bench decode`."""
    add = parser.add_argument
    add_shared_arguments(parser)
    add("--batch", default="1,8", help="rows of a batch, several by commas (default 1,8)")
    add("--tokens", type=int, default=32, help="decode steps timed in each round (default 32)")
    add("--prompt", type=int, default=8, help="tokens of the prompt (default 8)")
    add("--gpu", action="store_true", help="ms/token of 13B weights on a GPU, in the paper's table")
    add("--lengths", default="128,256,512,1024,2048", help="with --gpu: lengths of the table")
    add("--quick", action="store_true", help="with --gpu: a tiny shape, on any device, as a test")


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that decode and prefill have in common."""
    add = parser.add_argument
    add("--preset", default="geex-125m", help="a CodeGeeX shape (default geex-125m)")
    add("--formats", default="float32,int8,w8a8", help=f"ours, of {', '.join(FORMATS)}")
    add("--peers", default=",".join(PEERS), help="theirs, by commas (default all that are there)")
    add("--peer-python", default=sys.executable, help="the Python that has the peers' packages")
    add("--rounds", type=int, default=5, help="turns of each side (default 5)")
    add("--cores", help="cores to use, such as 0,2-3 (default all)")
    add("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Measures and prints.

    Raises:
      GeexError: a flag that does not fit, sides that draw other tokens.
    """
    if args.gpu:
        from geex_jax.benchmark import decode_gpu

        return decode_gpu.run(args)
    spec = spec_of(args)
    batches = numbers("batch", args.batch)
    check_positive(args, "tokens", "prompt", "rounds")
    if args.prompt + args.tokens + 1 > spec.config.context_length:
        raise GeexError(f"--tokens {args.tokens} leave the context", "give fewer")

    with field(spec) as race:
        results = {}
        for batch in batches:
            prompts = make_prompts(spec.config.vocab_size, batch, args.prompt)
            tokens = race.agree(prompts, args.tokens + 1)
            seconds = race.rounds("decode", (prompts, args.tokens), args.rounds)
            results[str(batch)] = race.row(seconds) | {"same_tokens": tokens}
        out = race.header() | {"tokens": args.tokens, "prompt": args.prompt, "batches": results}
    print(json.dumps(out) if args.json else report(out))


@dataclasses.dataclass(frozen=True)
class Spec:
    """Who takes part.

    Attributes:
      config: the ModelConfig of all.
      formats: ours, names of `FORMATS`.
      peers: theirs, "package dtype".
      python: theirs.
      cores: of every side.
    """

    config: Any
    formats: tuple[str, ...]
    peers: tuple[str, ...]
    python: str
    cores: list[int]


def spec_of(args: argparse.Namespace) -> Spec:
    """Checks the shared flags.

    Raises:
      GeexError: an unknown preset, format or peer, cores that are not ours.
    """
    formats, peers = _names(args.formats, tuple(FORMATS)), _names(args.peers, PEERS)
    if not formats:
        raise GeexError("--formats names none", f"choose from {', '.join(FORMATS)}")
    return Spec(shape_of(args.preset), formats, peers, args.peer_python, parse_cores(args.cores))


def _names(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(x.strip() for x in text.split(",") if x.strip())
    for name in found:
        if name not in known:
            raise GeexError(f"unknown side {name!r}", did_you_mean(name, known))
    return found


def numbers(name: str, text: str) -> list[int]:
    """The positive integers of "1,8".

    Raises:
      GeexError: anything else.
    """
    try:
        found = [int(x) for x in text.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise GeexError(f"--{name} {text}", "give numbers above 0, such as 1,8")
    return found


def check_positive(args: argparse.Namespace, *flags: str) -> None:
    """Raises GeexError if one of these flags is below 1."""
    for flag in flags:
        if getattr(args, flag) < 1:
            raise GeexError(f"--{flag} {getattr(args, flag)}", "give a number above 0")


def make_prompts(vocab: int, batch: int, length: int) -> list[list[int]]:
    """Random ids, the same in every run."""
    import numpy as np

    return np.random.default_rng(0).integers(1, vocab, (batch, length)).tolist()


class field:
    """Starts the sides, and ends them."""

    def __init__(self, spec: Spec):
        self.spec = spec

    def __enter__(self) -> Race:
        self._folder = tempfile.TemporaryDirectory(prefix="geex-bench-")
        self._closing = turns.closing_all()
        try:
            return Race(self.spec, self._folder.name, self._closing.__enter__())
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: Any) -> None:
        self._closing.__exit__(None, None, None)
        self._folder.cleanup()


class Race:
    """Sides that hold the same weights.

    Args:
      spec: who takes part.
      folder: where the weights go; a pipe is too small for them.
      processes: a dict that closes what is put in.
    """

    def __init__(self, spec: Spec, folder: str, processes: dict[str, Any]):
        self.spec, self.processes = spec, processes
        self.sides: dict[str, tuple[Any, str]] = {}  # our name -> process, its name there
        self.bytes: dict[str, int] = {}
        self.versions: list[str] = []
        ours = {"weights": folder, "config": spec.config}
        factory = "geex_jax.benchmark.decode_sides:Ours"
        for name, wanted in ((OURS, "off"), (NATIVE, "on")):
            if name == NATIVE and not cpu_native.library().is_file():
                continue
            env = {"JAX_PLATFORMS": "cpu", "GEEX_KERNELS": wanted}
            side = turns.Side(factory, ours, spec.cores, env)
            processes[name] = side
            if name == OURS:
                side.call("save")
                self.bandwidth = side.call("bandwidth")
            elif not side.call("native"):
                raise GeexError(
                    "the C++ kernels do not load", "build them anew: geex build-kernels"
                )
            for form in spec.formats:
                if name == OURS or FORMATS[form][1]:
                    self.bytes[f"{name} {form}"] = side.call("load", form)
                    self.sides[f"{name} {form}"] = (side, form)
        self._peers(folder)

    def _peers(self, folder: str) -> None:
        spec = self.spec
        if not spec.peers:
            return
        theirs = {
            "weights": folder,
            "shape": to_dict(spec.config),
            "device": "cpu",
            "threads": len(spec.cores),
        }
        side: Any = PeerSide(spec.python, theirs)
        self.processes["peers"] = side
        table = {"float32": 4, "bfloat16": 2, "int8": 1}
        weights = self.bytes.get(f"{OURS} float32", 4 * _parameters(spec.config))
        for name in spec.peers:
            version = side.call("load", name)
            if version:
                self.sides[name] = (side, name)
                self.bytes[name] = weights * table[name.split(" ")[1]] // 4
                self.versions += [v for v in version.split(", ") if v not in self.versions]

    def header(self) -> dict[str, Any]:
        """What all rows have in common."""
        import jax

        return {
            "shape": to_dict(self.spec.config),
            "parameters": _parameters(self.spec.config),
            "cores": len(self.spec.cores),
            "bytes_per_second": self.bandwidth,
            "versions": [f"jax {jax.__version__}", *self.versions],
            "missing": [p for p in self.spec.peers if p not in self.sides],
            "native": any(name.startswith(NATIVE) for name in self.sides),
        }

    def agree(self, prompts: list[list[int]], tokens: int) -> dict[str, float]:
        """Warms all sides; returns the share of tokens that each draws as the first side does.

        Raises:
          GeexError: a float32 side that begins with another token in some row.
        """
        found = {n: s.call("generate", x, prompts, tokens) for n, (s, x) in self.sides.items()}
        for name in self.sides:
            if name.endswith(" float32") and _firsts(found[name]) != _firsts(found[first(found)]):
                raise GeexError(
                    f"{name} and {first(found)} draw other tokens from the same weights",
                    "compare the versions with those of the README",
                )
        usual = found[first(found)]
        return {name: _share(usual, rows) for name, rows in found.items()}

    def rounds(self, method: str, args: tuple[Any, ...], count: int) -> dict[str, list[float]]:
        """The seconds that each side's method returns, in turns."""
        seconds: dict[str, list[float]] = {name: [] for name in self.sides}
        for _ in range(count):
            for name, (side, there) in self.sides.items():
                time.sleep(PAUSE)
                seconds[name].append(side.call(method, there, *args))
        return seconds

    def row(self, seconds: dict[str, list[float]]) -> dict[str, Any]:
        """Medians, the bytes of weights they read a second, and ratios."""
        median = {name: statistics.median(x) for name, x in seconds.items()}
        return {
            "seconds": seconds,
            "median": median,
            "read": {name: self.bytes[name] / x for name, x in median.items()},
            "ratio": {
                base: {name: median[base] / x for name, x in median.items()}
                for base in BASES
                if base in median
            },
        }


def first(found: dict[str, Any]) -> str:
    """The side that others are compared with: float32 where there is one."""
    return next((n for n in found if n.endswith(" float32")), next(iter(found)))


def _firsts(rows: list[list[int]]) -> list[int]:
    return [row[0] for row in rows]


def _share(a: list[list[int]], b: list[list[int]]) -> float:
    pairs = [x == y for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)]
    return sum(pairs) / len(pairs)


def _parameters(config: Any) -> int:
    from geex_jax.training.metrics import count_params

    return count_params(config)


def title(result: dict[str, Any]) -> list[str]:
    """The first lines of a report."""
    shape = result["shape"]
    lines = [
        f"{shape['name']} less its top query layer, {result['parameters'] / 1e6:.0f}M parameters, "
        f"{result['cores']} cores; {', '.join(result['versions'])}",
        f"memory read at {result['bytes_per_second'] / 1e9:.1f} GB/s",
    ]
    if result["missing"]:
        lines.append(f"not found: {', '.join(result['missing'])} (--peer-python)")
    if not result["native"]:
        lines.append("the C++ kernels are not built (geex build-kernels)")
    return lines


def report(result: dict[str, Any]) -> str:
    """The figures as text for people."""
    lines = title(result)
    for batch, row in result["batches"].items():
        rows = int(batch)
        bases = list(row["ratio"])
        lines.append(
            f"batch {batch}: {'ms/step':>27} {'best':>8} {'tokens/s':>9} {'GB/s':>6} {'share':>6}"
            + "".join(f"  x {b}" for b in bases)
            + "  tokens as float32"
        )
        for name, x in sorted(row["median"].items(), key=lambda item: item[1]):
            lines.append(
                f"  {name:<24} {x * 1e3:8.2f} {min(row['seconds'][name]) * 1e3:8.2f} "
                f"{rows / x:9.1f} {row['read'][name] / 1e9:6.1f} "
                f"{row['read'][name] / result['bytes_per_second']:6.0%}"
                + "".join(f"{row['ratio'][b][name]:{len(b) + 4}.2f}" for b in bases)
                + f"  {row['same_tokens'][name]:.0%}"
            )
    return "\n".join(lines)
