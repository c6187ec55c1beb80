"""`geex build-kernels`: the optional C++ kernels for int8 and int4 models on this CPU."""

from __future__ import annotations

import argparse

EXAMPLE = "geex build-kernels"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    parser.add_argument("--compiler", help="a C++ compiler (default $CXX, g++ or clang++)")


def run(args: argparse.Namespace) -> None:
    """Builds and tests them; prints where they are."""
    from geex_jax.kernels import cpu_native

    path = cpu_native.build(args.compiler)
    print(f"built for this CPU and in use from now on: {path}")
    print("GEEX_KERNELS=off goes without them; the results are the same but for float32 rounding")
