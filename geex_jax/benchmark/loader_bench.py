"""The loader alone: tokens per second and CPU second, and memory over epochs.

Data are a prepared folder, or rows made up here: files of Zipf-distributed ids (they compress
about as code does) in five languages, best-fit packed. Tokens are what a step would compute on,
rows times seq_len. CPU seconds are user and system time of all threads, so tokens per CPU second
are tokens per second of a core. The peer reads ids from a memory map and makes the same batch
with neither shards nor shuffling within them: the floor that a loader pays for nothing.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
import time
from typing import Any

import numpy as np

from geex_jax.errors import GeexError

AIM = 10.0  # million tokens per CPU second


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `geex bench loader`."""
    parser.add_argument("--data", metavar="DIR", help="prepared data (default: made up)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows a batch (default 32)")
    parser.add_argument("--seq-len", type=int, default=2048, help="of made-up rows (default 2048)")
    parser.add_argument("--rows", type=int, default=8192, help="made-up rows (default 8192)")
    parser.add_argument("--epochs", type=float, default=3, help="to read (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    if min(args.batch_size, args.seq_len - 63, args.rows, args.epochs) <= 0:
        raise GeexError("a size is not positive, or --seq-len below 64", "leave them out")
    with tempfile.TemporaryDirectory(prefix="geex-bench-") as folder:
        data = args.data or make_data(pathlib.Path(folder) / "data", args.seq_len, args.rows)
        result = measure(data, args.batch_size, args.epochs)
    print(json.dumps(result) if args.json else "\n".join(lines(result)))


def measure(folder: Any, batch_size: int = 32, epochs: float = 3.0) -> dict[str, Any]:
    """Returns the figures of one run, as `--json` prints them.

    Args:
      folder: prepared data.
      batch_size: rows in a batch.
      epochs: how often the rows are read; memory is looked at 8 times an epoch.
    """
    result: dict[str, Any] = {}
    for name, prefetch in (("calling thread", 0), ("prefetching", 8)):
        result[name], loader = timed(folder, batch_size, epochs, prefetch)
        result |= {"rows": loader.rows, "seq_len": loader.seq_len, "batch_size": batch_size}
    result["peer"] = _peer(result["seq_len"], batch_size)
    return result


def timed(
    folder: Any, batch_size: int, epochs: float, prefetch: int
) -> tuple[dict[str, float], Any]:
    """Returns the speed and the memory of a loader, and the loader; see `measure`."""
    from geex_jax.data import make_loader

    loader = make_loader(folder, batch_size=batch_size, prefetch=prefetch)
    per_epoch = max(8, loader.rows // batch_size)
    for _ in range(per_epoch):  # all files opened, all threads under way, caches warm
        next(loader)
    memory, steps = [], max(8, int(epochs * per_epoch))
    wall, cpu = time.perf_counter(), time.process_time()
    for step in range(steps):
        next(loader)
        if step % (per_epoch // 8) == 0:
            memory.append(resident())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tokens = steps * batch_size * loader.seq_len / 1e6
    return {
        "megatokens_per_second": tokens / wall,
        "megatokens_per_cpu_second": tokens / cpu,
        "megabytes_first": memory[0],
        "megabytes_last": memory[-1],
        "megabytes_most": max(memory),
    }, loader


def _peer(seq_len: int, batch_size: int) -> dict[str, float]:
    """Random windows of a memory map as a batch of int32, nothing else: no segments, no state."""
    rng = np.random.default_rng(0)
    with tempfile.NamedTemporaryFile() as file:
        rng.integers(0, 50000, 1 << 24, dtype=np.uint16).tofile(file)
        file.flush()
        ids = np.memmap(file.name, np.uint16, "r")
        steps, cpu = 256, time.process_time()
        for _ in range(steps):
            at = rng.integers(0, len(ids) - seq_len - 1, batch_size)
            np.stack([ids[i : i + seq_len].astype(np.int32) for i in at])
            np.stack([ids[i + 1 : i + seq_len + 1].astype(np.int32) for i in at])
        cpu = time.process_time() - cpu
    return {"megatokens_per_cpu_second": steps * batch_size * seq_len / 1e6 / cpu}


def resident() -> float:
    """Returns the resident memory of this process in MB."""
    import resource

    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the most so far
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return pages * resource.getpagesize() / 1e6


def lines(result: dict[str, Any]) -> list[str]:
    """Returns the figures for people."""
    found = [
        f"{result['rows']:,} rows of {result['seq_len']}, {result['batch_size']} a batch "
        f"(aim: {AIM:g} Mtokens per CPU second)"
    ]
    for name in ("calling thread", "prefetching"):
        part = result[name]
        found.append(
            f"  {name:<15} {part['megatokens_per_cpu_second']:6.1f} Mtokens per CPU second, "
            f"{part['megatokens_per_second']:6.1f} Mtokens/s; memory "
            f"{part['megabytes_first']:.0f} -> {part['megabytes_last']:.0f} MB, "
            f"at most {part['megabytes_most']:.0f}"
        )
    peer = result["peer"]["megatokens_per_cpu_second"]
    found.append(
        f"  {'a memory map':<15} {peer:6.1f} Mtokens per CPU second, tokens and targets only"
    )
    return found


def make_data(folder: pathlib.Path, seq_len: int, rows: int) -> pathlib.Path:
    """Writes a folder of prepared data with about so many made-up rows; returns it."""
    from array_record.python.array_record_module import ArrayRecordWriter

    from geex_jax.data import manifest as manifests
    from geex_jax.data import pack, records
    from geex_jax.languages import LANGUAGES

    rng = np.random.default_rng(0)
    chances = 1 / np.arange(1, 50257)
    ids = rng.choice(50256, 1 << 22, p=chances / chances.sum()).astype(np.uint16)
    amounts = {}
    infos = [manifests.LanguageInfo(x.name, x.slug, x.tag, 0) for x in LANGUAGES]
    for index, share in enumerate((0.4, 0.3, 0.15, 0.1, 0.05)):
        counts, wanted = pack.Counts(), int(rows * share)

        def documents(tokens: int = wanted * seq_len) -> Any:
            while tokens > 0:
                size = int(min(rng.lognormal(6.5, 1.1) + 60, 30_000))
                at = int(rng.integers(0, len(ids) - size))
                tokens -= size
                yield pack.Tokens(ids[at : at + size])

        path = folder / "train" / manifests.shard_name(infos[index].slug, 0, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = ArrayRecordWriter(str(path), "group_size:1,zstd:1")
        for row in pack.pack(documents(), seq_len + 1, ids[:6], 50256, counts=counts):
            packed = records.Row(row.tokens, row.starts, row.used, index)
            writer.write(records.encode_row(packed, np.dtype("<u2")))
        writer.close()
        amounts[infos[index].name] = manifests.Amount(
            counts.documents, 3 * counts.tokens, counts.tokens, counts.rows, 1
        )
    manifests.save(
        manifests.Manifest(
            format=manifests.FORMAT, fingerprint="0" * 16, seq_len=seq_len, seed=0, tags=True,
            recipe="", settings={}, input="", tokenizer=manifests.TokenizerInfo(
                "made up", "0" * 16, 50257, 50256, 50256
            ), languages=tuple(infos), splits={"train": amounts, "validation": {}},
            fill={}, whole=0.0, seen={}, dropped={}, passed_by={}, stages={}, licences={},
            mixture={},
        ),
        folder,
    )  # fmt: skip
    return folder
