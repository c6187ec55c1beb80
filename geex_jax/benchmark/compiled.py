"""What a compiled TPU program says of itself: its memory, and the compiler's estimate of cycles.

The compiler writes `estimated_cycles` on each fusion of its optimized HLO. Their sum, each loop's
body counted as often as it runs, ranks programs of one chip; it is no time. Pallas kernels and
collectives carry none.
"""

from __future__ import annotations

import re
from typing import Any

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_WHILE = re.compile(r" while\(.*?condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALL = re.compile(r" (?:call|async-start)\(.*?(?:to_apply|calls)=%?([\w.\-]+)")
_BRANCHES = re.compile(r" conditional\(.*?branch_computations=\{([^}]*)\}")
_CONSTANT = re.compile(r" s32\[\]\S* constant\((\d+)\)")


def estimated_cycles(hlo: str) -> int:
    """Sum of `estimated_cycles` over a program, loops counted; of branches the dearest.

    A loop's count is the compiler's `known_trip_count`, or else the largest constant of its
    condition: what XLA makes of `lax.scan`.

    Args:
      hlo: `compiled.as_text()`.
    """
    bodies, entry = _computations(hlo)
    seen: dict[str, int] = {}

    def total(name: str) -> int:
        if name not in seen:
            seen[name] = sum(line_cycles(line) for line in bodies.get(name, ()))
        return seen[name]

    def line_cycles(line: str) -> int:
        found = _CYCLES.search(line)
        cycles = int(found[1]) if found else 0
        if loop := _WHILE.search(line):
            known = _TRIPS.search(line)
            return cycles + (int(known[1]) if known else _limit(bodies, loop[1])) * total(loop[2])
        if call := _CALL.search(line):
            return cycles + total(call[1])
        if branches := _BRANCHES.search(line):
            names = [name.strip().lstrip("%") for name in branches[1].split(",")]
            return cycles + max(map(total, names))
        return cycles

    return total(entry)


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    bodies: dict[str, list[str]] = {}
    entry, current = "", []
    for line in hlo.splitlines():
        if header := _HEADER.match(line):
            current = bodies.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif line.startswith(" "):
            current.append(line)
    return bodies, entry


def _limit(bodies: dict[str, list[str]], condition: str) -> int:
    found = [int(n) for line in bodies.get(condition, ()) for n in _CONSTANT.findall(line)]
    return max(found, default=1)


def figures(compiled: Any) -> dict[str, int]:
    """Bytes a chip (arguments, temporaries, peak) and the sum of estimated cycles."""
    memory = compiled.memory_analysis()
    return {
        "argument_bytes": int(memory.argument_size_in_bytes),
        "temporary_bytes": int(memory.temp_size_in_bytes),
        "peak_bytes": int(getattr(memory, "peak_memory_in_bytes", 0)),
        "estimated_cycles": estimated_cycles(compiled.as_text()),
    }
