"""`geex train`: an experiment config in, a workdir of checkpoints and metrics out."""

from __future__ import annotations

import argparse

from geex_jax.errors import GeexError

EXAMPLE = (
    "geex train --config=experiments/geex_20m.py --workdir=runs/a --config.data.folder=data "
    "--config.optimizer.lr=3e-4"
)
TAKES_EXTRA = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags; `--config.KEY=VALUE` overrides are taken as extra words."""
    parser.add_argument(
        "--config", metavar="FILE", help="experiment file; without it they are listed"
    )
    parser.add_argument(
        "--workdir", metavar="DIR", help="where the run lives; resumes if it exists"
    )
    parser.add_argument("--show-config", action="store_true", help="print the config and stop")


def run(args: argparse.Namespace) -> int:
    """Trains; returns 0 also when Ctrl-C or SIGTERM ended the run after a save."""
    from geex_jax.training import config as configs

    unknown = [word for word in args.extra if word.startswith("-") and "--config." not in word]
    if unknown:
        from geex_jax.errors import did_you_mean

        flags = ["--config", "--config.KEY=VALUE", "--workdir", "--show-config", "--debug"]
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

    train(config, args.workdir, sample=sample, functional=_functional(config, args.workdir))
    return 0


def _functional(config, workdir):
    """What judges the checkpoints, on the first process alone; None if it is not asked for."""
    import jax

    asked = config.evaluate.functional
    if not asked.languages or jax.process_index() != 0:
        return None
    from geex_jax.benchmark.while_training import Functional

    return Functional(workdir, asked.data, asked.languages, asked.samples, asked.temperature,
                      asked.max_tokens)  # fmt: skip
