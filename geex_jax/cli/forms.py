"""The flags that say in which form a model runs: shared by the verbs that run one."""

from __future__ import annotations

import argparse
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --policy, --bits, --rounding, --dtype, --activations and --kv-cache."""
    add = parser.add_argument
    add("--policy", metavar="P",
        help="quantize float weights while loading: a policy of geex quantize, such as int8, "
        "int4-g64, mixed, int8+embedding, or rules PATTERN=FORMAT,...")  # fmt: skip
    add("--bits", type=int, choices=(8, 4), help="as --policy int8 or int4")
    add("--rounding", choices=("clean", "official"),
        help="of --policy, see geex quantize (default clean)")  # fmt: skip
    add("--dtype", choices=("bfloat16", "float32"), help="compute in (default: the checkpoint's)")
    add("--kv-cache", choices=("model", "int8"), help="type of kept keys and values")
    add(
        "--activations",
        choices=("float", "int8"),
        help="int8: quantized weights meet activations rounded to int8, token by token (W8A8)",
    )


def form_of(args: argparse.Namespace, compared: Any = None) -> Any:
    """The `checkpoints.Form` that the flags ask for.

    Args:
      args: parsed flags of `add_arguments`.
      compared: another policy that --rounding may belong to.

    Raises:
      GeexError: a policy that there is not, flags that exclude each other.
    """
    from geex_jax.checkpoints import Form

    policy = policy_of(args.policy, args.bits, "")
    return Form(policy, rounding_of(args, policy or compared), changes_of(args))


def policy_of(policy: str | None, bits: int | None, kind: str) -> Any:
    """The policy of --policy or --bits; None if neither was given.

    Args:
      policy, bits: what was given. kind: "compare-" of --compare-policy and --compare-bits.
    """
    from geex_jax.errors import GeexError
    from geex_jax.quantize import parse

    if policy is not None and bits is not None:
        raise GeexError(f"--{kind}policy and --{kind}bits together", "give one of them")
    wanted = policy if bits is None else bits
    return None if wanted is None else parse(wanted)


def rounding_of(args: argparse.Namespace, policy: Any) -> Any:
    """The rounding, which needs a policy."""
    from geex_jax.errors import GeexError

    if args.rounding is not None and policy is None:
        raise GeexError("--rounding without --policy", "add --policy int8, say")
    return args.rounding or "clean"


def changes_of(args: argparse.Namespace) -> dict[str, str]:
    """Fields of the config to change."""
    names = ("dtype", "kv_cache", "activations")
    return {name: value for name in names if (value := getattr(args, name)) is not None}
