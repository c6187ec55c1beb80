"""What the TPU compiler makes of a gradient's reduce-scatter, and what that costs by arithmetic.

The gradient of one matrix is summed over a whole slice, each chip keeping its part: by one
`psum_scatter` over all chips, and by one for each dimension of the torus in turn. The compiler
turns the first into an all-reduce whose rings use every link, and only the second into
reduce-scatters, each a ring along one dimension, which uses that dimension's links alone. Fewer
bytes are sent then, but not in less time. Nothing runs: bytes and seconds are arithmetic over the
compiled program.
"""

from __future__ import annotations

import argparse
import functools
import json
from typing import Any

from geex_jax.errors import GeexError
from geex_jax.pages import Table, text_table

TOPOLOGIES = ("v4:4x4x4", "v5e:16x16", "v5p:4x4x8", "v6e:8x8", "v6e:16x16")
NAMES = ("x", "y", "z")
ROWS = 512  # rows of activations a chip: they change nothing of the collective


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `geex bench collectives`."""
    add = parser.add_argument
    add("--topology", nargs="+", default=list(TOPOLOGIES), metavar="NAME",
        help="slices (default: %(default)s)")  # fmt: skip
    add("--shape", type=int, nargs=2, default=[5120, 20480], metavar=("IN", "OUT"),
        help="of the matrix (default: CodeGeeX-13B's mlp/up, 5120 20480)")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Compiles both forms for each slice and prints the table.

    Raises:
      GeexError: no libtpu, an unknown slice, or a matrix that does not divide over it.
    """
    from geex_jax.plan import topology as topologies

    places = [topologies.parse(name) for name in args.topology]
    for place in places:
        if args.shape[0] % place.chips:
            raise GeexError(
                f"{args.shape[0]} rows do not divide over the {place.chips} chips of {place.name}",
                "give --shape a multiple",
            )
    topologies.require_libtpu()
    topologies.prepare()
    found = [row for place in places for row in _rows(place, tuple(args.shape))]
    if args.json:
        print(json.dumps(found))
        return
    head = ["slice", "psum_scatter", "compiled to", "MB sent a chip", "links used", "ms"]
    lines: list[Any] = [
        [r["topology"], r["form"], r["compiled"], f"{r['bytes'] / 1e6:.0f}", r["links"],
         f"{r['seconds'] * 1e3:.2f}"]
        for r in found
    ]  # fmt: skip
    caption = f"the gradient of one {args.shape[0]} x {args.shape[1]} matrix in bfloat16"
    print(text_table(Table(caption, head, lines, labels=3)))
    print("ms: bytes over the rate of the links used; arithmetic, not measured.")


def _rows(place: Any, shape: tuple[int, int]) -> list[dict[str, Any]]:
    names = [n for n, size in zip(NAMES, place.shape, strict=False) if size > 1]
    forms = {"all chips at once": [tuple(names)]}
    if len(names) > 1:
        forms["one dimension after the other"] = [(n,) for n in names]
    return [
        {"topology": place.name, "form": form, **_compiled(place, shape, stages)}
        for form, stages in forms.items()
    ]


def _compiled(place: Any, shape: tuple[int, int], stages: list[tuple[str, ...]]) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental import mesh_utils
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from geex_jax.plan.collectives import find
    from geex_jax.plan.hlo import Module
    from geex_jax.plan.topology import open_devices

    sizes = (*place.shape, place.chip.devices)
    names = (*NAMES[: len(place.shape)], "core")
    devices = mesh_utils.create_device_mesh(
        sizes, devices=open_devices(place), allow_split_physical_axes=True
    )
    mesh = Mesh(devices, names)
    rows = PartitionSpec(names)

    def gradient(x: jax.Array, y: jax.Array) -> jax.Array:
        grad = jnp.einsum("ti,to->io", x, y)
        for stage in stages:
            grad = jax.lax.psum_scatter(grad, stage, scatter_dimension=0, tiled=True)
        return grad

    order = tuple(name for stage in stages for name in stage)
    step = jax.shard_map(
        gradient, mesh=mesh, in_specs=(rows, rows), out_specs=PartitionSpec(order), check_vma=False
    )
    count = int(np.prod(sizes)) * ROWS
    inputs = [
        jax.ShapeDtypeStruct((count, n), jnp.bfloat16, sharding=NamedSharding(mesh, rows))
        for n in shape
    ]
    # Least effort: the choice of collectives is the same, in seconds instead of minutes.
    options: Any = {"exec_time_optimization_effort": -1.0}
    text: Any = jax.jit(step).lower(*inputs).compile(compiler_options=options).as_text()
    collectives = find(Module(text), [0] * devices.size)
    return _cost(place, collectives, stages)


def _cost(place: Any, collectives: list[Any], stages: list[tuple[str, ...]]) -> dict[str, Any]:
    # A ring along one dimension of a D-dimensional torus has 1/D of a chip's links.
    dimensions = sum(n > 1 for n in place.shape)
    share = functools.reduce(max, (len(s) for s in stages)) / dimensions
    sent = sum(c.ici for c in collectives)
    rate = place.chip.ici / place.chip.devices * min(1.0, share)
    kinds: dict[str, int] = {}
    for c in collectives:
        kinds[c.kind] = kinds.get(c.kind, 0) + 1
    return {
        "compiled": ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())),
        "bytes": sent,
        "links": "all" if share == 1 else f"1/{dimensions}",
        "seconds": sent / rate,
    }
