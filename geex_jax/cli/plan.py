"""`geex plan`: will it fit, how fast could it be, and why; by the TPU compiler, without a TPU."""

from __future__ import annotations

import argparse
from typing import Any

from geex_jax.errors import GeexError, did_you_mean

EXAMPLE = "geex plan --config experiments/codegeex_13b.py --topology v5e:16x16"
TAKES_EXTRA = True
DOES_NOT_FIT = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags; `--config.KEY=VALUE` overrides are taken as extra words."""
    add = parser.add_argument
    add("--config", metavar="FILE", help="experiment file whose train step is planned")
    add("--topology", metavar="NAME",
        help="v5e:16x16, or a name by number: v5litepod-256 and v6e-64 count chips, v4-128 and"
        " v5p-128 TensorCores, two a chip")  # fmt: skip
    add("--slices", type=int, default=1, metavar="N",
        help="slices joined by the data centre's network (default %(default)s)")  # fmt: skip
    add("--slice", default="", metavar="NAME",
        help="an entry of the experiment's SLICES: topology and overrides; 'list' shows them",
        )  # fmt: skip
    add("--json", action="store_true", help="print one JSON object")
    add("--memory-only", action="store_true",
        help="bytes by arithmetic from shapes, in seconds and without libtpu")  # fmt: skip
    add("--search", action="store_true",
        help="try remat policies, rows a device and meshes; print the best that fits")  # fmt: skip
    add("--compiles", type=int, default=3, metavar="N",
        help="candidates that --search compiles at most (default %(default)s)")  # fmt: skip
    add("--compiler-option", action="append", default=[], metavar="NAME=VALUE",
        help="an option of XLA's TPU compiler; repeatable")  # fmt: skip
    add("--fast", action="store_true",
        help="least effort of the compiler: structure and rough memory, no cycles")  # fmt: skip
    add("--cache", metavar="DIR",
        help="where results are kept by the program's fingerprint (default ~/.cache/geex/plan);"
        " 'none' keeps nothing")  # fmt: skip
    serve = parser.add_argument_group("serving")
    serve.add_argument("--decode", action="store_true", help="plan prefill and decode instead")
    serve.add_argument("--preset", default="codegeex-13b", metavar="NAME",
                       help="shape (default %(default)s)")  # fmt: skip
    serve.add_argument("--bits", type=int, default=8, help="of weights: 16, 8, 4 (default 8)")
    serve.add_argument("--kv-bits", type=int, default=16, help="of the cache: 16, 8 (default 16)")
    serve.add_argument("--activations", default="float", choices=("float", "int8"),
                       help="what quantized weights are multiplied by (default %(default)s)",
                       )  # fmt: skip
    serve.add_argument("--batch", type=int, default=1, help="sequences (default %(default)s)")
    serve.add_argument("--context", type=int, default=2048, help="slots (default %(default)s)")
    serve.add_argument("--prefill", type=int, default=256, metavar="N",
                       help="tokens of a prompt taken in at once (default %(default)s)",
                       )  # fmt: skip
    serve.add_argument("--mesh", default="", metavar="AXES",
                       help="tensor=4, for example (default: all devices on tensor)")  # fmt: skip
    paper = parser.add_argument_group("scaling")
    paper.add_argument(
        "--scaling",
        metavar="A..B",
        help="the paper's 13B at a global batch of 3072 rows on A to B chips",
    )
    paper.add_argument("--topology-family", default="v4,v5p", metavar="LIST",
                       help="generations of the table (default %(default)s)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Plans and prints; returns 0 if it fits, 1 if it does not."""
    flags = [w for w in args.extra if w.startswith("-") and not w.startswith("--config.")]
    if flags:
        known = ["--config", "--config.KEY=VALUE", "--topology", "--slices", "--slice", "--json",
                 "--memory-only", "--search", "--compiler-option", "--fast", "--cache", "--decode",
                 "--preset", "--bits", "--kv-bits", "--activations", "--batch", "--context",
                 "--prefill", "--mesh", "--scaling", "--topology-family",
                 "--compiles"]  # fmt: skip
        raise GeexError(f"unknown flag {flags[0]}", did_you_mean(flags[0].split("=")[0], known))
    if args.scaling:
        return _scaling(args)
    if args.slice == "list":
        return _list(args)
    job = _job(args)
    where = job.where()
    if args.memory_only:
        return _memory_only(args, job, where)
    if args.search:
        return _search(args, job)
    return _compile(args, job, where)


def _job(args: argparse.Namespace) -> Any:
    from geex_jax.plan import compile as compiling
    from geex_jax.plan import jobs
    from geex_jax.plan.experiments import find_slice

    if args.decode and args.config:
        raise GeexError("--decode plans a preset, not a config", "give --preset in place of it")
    if not args.decode and not args.config:
        raise GeexError("no --config given", "name an experiment file, or plan --decode")
    entry = find_slice(args.config, args.slice) if args.slice else {}
    topology = args.topology or entry.get("topology")
    if not topology:
        raise GeexError("no --topology given", "v5e:16x16, for example")
    options = {**entry.get("options", {}), **compiling.parse_options(args.compiler_option)}
    cache = args.cache or str(compiling.default_cache())
    decode = None
    if args.decode:
        decode = {
            "preset_name": args.preset, "bits": args.bits, "batch": args.batch,
            "context": args.context, "kv_bits": args.kv_bits, "activations": args.activations,
            "prefill": args.prefill, "mesh_text": args.mesh,
        }  # fmt: skip
    return jobs.Job(
        topology, entry.get("slices", args.slices), args.config or "", tuple(args.extra),
        args.slice, decode, options, args.fast, "" if cache == "none" else cache,
    )  # fmt: skip


def _compile(args: argparse.Namespace, job: Any, where: Any) -> int:
    import json

    from geex_jax.plan import jobs
    from geex_jax.plan.render import render, render_prefill

    plan = jobs.run(job)
    fits = plan["compiled"]["fits"] and plan.get("prefill", {"fits": True})["fits"]
    if args.json:
        print(json.dumps(plan | {"fits": fits}))
        return 0 if fits else DOES_NOT_FIT
    print(render(plan, where))
    if job.decode is not None:
        print("\n" + render_prefill(plan))
    elif not fits:
        from geex_jax.plan.estimate import estimate
        from geex_jax.plan.search import search

        print("\nwhat would fit:")
        search(job, compiles=args.compiles, below=estimate(jobs.load(job), where)["total"])
    return 0 if fits else DOES_NOT_FIT


def _memory_only(args: argparse.Namespace, job: Any, where: Any) -> int:
    import json

    from geex_jax.plan import topology

    if args.decode:
        raise GeexError(
            "--memory-only estimates train steps", "--decode compiles in a minute or two"
        )
    topology.prepare()
    from geex_jax.plan.estimate import estimate, render
    from geex_jax.plan.jobs import load

    found = estimate(load(job), where)
    print(json.dumps(found) if args.json else render(found))
    return 0 if found["fits"] else DOES_NOT_FIT


def _search(args: argparse.Namespace, job: Any) -> int:
    import json

    from geex_jax.plan.search import search

    if args.decode:
        raise GeexError("--search tries train steps", "give --config, or vary --batch and --bits")
    best = search(job, compiles=args.compiles, quiet=args.json)
    if args.json:
        print(json.dumps(best))
    return 0 if best is not None else DOES_NOT_FIT


def _scaling(args: argparse.Namespace) -> int:
    import json

    from geex_jax.plan import compile as compiling
    from geex_jax.plan import scaling, topology

    topology.prepare()
    cache = args.cache or str(compiling.default_cache())
    families = [f.strip() for f in args.topology_family.split(",")]
    table = scaling.scaling(args.scaling, families, "" if cache == "none" else cache)
    print(json.dumps(table) if args.json else scaling.render(table))
    return 0


def _list(args: argparse.Namespace) -> int:
    from geex_jax.plan.experiments import slices_of

    if not args.config:
        raise GeexError("no --config given", "name an experiment file")
    for name, entry in slices_of(args.config).items():
        print(f"{name}: " + ", ".join(f"{k}={v}" for k, v in entry.items()))
    return 0
