"""On a worker: starts JAX with all others and counts the devices. Exit status 1: not as many."""

import argparse
import socket
import sys

import jax


def main() -> int:
    """Prints one line; the processes of a slice find each other by the machine's metadata."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, required=True, help="of all slices together")
    parser.add_argument("--timeout", type=int, default=300, help="seconds for all to arrive")
    parser.add_argument("--alone", action="store_true", help="no other processes: for tests")
    args = parser.parse_args()
    if not args.alone:
        jax.distributed.initialize(initialization_timeout=args.timeout)
    found = jax.device_count()
    print(
        f"{socket.gethostname()}: process {jax.process_index()} of {jax.process_count()}, "
        f"{jax.local_device_count()} of {found} devices ({jax.devices()[0].device_kind}), "
        f"jax {jax.__version__}",
        flush=True,
    )
    if found != args.devices:
        print(f"expected {args.devices} devices", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
