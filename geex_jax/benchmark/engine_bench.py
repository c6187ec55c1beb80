"""`geex bench engine`: what batching, kept prompts and guesses are worth on this machine.

One engine, the same requests, greedy, all tokens compared:

- requests of mixed lengths one after the other, and all at once: tokens/s, time to first token;
- an editor session, whose prompt grows by a few tokens a request: time to the first token with
  and without kept prompts;
- a prompt that repeats itself: tokens/s with and without guessing from the text so far.

Random weights of a preset's shape, unless a checkpoint is given. Random weights know no text: what
they draw from the third prompt repeats itself sooner or later, which a guess finds; how often
guesses were right is printed, and only a trained model's figure says something about edits.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax import files
from geex_jax.errors import GeexError
from geex_jax.inference import Engine, EngineConfig, Request, SamplingParams, Ticket, prepare
from geex_jax.models import Transformer, preset
from geex_jax.quantize import Policy, formats_of, parse, quantize_params
from geex_jax.tokenizers import Tokenizer
from geex_jax.tokenizers.base import ByteTable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the bench's flags."""
    add = parser.add_argument
    add("--preset", default="geex-125m", metavar="NAME", help="shape (default %(default)s)")
    add("--checkpoint", metavar="DIR", help="a model folder instead of random weights")
    add("--dtype", default="float32", choices=("float32", "bfloat16"), help="of random weights")
    add("--bits", type=int, default=16, choices=(4, 8, 16),
        help="quantizes float weights; 16: not (default %(default)s)")  # fmt: skip
    add("--policy", metavar="P", help="of geex quantize, instead of --bits")
    add("--activations", default="float", choices=("float", "int8"), help="default %(default)s")
    add("--kv-cache", default="model", choices=("model", "int8"), help="default %(default)s")
    add("--requests", type=int, default=16, metavar="N", help="default %(default)s")
    add("--new-tokens", type=int, default=64, metavar="N",
        help="most of a request; the shortest draws half of them (default %(default)s)",
        )  # fmt: skip
    add("--prompt", type=int, default=192, metavar="N",
        help="tokens of the longest prompt (default %(default)s)")  # fmt: skip
    add("--session", type=int, default=640, metavar="N",
        help="tokens of the editor's first prompt (default %(default)s)")  # fmt: skip
    add("--speculate", type=int, default=4, metavar="N", help="guessed tokens; 0 leaves it out")
    add("--rounds", type=int, default=2, help="in turns, the best counts (default %(default)s)")
    add("--output", metavar="FILE", help="writes all figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Measures and prints; 1 if tokens differ."""
    if min(args.requests, args.new_tokens, args.prompt, args.rounds) < 1 or args.session < 64:
        raise GeexError("a size below 1, or a session below 64", "give larger ones")
    bench = Bench(args)
    result: dict[str, Any] = {
        "model": bench.name, "dtype": bench.model.config.dtype, "form": bench.form,
        "device": str(jax.devices()[0]), "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg(),
    }  # fmt: skip
    result["batching"] = bench.batching()
    result["session"] = bench.session()
    if args.speculate:
        result["guessing"] = bench.guessing()
    result["load_after"] = os.getloadavg()
    print(report(result))
    if args.output:
        files.write_json(args.output, result)
    parts = (result["batching"], result["session"], result.get("guessing", {"same": True}))
    return 0 if all(part["same"] for part in parts) else 1


class Ids(ByteTable):
    """A tokenizer for random weights: an id's text is its number."""

    kind = "ids"

    def __init__(self, size: int):
        self.vocab_size, self.eos_id, self.pad_id = size, 0, 0
        self._pieces = [f"{i} ".encode() for i in range(size)]
        self._control = frozenset({0})

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Returns the numbers in a text."""
        del allow_special
        return [int(word) for word in text.split()]

    def encode_batch(
        self, texts: Sequence[str], *, allow_special: bool = False, num_workers: int | None = None
    ) -> list[list[int]]:
        """Returns the numbers in each text."""
        del allow_special, num_workers
        return [self.encode(text) for text in texts]

    def fingerprint(self) -> str:
        """Returns 16 hex digits of the size."""
        return f"{self.vocab_size:016x}"

    def save(self, folder: files.Path) -> None:
        """Raises GeexError: there is nothing to keep."""
        raise GeexError(f"a stand-in tokenizer for {folder}", "save the model with its own")


class Bench:
    """The model and the three measurements."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        policy, changes = _form(args)
        self.tokenizer: Tokenizer
        if args.checkpoint:
            from geex_jax import checkpoints

            form = checkpoints.Form(policy, changes=changes)
            form.check(args.checkpoint)
            loaded = form.open(args.checkpoint)
            if loaded.tokenizer is None:
                raise GeexError(f"{args.checkpoint} has no tokenizer", "save the model with one")
            self.model, self.params, self.tokenizer = loaded.model, loaded.params, loaded.tokenizer
        else:
            config = preset(args.preset, dtype=args.dtype, param_dtype=args.dtype, **changes)
            self.model = Transformer(config)
            tokens = jnp.zeros((1, 1), jnp.int32)
            self.params = jax.jit(self.model.init)(jax.random.key(0), tokens)["params"]
            if policy is not None:
                self.params = quantize_params(self.params, policy, consume=True)
            self.tokenizer = Ids(config.vocab_size)
        # Laid out here, once for all engines below.
        self.model, self.params = prepare(self.model, self.params, consume=True)
        stored = sorted({*formats_of(self.params).values()} - {"float"})
        about = [f"{' and '.join(stored) or 'float'} weights"]
        self.form = ", ".join([*about, *(f"{name} {value}" for name, value in changes.items())])
        self.name = self.model.config.name
        room = self.model.config.context_length
        longest = max(args.prompt + args.new_tokens, args.session + 64)
        if longest > room:
            raise GeexError(f"{longest} tokens in a context of {room}", "make prompts shorter")
        self.random = np.random.default_rng(0)

    def prompt(self, length: int) -> tuple[int, ...]:
        """Random ids."""
        return tuple(self.random.integers(1, self.tokenizer.vocab_size, length).tolist())

    def engine(self, slots: int, tokens: int, **settings: Any) -> Engine:
        """A warm engine with rows for `tokens` that is running."""
        context = min(self.model.config.context_length, -(-tokens // 128) * 128)
        settings = {"prefix_cache_bytes": 0} | settings
        config = EngineConfig(slots=slots, context=context, windows=(context,), **settings)
        engine = Engine(self.model, self.params, self.tokenizer, config)
        engine.warm()
        engine.start()
        return engine

    def batching(self) -> dict[str, Any]:
        """One after the other against all at once."""
        args, count = self.args, self.args.requests
        spread = np.linspace(0, 1, count)
        order = np.random.default_rng(1).permutation(count)
        requests = [
            Request(
                self.prompt(max(1, int(args.prompt * (0.1 + 0.9 * spread[i])))),
                _greedy(max(1, int(args.new_tokens * (0.5 + 0.5 * spread[j])))),
            )
            for i, j in enumerate(order)
        ]
        engine = self.engine(count, args.prompt + args.new_tokens)
        rounds: dict[str, list[tuple[float, list[Ticket]]]] = {"single": [], "batched": []}
        for _ in range(args.rounds):
            rounds["single"].append(_in_turn(engine, requests))
            rounds["batched"].append(_at_once(engine, requests))
        engine.stop()
        tokens = {n: [_tokens(t) for t in r[0][1]] for n, r in rounds.items()}
        total = sum(map(len, tokens["single"]))
        speed = {name: total / min(s for s, _ in r) for name, r in rounds.items()}
        best = min(rounds["batched"], key=lambda r: r[0])[1]
        waits = sorted(t.first_token - t.submitted for t in best if t.first_token is not None)
        equal = sum(a == b for a, b in zip(tokens["single"], tokens["batched"], strict=True))
        return {
            "requests": count, "tokens": total, "same": equal == count, "equal": equal,
            "single": speed["single"], "batched": speed["batched"],
            "ratio": speed["batched"] / speed["single"],
            "first_p50": float(np.percentile(waits, 50)),
            "first_p95": float(np.percentile(waits, 95)),
        }  # fmt: skip

    def session(self) -> dict[str, Any]:
        """An editor's prompts, each a few tokens longer than the one before."""
        whole = self.prompt(self.args.session + 60)
        prompts = [whole[: self.args.session + 5 * i] for i in range(12)]
        kept = self.engine(1, self.args.session + 64, prefix_cache_bytes=1 << 28)
        plain = self.engine(1, self.args.session + 64)
        seconds: dict[str, list[float]] = {"kept": [], "plain": []}
        same = True
        for i, prompt in enumerate(prompts):
            tokens = []
            for name, engine in (("kept", kept), ("plain", plain)):
                took, tickets = _in_turn(engine, [Request(prompt, _greedy(1))])
                tokens.append(_tokens(tickets[0]))
                if i:  # the first prompt is new to both
                    seconds[name].append(took)
            same &= tokens[0] == tokens[1]
        saved = kept.stats()["prefix_tokens_saved"]
        kept.stop()
        plain.stop()
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        return {
            "prompt": len(prompts[0]), "same": same, "tokens_saved": saved,
            **medians, "ratio": medians["plain"] / medians["kept"],
        }  # fmt: skip

    def guessing(self) -> dict[str, Any]:
        """A prompt of parts that come again, with and without guesses."""
        part = self.prompt(40)
        prompt = (*part, *self.prompt(4), *part, *part[:20])
        request = Request(prompt, _greedy(min(200, self.args.session + 64 - len(prompt))))
        plain = self.engine(1, self.args.session + 64)
        guess = self.engine(1, self.args.session + 64, speculate=self.args.speculate)
        best = {"plain": 1e9, "guessed": 1e9}
        found = {}
        for _ in range(self.args.rounds):
            for name, engine in (("plain", plain), ("guessed", guess)):
                took, tickets = _in_turn(engine, [request])
                best[name] = min(best[name], took)
                found[name] = _tokens(tickets[0])
        stats = guess.stats()
        plain.stop()
        guess.stop()
        count = len(found["plain"])
        return {
            "guesses": self.args.speculate, "tokens": count,
            "same": found["plain"] == found["guessed"],
            "plain": count / best["plain"], "guessed": count / best["guessed"],
            "ratio": best["plain"] / best["guessed"],
            "accepted": stats["draft_accepted"] / max(1, stats["draft_proposed"]),
            "passes": stats["decode_steps"] / max(1, stats["drawn_tokens"]),
        }  # fmt: skip


def _form(args: argparse.Namespace) -> tuple[Policy | None, dict[str, str]]:
    """The policy, and what changes in the model's config."""
    if args.policy is not None and args.bits < 16:
        raise GeexError("--policy and --bits together", "give one of them")
    policy = parse(args.policy or args.bits) if args.policy or args.bits < 16 else None
    if args.activations == "int8" and policy is None and not args.checkpoint:
        raise GeexError("int8 activations with float weights", "add --policy int8, say")
    usual = {"activations": "float", "kv_cache": "model"}
    changes = {name: getattr(args, name) for name in usual}
    return policy, {name: value for name, value in changes.items() if value != usual[name]}


def _greedy(count: int) -> SamplingParams:
    return SamplingParams(max_new_tokens=count, ignore_eos=True)


def _tokens(ticket: Ticket) -> list[int]:
    return ticket.result()[0].tokens


def _in_turn(engine: Engine, requests: Sequence[Request]) -> tuple[float, list[Ticket]]:
    began, tickets = time.perf_counter(), []
    for request in requests:
        tickets.append(engine.submit(request))
        tickets[-1].result()
    return time.perf_counter() - began, tickets


def _at_once(engine: Engine, requests: Sequence[Request]) -> tuple[float, list[Ticket]]:
    began = time.perf_counter()
    tickets = [engine.submit(request) for request in requests]
    for ticket in tickets:
        ticket.result()
    return time.perf_counter() - began, tickets


def report(result: dict[str, Any]) -> str:
    """The figures as text for people."""
    batch, edit = result["batching"], result["session"]
    lines = [
        f"{result['model']}, {result['dtype']}, {result['form']}, on {result['device']} "
        f"({result['cores']} cores, load {result['load_before'][0]:.1f} before)",
        f"{batch['requests']} requests of mixed lengths, {batch['tokens']} tokens: "
        f"{batch['single']:.1f} tokens/s one at a time, {batch['batched']:.1f} batched: "
        f"{batch['ratio']:.2f}x; {batch['equal']} of {batch['requests']} with the same tokens",
        f"time to first token, all submitted at once: p50 {batch['first_p50'] * 1e3:.0f} ms, "
        f"p95 {batch['first_p95'] * 1e3:.0f} ms",
        f"editor session from {edit['prompt']} tokens, 5 more a request: first token after "
        f"{edit['plain'] * 1e3:.0f} ms, with kept prompts {edit['kept'] * 1e3:.0f} ms: "
        f"{edit['ratio']:.2f}x ({_same(edit)})",
    ]
    if "guessing" in result:
        guess = result["guessing"]
        lines.append(
            f"guessing {guess['guesses']} tokens: {guess['plain']:.1f} to {guess['guessed']:.1f} "
            f"tokens/s: {guess['ratio']:.2f}x; {guess['accepted']:.0%} right, "
            f"{guess['passes']:.2f} passes a token ({_same(guess)})"
        )
    return "\n".join(lines)


def _same(part: dict[str, Any]) -> str:
    return "the same tokens" if part["same"] else "TOKENS DIFFER"
