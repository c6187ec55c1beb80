"""`geex serve`: checkpoints behind an OpenAI-compatible server, with a page to try them."""

from __future__ import annotations

import argparse

from geex_jax.cli import forms

EXAMPLE = "geex serve --checkpoint runs/small --compare-bits 8 --port 8000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("--checkpoint", action="append", required=True, metavar="[NAME=]FOLDER",
        help="a model folder or a training workdir; several are served by name, the first is "
        "the default")  # fmt: skip
    forms.add_arguments(parser)
    add("--compare-policy", metavar="P",
        help="serve each model twice, as it is and quantized by this policy, to compare them side "
        "by side")  # fmt: skip
    add("--compare-bits", type=int, choices=(8, 4), help="as --compare-policy int8 or int4")
    add("--mesh", metavar="SIZES", help="spread over devices: tensor=4, or 2x4 (fsdp x tensor)")
    _engine_arguments(parser)
    _door_arguments(parser)


def _engine_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--slots", type=int, metavar="N", help="sequences decoded at once (default 8)")
    add(
        "--context",
        type=int,
        metavar="N",
        help="tokens that prompt and completion share (default: the model's)",
    )
    add(
        "--max-waiting",
        type=int,
        metavar="N",
        help="requests that may wait for a slot; more get status 429 (default 256)",
    )
    add("--speculate", type=int, metavar="N",
        help="tokens guessed a step, from the text so far or by --draft, and checked: the output "
        "stays the same (default 0; 4 with --draft)")  # fmt: skip
    add("--draft", metavar="FOLDER",
        help="a smaller model with the same tokenizer that does the guessing, in the form that it "
        "is stored in")  # fmt: skip
    add(
        "--prefill-chunk",
        type=int,
        metavar="N",
        help="tokens of a prompt read between two decode steps (default 256)",
    )
    add("--compile-cache", metavar="DIR",
        help="where compiled programs are kept for the next start; - for nowhere "
        "(default: ~/.cache/geex/programs)")  # fmt: skip
    add(
        "--prefix-cache-mb",
        type=int,
        metavar="MB",
        help="memory for prompts' beginnings (default 256; 0: none)",
    )


def _door_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--host", default="127.0.0.1",
        help="address to listen on (default %(default)s: this machine only)")  # fmt: skip
    add("--port", type=int, default=8000, help="0 takes a free one (default %(default)s)")
    add("--api-key", action="append", default=[], metavar="KEY",
        help="asked for below /v1/; repeatable. Other users of this machine can read it in the "
        "list of processes: better set GEEX_API_KEY")  # fmt: skip
    add("--cors", action="append", default=[], metavar="ORIGIN",
        help="let pages of https://name call the server; * for all (default: none)")  # fmt: skip
    add("--allow-host", action="append", default=[], metavar="NAME",
        help="another name in Host headers, where the server listens on this machine only and "
        "asks for no key; * for all")  # fmt: skip
    add("--max-body-mb", type=float, default=8, metavar="MB",
        help="largest request (default %(default)s)")  # fmt: skip
    add(
        "--deadline",
        type=float,
        default=600,
        metavar="SECONDS",
        help="a completion that takes longer ends where it is; 0: never (default %(default)s)",
    )
    add(
        "--stall",
        type=float,
        default=60,
        metavar="SECONDS",
        help="cut off a client that does not read its answer for so long (default %(default)s)",
    )
    add("--drain", type=float, default=60, metavar="SECONDS",
        help="after SIGTERM, how long what runs may go on (default %(default)s)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Checks, takes the address, loads, serves."""
    import sys

    settings = _settings(args)
    try:
        from geex_jax import serving
    except ModuleNotFoundError as error:
        from geex_jax.errors import GeexError

        raise GeexError(
            f"the server needs the package {error.name}", 'pip install "geex-jax[serve]"'
        ) from None
    wanted = _wanted(args)
    wanted.check()
    sock = serving.bind(args.host, args.port)
    if args.host not in serving.LOOPBACK and not settings["api_keys"]:
        print(f"geex serve: warning: listening on {args.host} without an API key: whoever reaches "
              "this machine can use the model (set GEEX_API_KEY)", file=sys.stderr)  # fmt: skip
    try:
        models = serving.load(wanted)
        app = serving.make_app(models, serving.Settings(**settings))
    except BaseException:
        sock.close()
        raise
    names = ", ".join(f"{m.name} ({m.form})" for m in models)
    line = f"ready: {serving.url_of(sock)} serves {names}"
    serving.serve(app, sock, lambda: print(line, flush=True))


def _settings(args: argparse.Namespace) -> dict:
    """Fields of serving.Settings."""
    import math
    import os
    import re

    from geex_jax.errors import GeexError

    keys = tuple(args.api_key) or tuple(filter(None, [os.environ.get("GEEX_API_KEY", "")]))
    keys = tuple(k.strip() for k in keys)  # as they are read from a header
    if not all(keys):
        raise GeexError("an empty --api-key", "leave it out, or give one")
    for name in ("max_body_mb", "stall", "drain", "deadline"):
        value = getattr(args, name)
        endless = name == "max_body_mb" and value == math.inf
        if endless or not (value > 0 or (name in ("deadline", "drain") and value == 0)):
            raise GeexError(f"--{name.replace('_', '-')} {value}", "give a positive number")
    for origin in args.cors:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
            raise GeexError(
                f"--cors {origin!r} is not what browsers send",
                "give scheme and host alone, such as https://name or http://name:3000",
            )
    hosts: tuple[str, ...] = ()
    alone = args.host in ("127.0.0.1", "localhost", "::1")
    if alone and not keys and "*" not in args.allow_host:
        hosts = ("127.0.0.1", "localhost", "[::1]", *(h.lower() for h in args.allow_host))
    return {
        "api_keys": keys,
        "cors": tuple(args.cors),
        "hosts": hosts,
        "max_body": int(args.max_body_mb * 2**20),
        "deadline": args.deadline or None,
        "stall_seconds": args.stall,
        "drain_seconds": args.drain,
    }


def _wanted(args: argparse.Namespace):
    """What `serving.load` is told."""
    from geex_jax import files, serving
    from geex_jax.errors import GeexError
    from geex_jax.parallel import parse_mesh

    compare = forms.policy_of(args.compare_policy, args.compare_bits, "compare-")
    form = forms.form_of(args, compare)
    if form.policy and compare:
        raise GeexError("a policy, and another to compare it with", "give one of them")
    engine = {
        name: value
        for name in ("slots", "context", "max_waiting", "speculate", "prefill_chunk")
        if (value := getattr(args, name)) is not None
    }
    if args.draft is not None:
        engine.setdefault("speculate", 4)
    kept = args.compile_cache or str(files.cache_folder() / "programs")
    engine["compile_cache"] = None if kept == "-" else kept
    if args.prefix_cache_mb is not None:
        engine["prefix_cache_bytes"] = args.prefix_cache_mb << 20
    return serving.Wanted(
        checkpoints=[serving.parse_checkpoint(text) for text in args.checkpoint],
        form=form,
        compare=compare,
        engine=engine,
        mesh=parse_mesh(args.mesh) if args.mesh else None,
        draft=args.draft,
    )
