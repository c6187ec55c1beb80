"""`geex serve` under load: requests and tokens a second, waiting times, and what is left behind.

The server is started here, on a free loopback port, with a checkpoint or with random weights of a
preset, with a slot for each client and without kept prompts. The same requests (prompts and
completions of mixed lengths, all streamed) run against it one after the other and all at once, in
turns; the ratio of their tokens per second, each at its best, is what continuous batching gives.
Then comes the load: many more requests by all clients, of which a share is cancelled by its client
in mid-stream. In the end the slots must be empty; memory is the server's own, before and after.

Times are a client's: to the first event with text, and between events of a stream, of which one
may hold several tokens. The clients are this process; they share the machine with the server.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import pathlib
import random
import tempfile
import time
from typing import Any

from geex_jax.benchmark import serve_process
from geex_jax.errors import GeexError

AIM = 5.0  # times the tokens/s of one at a time, with 16 clients


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `geex bench serve`."""
    add = parser.add_argument
    add("--checkpoint", metavar="DIR", help="model to serve (default: random weights)")
    add("--preset", default="geex-3m", help="shape of random weights (default %(default)s)")
    add("--clients", type=int, default=16, metavar="N", help="at once (default %(default)s)")
    add("--requests", type=int, default=128, metavar="N", help="in all (default %(default)s)")
    add(
        "--alone",
        type=int,
        metavar="N",
        help="requests that run one after the other and all at once (default: as many as clients)",
    )
    add("--rounds", type=int, default=2, metavar="N",
        help="of these two, in turns (default %(default)s)")  # fmt: skip
    add("--prompt", type=_span, default=(16, 128), metavar="A-B", help="tokens (default 16-128)")
    add("--tokens", type=_span, default=(16, 96), metavar="A-B",
        help="tokens of completions (default 16-96)")  # fmt: skip
    add(
        "--cancel",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="of requests that their client leaves in mid-stream (default %(default)s)",
    )
    add("--seed", type=int, default=0, help="of lengths and prompts (default %(default)s)")
    add("--serve", default="", metavar="FLAGS",
        help='more flags of geex serve, such as "--slots 16 --policy int8"; with '
        "--prefix-cache-mb prompts are kept, which those that come again gain from")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    args.alone = args.clients if args.alone is None else args.alone
    if min(args.clients, args.requests, args.alone, args.rounds) < 1 or not 0 <= args.cancel <= 1:
        raise GeexError("a number is not positive, or --cancel not a share", "leave them out")
    with tempfile.TemporaryDirectory(prefix="geex-bench-") as folder:
        checkpoint = args.checkpoint or serve_process.random_model(
            pathlib.Path(folder) / args.preset, args.preset
        )
        context = serve_process.context_of(checkpoint)
        if args.prompt[1] + args.tokens[1] > context:
            raise GeexError(
                f"prompts of {args.prompt[1]} and {args.tokens[1]} tokens more do not fit the "
                f"context of {context}", "give smaller --prompt and --tokens",
            )  # fmt: skip
        room = ["--slots", str(args.clients), "--max-waiting", str(max(args.clients, 256))]
        flags = [*room, "--prefix-cache-mb", "0", *args.serve.split()]
        with serve_process.start(checkpoint, flags) as server:
            result = asyncio.run(measure(server, args))
    print(json.dumps(result) if args.json else "\n".join(lines(result)))


def _span(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    try:
        found = int(low), int(high or low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write 16-128") from None
    if not 1 <= found[0] <= found[1]:
        raise argparse.ArgumentTypeError(f"{text!r}: write 16-128")
    return found


@dataclasses.dataclass(frozen=True)
class Ask:
    """One request: ids, tokens to write, and after how many events its client leaves."""

    prompt: list[int]
    tokens: int
    leave: int | None


@dataclasses.dataclass
class Seen:
    """What a client saw: seconds to the first text, gaps between events, tokens, a fault."""

    first: float | None = None
    gaps: list[float] = dataclasses.field(default_factory=list)
    tokens: int = 0
    left: bool = False
    fault: str | None = None


def mix(args: argparse.Namespace) -> list[Ask]:
    """The requests, which the seed decides: --requests, or --alone if that is more."""
    draw = random.Random(args.seed)
    asks = []
    for _ in range(max(args.requests, args.alone)):
        length, tokens = draw.randint(*args.prompt), draw.randint(*args.tokens)
        # Ids of plain pieces; a common beginning would be the prefix cache's work, not the step's.
        prompt = [draw.randrange(10, 200) for _ in range(length)]
        leave = draw.randint(1, max(tokens // 2, 1)) if draw.random() < args.cancel else None
        asks.append(Ask(prompt, tokens, leave))
    return asks


async def measure(server: serve_process.Server, args: argparse.Namespace) -> dict[str, Any]:
    """Runs the phases; returns the figures as `--json` prints them."""
    asks = mix(args)
    whole = [dataclasses.replace(a, leave=None) for a in asks[: args.alone]]
    await crowd(server, whole, args.clients)  # programs, connections, caches
    before = server.memory()
    rounds = [
        (await crowd(server, whole, 1), await crowd(server, whole, len(whole)))
        for _ in range(args.rounds)
    ]
    alone, together = (
        max(r, key=lambda x: x["tokens_per_second"]) for r in zip(*rounds, strict=True)
    )
    many = await crowd(server, asks[: args.requests], args.clients)
    left = await server.leftovers()
    ratio = together["tokens_per_second"] / max(alone["tokens_per_second"], 1e-9)
    return {
        "server": server.about,
        "clients": args.clients,
        "alone": alone,
        "together": together,
        "many": many,
        "ratio": ratio,
        "aim": AIM,
        "memory_before_mb": before,
        "memory_after_mb": server.memory(),
        **left,
    }


async def crowd(server: serve_process.Server, asks: list[Ask], clients: int) -> dict[str, Any]:
    """Runs requests by so many clients, each with one connection, one request after the other."""
    left, seen = iter(asks), []

    async def client() -> None:
        async with serve_process.Connection(server.port) as connection:
            for ask in left:
                seen.append(await one(connection, ask))

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return _figures(seen, time.perf_counter() - began)


async def one(connection: serve_process.Connection, ask: Ask) -> Seen:
    """One request; whatever goes wrong is a fault of the figures, not of the bench."""
    seen, began, last = Seen(), time.perf_counter(), 0.0
    body = {
        "prompt": ask.prompt, "max_tokens": ask.tokens, "temperature": 0, "ignore_eos": True,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    events = 0
    try:
        async for chunk in connection.stream("/v1/completions", body):
            now = time.perf_counter()
            if "error" in chunk:
                seen.fault = chunk["error"]["message"]
            elif chunk.get("usage"):
                seen.tokens = chunk["usage"]["completion_tokens"]
            elif seen.first is None:
                seen.first = now - began
            else:
                seen.gaps.append(now - last)
            last, events = now, events + 1
            if ask.leave is not None and events >= ask.leave:
                seen.left = True
                await connection.drop()
                break
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        seen.fault = f"{type(error).__name__}: {error}"
        await connection.drop()
    if seen.tokens != ask.tokens and not seen.left and not seen.fault:
        seen.fault = f"{seen.tokens} tokens of {ask.tokens}"
    return seen


def _figures(seen: list[Seen], seconds: float) -> dict[str, Any]:
    firsts = sorted(s.first for s in seen if s.first is not None)
    gaps = sorted(gap for s in seen for gap in s.gaps)
    faults = [s.fault for s in seen if s.fault]
    tokens = sum(s.tokens for s in seen)
    return {
        "requests": len(seen),
        "seconds": seconds,
        "requests_per_second": len(seen) / seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "first_ms": [1e3 * _quantile(firsts, q) for q in (0.5, 0.95)],
        "gap_ms": [1e3 * _quantile(gaps, q) for q in (0.5, 0.95)],
        "left": sum(s.left for s in seen),
        "errors": len(faults),
        "first_error": faults[0] if faults else None,
    }


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def lines(result: dict[str, Any]) -> list[str]:
    """The figures for people."""
    head = f"  {'':<20}{'requests/s':>11}{'tokens/s':>10}{'first, ms':>16}{'between, ms':>16}"
    found = [result["server"], head + f"{'errors':>8}{'left':>6}"]
    count = result["alone"]["requests"]
    names = {
        "alone": f"{count}, one at a time",
        "together": f"{count} at once",
        "many": f"load, {result['clients']} clients",
    }
    for key, name in names.items():
        x = result[key]
        first, gap = ("/".join(f"{v:.1f}" for v in x[k]) for k in ("first_ms", "gap_ms"))
        found.append(
            f"  {name:<20}{x['requests_per_second']:>11.1f}{x['tokens_per_second']:>10.1f}"
            f"{first:>16}{gap:>16}{x['errors']:>8}{x['left']:>6}"
        )
    many = result["many"]
    faults = [result[key]["first_error"] for key in names if result[key]["first_error"]]
    found += [
        "  (first, between: p50/p95; left: cancelled by the client)",
        f"  tokens/s at once: {result['ratio']:.2f} times one at a time (aim: "
        f"{result['aim']:.0f} with 16)",
        f"  {many['requests']} requests in {many['seconds']:.1f} s; server memory "
        f"{result['memory_before_mb']:.0f} MB before, {result['memory_after_mb']:.0f} MB after; "
        f"slots still busy: {result['slots_busy']}, queued: {result['queue']}",
    ]
    if faults:
        found.append(f"  first error: {faults[0]}")
    return found
