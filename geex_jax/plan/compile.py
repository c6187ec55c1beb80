"""A lowered program through the TPU compiler, and what its output says, kept by fingerprint.

What is kept is the summary (memory, collectives, traffic, cycles, seconds), not the binary.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import pathlib
import re
import resource
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from geex_jax import files
from geex_jax.errors import GeexError, did_you_mean
from geex_jax.plan import collectives, hlo, traffic
from geex_jax.plan.chips import GIB
from geex_jax.plan.topology import Topology, require_libtpu

FAST = {"exec_time_optimization_effort": -1.0}  # must be a float


@dataclasses.dataclass
class Summary:
    """What one compilation said. All bytes are of one device.

    Attributes:
      fits: the compiler made a program for this memory.
      message: the compiler's own line where it did not. over: bytes too much, by that line.
      memory: bytes of argument, output, alias, temp, code, peak, host (as XLA counts them).
      collectives: see `collectives.Collective`, as dicts.
      traffic: see `traffic.Traffic`, as a dict.
      copies: large arrays that loops copy, see `traffic.Copy`, as dicts; float copies of weights.
      full_gradients: shapes of gradients that are all-reduced whole.
      unknown_loops: loops that count once because their length is data.
      lower_seconds, seconds: to trace and lower, and to compile. rss: peak bytes of this process.
      options, versions: what it was made with. key: its fingerprint. cached: read from a file.
    """

    fits: bool = True
    message: str = ""
    over: float = 0.0
    memory: dict[str, float] = dataclasses.field(default_factory=dict)
    collectives: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    traffic: dict[str, float] = dataclasses.field(default_factory=dict)
    copies: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    full_gradients: list[str] = dataclasses.field(default_factory=list)
    unknown_loops: list[str] = dataclasses.field(default_factory=list)
    lower_seconds: float = 0.0
    seconds: float = 0.0
    rss: int = 0
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    key: str = ""
    cached: bool = False

    @property
    def used(self) -> float:
        """Bytes to budget for: arguments, outputs that are not arguments, temporaries."""
        m = self.memory
        return (
            m.get("argument", 0) + max(0, m.get("output", 0) - m.get("alias", 0)) + m.get("temp", 0)
        )


@dataclasses.dataclass(frozen=True)
class Look:
    """What to look for in a compiled program.

    Attributes:
      gradients: numbers of elements of sharded parameters, whose gradients should be scattered.
      copies: numbers of elements of arrays that loops should not copy (a cache, weights).
      skip_types: types in which such an array may be copied.
      lightest: of the branches of a conditional only the lightest counts, see `hlo.Module`.
    """

    gradients: frozenset[int] = frozenset()
    copies: frozenset[int] = frozenset()
    skip_types: tuple[str, ...] = ()
    lightest: bool = False


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Compiler options from "name=value" words; numbers and booleans become such.

    Raises:
      GeexError: no "=" in a word.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise GeexError(f"--compiler-option {pair}", "write NAME=VALUE")
        found[name.lstrip("-")] = _value(text)
    return found


def _value(text: str) -> Any:
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def default_cache() -> pathlib.Path:
    """Where summaries are kept unless `--cache` says otherwise."""
    return files.cache_folder() / "plan"


def compile_lowered(
    lowered: Any,
    topology: Topology,
    slice_of: Sequence[int],
    options: Mapping[str, Any] | None = None,
    cache: files.Path | None = None,
    look: Look | None = None,
    label: str = "compiling",
) -> Summary:
    """Compiles, unless the same program has been compiled before, and summarizes.

    Args:
      lowered: what `.lower()` returned, for devices of the topology.
      topology: what it is compiled for.
      slice_of: the slice of each device of the mesh, in the mesh's order.
      options: XLA's compiler options, names without dashes.
      cache: folder of summaries; None keeps nothing.
      look: what to look for.
      label: for the progress lines.

    Raises:
      GeexError: an option that the compiler does not know, or an error other than too little
        memory.
    """
    look, options = look or Look(), dict(options or {})
    versions = {"libtpu": require_libtpu(), "jax": importlib.metadata.version("jax")}
    key = _key(lowered.as_text(), topology, options, versions, look)
    path = pathlib.Path(cache) / f"{key}.json" if cache else None
    if path is not None and path.is_file():
        with contextlib.suppress(ValueError, TypeError):
            return dataclasses.replace(Summary(**json.loads(path.read_text())), cached=True)
    summary = Summary(options=options, versions=versions, key=key)
    started = time.monotonic()
    try:
        with ticking(label):
            compiled = lowered.compile(compiler_options=options or None)
    except Exception as error:
        _failed(error, summary, options)
    else:
        summary.seconds = time.monotonic() - started
        _summarize(compiled, summary, slice_of, look)
    summary.seconds = summary.seconds or time.monotonic() - started
    summary.rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if path is not None:
        files.write_json(path, dataclasses.asdict(summary))
    return summary


def _key(text: str, topology: Topology, options: dict, versions: dict, look: Look) -> str:
    # A changed parser makes other summaries of the same program.
    code = [pathlib.Path(str(m.__file__)).read_bytes() for m in (hlo, collectives, traffic)]
    looks = [sorted(look.gradients), sorted(look.copies), look.skip_types, look.lightest]
    asked = json.dumps([options, versions, topology.label, *looks], sort_keys=True)
    return files.fingerprint(text, asked, *code)


def _failed(error: Exception, summary: Summary, options: dict) -> None:
    text = str(error)
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    if "RESOURCE_EXHAUSTED" in text or "Ran out of memory" in text:
        summary.fits = False
        summary.message = first.strip()
        summary.over = too_much(text)
        return
    unknown = re.search(r"No such compile option: '?([\w.]+)", text)
    if unknown:
        raise GeexError(
            f"the compiler has no option {unknown[1]}", did_you_mean(unknown[1], KNOWN_OPTIONS)
        ) from None
    if options and "option" in text.lower():
        raise GeexError(f"the compiler refuses an option: {first}") from None
    raise GeexError(
        f"the compiler failed: {first}", "see the whole message with --debug"
    ) from error


# Options whose effect is known to somebody; others are passed on as well.
KNOWN_OPTIONS = (
    "xla_tpu_enable_async_collective_fusion",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
    "xla_tpu_enable_async_collective_fusion_fuse_reduce_scatter",
    "xla_tpu_enable_async_collective_fusion_multiple_steps",
    "xla_tpu_overlap_compute_collective_tc", "xla_enable_async_all_gather",
    "xla_enable_async_all_reduce", "xla_enable_async_collective_permute",
    "xla_tpu_scoped_vmem_limit_kib", "xla_tpu_enable_data_parallel_all_reduce_opt",
    "xla_tpu_data_parallel_opt_different_sized_ops",
    "xla_jf_spmd_threshold_for_windowed_einsum_mib", "xla_tpu_enable_latency_hiding_scheduler",
    "xla_tpu_decompose_all_gather_einsum", "xla_tpu_decompose_einsum_reduce_scatter",
    "xla_tpu_enable_sparse_core_collective_offload_all_gather", "xla_tpu_max_hbm_size_mib",
    "exec_time_optimization_effort", "memory_fitting_effort",
)  # fmt: skip


def too_much(text: str) -> float:
    """Bytes that a program needs beyond the memory, by the compiler's message; 0 if it is silent.

    libtpu says either "... temporaries (18.52G) exceeds available HBM (15.75G)" or "Exceeded hbm
    capacity by 4.75G".
    """
    exceeded = re.search(r"[Ee]xceeded \w+ capacity by ([\d.]+)([KMGT]?)", text)
    if exceeded:
        return _size(*exceeded.groups())
    pair = re.search(r"\(([\d.]+)([KMGT]?)\) exceeds available \w+ \(([\d.]+)([KMGT]?)\)", text)
    return _size(*pair.groups()[:2]) - _size(*pair.groups()[2:]) if pair else 0.0


def _size(number: str, unit: str) -> float:
    return float(number) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": GIB, "T": GIB << 10}[unit]


def _summarize(compiled: Any, summary: Summary, slice_of: Sequence[int], look: Look) -> None:
    stats = compiled.memory_analysis()
    for name, field in (
        ("argument", "argument_size_in_bytes"), ("output", "output_size_in_bytes"),
        ("alias", "alias_size_in_bytes"), ("temp", "temp_size_in_bytes"),
        ("code", "generated_code_size_in_bytes"), ("peak", "peak_memory_in_bytes"),
        ("host", "host_temp_size_in_bytes"), ("host_argument", "host_argument_size_in_bytes"),
    ):  # fmt: skip
        summary.memory[name] = float(getattr(stats, field, 0) or 0)
    text = compiled.as_text()
    module = hlo.Module(text, look.lightest)
    found = collectives.find(module, slice_of)
    summary.collectives = [dataclasses.asdict(c) for c in found]
    moved = traffic.measure(module)
    if look.lightest:
        dear = traffic.measure(hlo.Module(text)).loops - moved.loops
        moved = dataclasses.replace(moved, dear=dear)
    summary.traffic = dataclasses.asdict(moved)
    summary.unknown_loops = list(module.unknown_loops)
    whole = collectives.full_gradients(found, set(look.gradients))
    summary.full_gradients = sorted({c.shapes for c in whole})
    summary.copies = [
        dataclasses.asdict(c) for c in traffic.copies(module, look.copies, "loops")
        if not c.type.startswith(look.skip_types or ("\0",))
    ]  # fmt: skip


@contextlib.contextmanager
def ticking(label: str, every: float = 15.0) -> Iterator[None]:
    """Prints "label: 45s" to stderr every few seconds until the block ends."""
    done = threading.Event()
    started = time.monotonic()
    live = sys.stderr.isatty()

    def tick() -> None:
        while not done.wait(1.0 if live else every):
            text = f"{label}: {files.seconds(time.monotonic() - started)}"
            print(f"\r{text}\x1b[K" if live else text, end="" if live else "\n",
                  file=sys.stderr, flush=True)  # fmt: skip

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
