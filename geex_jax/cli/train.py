"""`geex train`: an experiment config in, a workdir of checkpoints and metrics out."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

from geex_jax.errors import GeexError

EXAMPLE = (
    "geex train --config=experiments/geex_20m.py --workdir=runs/a --config.data.folder=data "
    "--config.optimizer.lr=3e-4"
)
TAKES_EXTRA = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags; `--config.KEY=VALUE` overrides are taken as extra words."""
    # fmt: off
    parser.add_argument(
        "--config", metavar="FILE", help="experiment file; without it they are listed"
    )
    parser.add_argument(
        "--workdir", metavar="DIR", help="where the run lives; resumes if it exists"
    )
    parser.add_argument("--show-config", action="store_true", help="print the config and stop")
    parser.add_argument(
        "--profile_steps", "--profile-steps", metavar="FIRST:LAST",
        help="write an xprof trace of these steps to WORKDIR/profile",
    )
    parser.add_argument(
        "--debug-nans-layerwise", action="store_true",
        help="run a step that is not finite again and name the first layer that was not",
    )
    several = parser.add_argument_group(
        "several processes", "the same command on each host, with another --process"
    )
    several.add_argument(
        "--coordinator", metavar="HOST:PORT",
        help="address of process 0, or auto on TPU slices, SLURM, Kubernetes ($GEEX_COORDINATOR)",
    )
    several.add_argument("--processes", type=int, metavar="N", help="how many ($GEEX_PROCESSES)")
    several.add_argument(
        "--process", type=int, metavar="I", help="which one this is, from 0 ($GEEX_PROCESS)"
    )
    several.add_argument(
        "--start-timeout", type=float, metavar="SECONDS",
        help="for all to come (300, or $GEEX_START_TIMEOUT)",
    )
    # fmt: on


def run(args: argparse.Namespace) -> int:
    """Trains; returns 0 also when Ctrl-C or SIGTERM ended the run after a save.

    With several processes a mistake that one of them meets ends it at once (status 2, or 1).
    """
    from geex_jax.training import config as configs

    unknown = [word for word in args.extra if word.startswith("-") and "--config." not in word]
    if unknown:
        from geex_jax.errors import did_you_mean

        flags = [
            "--config", "--config.KEY=VALUE", "--workdir", "--show-config", "--debug",
            "--profile_steps", "--debug-nans-layerwise", "--coordinator", "--processes",
            "--process", "--start-timeout",
        ]  # fmt: skip
        raise GeexError(f"unknown flag {unknown[0]}", did_you_mean(unknown[0].split("=")[0], flags))
    if not args.config:
        print("experiments (run one with: geex train --config=FILE --workdir=DIR):")
        for path in configs.list_experiments():
            print(f"  {path}: {configs.summary(path)}")
        return 0
    config = configs.load_config(args.config, args.extra)
    if args.show_config:
        print(config)
        return 0
    if not args.workdir:
        raise GeexError("no --workdir given", "name a folder for checkpoints and metrics")

    from geex_jax.training.profiling import parse_steps

    profile = parse_steps(args.profile_steps) if args.profile_steps else None
    with _together(args):
        _train(config, args, profile)
    return 0


@contextlib.contextmanager
def _together(args: argparse.Namespace) -> Iterator[None]:
    """Joins the other processes; an error leaves them at once, without waiting for them."""
    from geex_jax.parallel import startup

    text = os.environ.get("GEEX_START_TIMEOUT", "")
    try:
        timeout = args.start_timeout or float(text or startup.TIMEOUT)
    except ValueError:
        raise GeexError(f"$GEEX_START_TIMEOUT={text} is not a number", "give seconds") from None
    if not startup.initialize(args.coordinator, args.processes, args.process, timeout):
        yield
        return
    try:
        yield
    except GeexError as error:
        print(f"geex: error: {error}", file=sys.stderr)
        startup.leave(2)
    except KeyboardInterrupt:
        print("geex: interrupted", file=sys.stderr)
        startup.leave(130)
    except BaseException:
        traceback.print_exc()
        print(
            "geex: this process ends; if another one has ended first, its output says why",
            file=sys.stderr,
        )
        startup.leave(1)


def _train(config, args, profile):
    from geex_jax.inference import generate_text
    from geex_jax.training.loop import train

    def sample(model, params, tokenizer, prompts, tongues, max_new_tokens):
        return [
            generate_text(
                model, params, tokenizer, prompt, language=tongue or None,
                max_new_tokens=max_new_tokens,
            )
            for prompt, tongue in zip(prompts, tongues, strict=True)
        ]  # fmt: skip

    train(
        config,
        args.workdir,
        sample=sample,
        functional=_functional(config, args.workdir),
        profile_steps=profile,
        debug_nans=args.debug_nans_layerwise,
    )


def _functional(config, workdir):
    """What judges the checkpoints, on the first process alone; None if it is not asked for."""
    import jax

    asked = config.evaluate.functional
    if not asked.languages or jax.process_index() != 0:
        return None
    from geex_jax.benchmark.while_training import Functional

    return Functional(workdir, asked.data, asked.languages, asked.samples, asked.temperature,
                      asked.max_tokens)  # fmt: skip
