"""The paper's training on more and more chips: a table by arithmetic, nothing compiled or run.

13 billion parameters, 3072 rows of 2048 tokens a step in all (strong scaling), and the same rows
per chip as on the smallest slice (weak scaling). Parameters, gradients and optimizer are split
over all chips of a slice (ZeRO-3): in every part of a batch each chip gathers all weights twice
and all-reduces all gradients (so the compiler does it on a torus: `geex bench collectives`), by
the ring formulas, whatever the number of chips. So the fewer rows a chip has, the longer it waits.
Rows and remat are those of `experiments/codegeex_13b.py`, which the compiler has accepted.
"""

from __future__ import annotations

import functools
import json
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from geex_jax import files
from geex_jax.errors import GeexError, did_you_mean
from geex_jax.models import preset
from geex_jax.pages import Table, text_table
from geex_jax.plan import collectives
from geex_jax.plan.chips import CHIPS, GIB
from geex_jax.plan.topology import CUBIC, FLAT, Topology, parse
from geex_jax.training.metrics import count_params, flops_per_token

LABEL = "arithmetic: ring formulas and public rates; nothing compiled, nothing measured"
ROWS, LENGTH, PRESET = 3072, 2048, "codegeex-13b"
# FLOPs over the model's, counted on the step's jaxpr: remat minimal and ctx.
RATIO = {"v4": 1.214, "v5e": 1.214, "v5p": 1.010, "v6e": 1.214, "tpu7x": 1.010}
MOST_ROWS = {"v4": 6, "v5e": 4, "v5p": 4, "v6e": 6, "tpu7x": 16}  # that a chip holds at once


@functools.cache
def parameters() -> int:
    """Of the paper's model, a tied head counted once."""
    return count_params(preset(PRESET))


def parse_range(text: str) -> tuple[int, int]:
    """The ends of "64..1536".

    Raises:
      GeexError: not two ascending numbers.
    """
    found = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if not found or not 0 < int(found[1]) <= int(found[2]):
        raise GeexError(f"--scaling {text}", "write two numbers of chips, 64..1536")
    return int(found[1]), int(found[2])


def slices(family: str, first: int, last: int) -> Iterator[Topology]:
    """Slices of a generation between two numbers of chips, each about half as large again."""
    if family not in CHIPS:
        raise GeexError(f"unknown generation {family!r}", did_you_mean(family, CHIPS))
    chip = CHIPS[family]
    table = CUBIC if chip.dimensions == 3 else FLAT
    for number, shapes in table.items():
        regular = number in (first, last) or number & (number - 1) == 0
        if first <= number <= last and number <= chip.pod and regular:
            yield parse(f"{family}:{shapes[0]}")


def scaling(text: str, families: list[str], cache: str = "") -> dict[str, Any]:
    """The table.

    Args:
      text: "64..1536", numbers of chips.
      families: generations.
      cache: folder of compiled summaries; one of this model's wire bytes replaces the formulas.

    Returns:
      A dict that JSON can hold: `label`, `rows`.
    """
    first, last = parse_range(text)
    rows = []
    for family in families:
        found = list(slices(family, first, last))
        if not found:
            raise GeexError(f"no {family} slice has {first} to {last} chips", "widen --scaling")
        per_chip = ROWS / found[0].chips
        for where in found:
            rows.append(row(where, ROWS, "strong", cache))
        for where in found:
            rows.append(row(where, math.ceil(per_chip * where.chips), "weak", cache))
    return {"kind": "scaling", "label": LABEL, "rows": rows}


def row(where: Topology, batch: int, kind: str, cache: str = "") -> dict[str, Any]:
    """One line: a slice and a global batch."""
    chip, model = where.chip, preset(PRESET)
    parts, idle = _parts(batch, where)
    flops = flops_per_token(model, LENGTH) * batch * LENGTH
    ideal = flops / where.chips / chip.bf16
    # The chip with the most rows sets the pace.
    compute = ideal * RATIO[chip.name] / (1 - idle)
    wire, source = _wire(where, cache)
    ici = parts * wire / chip.ici
    longest = max(compute, ici)
    state = 16 * parameters() / where.devices
    return {
        "kind": kind, "topology": where.name, "chips": where.chips, "batch": batch,
        "rows_per_chip": batch / where.chips, "parts": parts, "state": state,
        "compute": compute, "ici": ici, "wire": wire, "wire_source": source,
        "bound": "compute" if compute >= ici else "ICI", "idle": idle,
        "mfu_overlap": ideal / longest, "mfu_exposed": ideal / (compute + ici),
        "tokens_per_second": batch * LENGTH / longest,
    }  # fmt: skip


def _parts(batch: int, where: Topology) -> tuple[int, float]:
    # (parts that a batch is run in, share of the chips' time with no row to work on)
    rows = math.ceil(batch / where.chips)
    most = MOST_ROWS[where.chip.name]
    at_once = max(n for n in range(1, most + 1) if rows % n == 0)
    parts = rows // at_once
    return parts, 1 - batch / (where.chips * parts * at_once)


def _wire(where: Topology, cache: str) -> tuple[float, str]:
    """Bytes that a chip sends for one part of a batch, and where the figure comes from."""
    compiled = _compiled(where, cache)
    if compiled is not None:
        return compiled, "compiled"
    size = 2 * parameters()
    per = sum(collectives.wire(k, size, where.devices)[0] for k in (
        "all-gather", "all-gather", "all-reduce"
    ))  # fmt: skip
    return per * where.chip.devices, "ring formulas"


def _compiled(where: Topology, cache: str) -> float | None:
    # A summary of a full-size step on this very slice, if one is kept; per part of its batch.
    path = wire_file(cache, PRESET, where.label) if cache else None
    if path is None or not path.is_file():
        return None
    return json.loads(path.read_text())["bytes_per_part"] * where.chip.devices


def wire_file(cache: files.Path, model: str, topology: str) -> pathlib.Path:
    """Where the wire bytes of a full-size compiled step are kept, the last one compiled."""
    return pathlib.Path(cache) / f"wire-{files.fingerprint(model, topology)}.json"


def keep_wire(cache: files.Path, plan: dict[str, Any]) -> None:
    """Keeps what a compiled step sends for each part of a batch, for this table."""
    if not plan["compiled"]["fits"] or plan["topology"]["slices"] > 1:
        return
    name, where = plan["model"]["name"], plan["topology"]["name"]
    if plan["model"]["parameters"] != count_params(preset(name)) or plan["fast"]:
        return
    total = sum(c["ici"] * c["count"] for c in plan["compiled"]["collectives"])
    value = {"model": name, "topology": where, "key": plan["compiled"]["key"],
             "bytes_per_part": total / plan["step"]["accumulate"]}  # fmt: skip
    files.write_json(wire_file(cache, name, where), value)


def render(table: dict[str, Any]) -> str:
    """The table as text."""
    body: list[list[Any]] = [
        [
            r["kind"], r["topology"], f"{r['chips']:,}", f"{r['batch']:,}",
            f"{r['rows_per_chip']:.1f}", f"{r['parts']}", f"{r['state'] / GIB:.2f}",
            f"{r['compute']:.2f}", f"{r['ici']:.2f}", r["bound"], f"{r['mfu_overlap']:.2f}",
            f"{r['mfu_exposed']:.2f}", f"{r['tokens_per_second'] / 1e6:.2f}", r["wire_source"],
        ]
        for r in table["rows"]
    ]  # fmt: skip
    head = [
        "scaling", "slice", "chips", "rows", "rows/chip", "parts", "GiB state", "compute s",
        "ICI s", "bound", "MFU overlap", "MFU exposed", "Mtokens/s", "wire bytes",
    ]  # fmt: skip
    notes = (
        f"CodeGeeX-13B, {LENGTH} tokens a row, remat ctx (v5p, tpu7x: minimal), {RATIO['v4']} "
        f"({RATIO['v5p']:.3f}) x the model's FLOPs. {table['label']}.\n"
        "MFU overlap: all communication hidden; exposed: none of it. "
        "Where rows do not divide over the chips, some wait (counted)."
    )
    return f"{text_table(Table('', head, body, labels=2))}\n\n{notes}"
