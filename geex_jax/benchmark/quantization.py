"""Every format of one model measured in one run: held-out bits per byte, KL, pass@1, parts alone.

The float model is the peer of all: each row is measured against it on the same tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax import checkpoints
from geex_jax.checkpoints import Loaded
from geex_jax.data import eval_batches, load_manifest
from geex_jax.data.batches import Batch
from geex_jax.errors import GeexError
from geex_jax.models import Transformer
from geex_jax.quantize import (
    Comparison,
    check_policy,
    compare,
    dequantize_params,
    formats_of,
    parse,
    quantize_params,
    size_in_bytes,
)
from geex_jax.quantize.calibrate import calibrate_params
from geex_jax.quantize.weights import Params
from geex_jax.training.evaluate import ByteCounter

FORMATS = ("int8", "int8+embedding", "mixed", "int4-g32", "int4-g64", "int4-g128", "int4")
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a report compares.

    Attributes:
      policies: see `quantize.policy.parse`.
      calibration: rows to calibrate int4 policies on as well (GPTQ), or None.
      activations: int8 weights with int8 activations too (W8A8).
      kv_cache: an int8 cache too, with float weights.
      sensitivity: the policy of which each part is tried alone.
      embedded: a folder of held-out tasks (`geex embedded`) to judge every format by, or None.
      languages: of the tasks; empty for all that can be run here.
    """

    policies: tuple[str, ...] = FORMATS
    calibration: Sequence[Batch] | None = None
    activations: bool = False
    kv_cache: bool = False
    sensitivity: str = "int4"
    embedded: pathlib.Path | None = None
    languages: tuple[str, ...] = ()


class Validation:
    """The held-out batches of prepared data that fit a checkpoint, ready to be compared on.

    Raises:
      GeexError: no tokenizer, data of another one, or rows longer than the context.
    """

    def __init__(self, loaded: Loaded, folder: str, batches: int, batch_size: int):
        manifest = load_manifest(folder)
        if loaded.tokenizer is None:
            raise GeexError("the checkpoint has no tokenizer", "measure without --data")
        if loaded.tokenizer.fingerprint() != manifest.tokenizer.fingerprint:
            raise GeexError(
                f"{folder} was made with another tokenizer than the checkpoint",
                "prepare the data with the checkpoint's tokenizer",
            )
        if manifest.seq_len > loaded.config.context_length:
            raise GeexError(
                f"{folder} has rows of {manifest.seq_len} tokens, the model a context of "
                f"{loaded.config.context_length}",
                "prepare the data with a smaller --seq-len",
            )
        self.counter = ByteCounter.of(loaded.tokenizer, manifest, loaded.config.vocab_size)
        self.arguments = (folder, "validation", batch_size)
        self.limit = batches

    def __iter__(self) -> Iterator[Batch]:
        found = eval_batches(*self.arguments, max_batches_per_language=self.limit)
        return (self.counter.without_tags(batch) for batch in found)

    def compare(
        self,
        model: Transformer,
        before: Params,
        after: Params,
        other: Transformer | None = None,
        cached: bool = False,
    ) -> Comparison:
        """See `quantize.compare`."""
        sizes = self.counter.token_bytes
        return compare(model, before, after, iter(self), sizes, other, cached)


def measure(
    checkpoint: str, loaded: Loaded, validation: Validation, wanted: Wanted, say: Say = print
) -> dict[str, Any]:
    """Measures all that is wanted; returns the report's dict (see `quantize.compared`).

    Args:
      checkpoint: its path, for the report.
      loaded: the float model.
      validation: held-out rows.
      wanted: what to compare.
      say: is told what is done.

    Raises:
      GeexError: a policy that does not fit the model, before anything is measured; tasks that
        cannot be judged.
    """
    for policy in (*wanted.policies, wanted.sensitivity):
        check_policy(loaded.params, policy)
    model, params = loaded.model, loaded.params
    judge = Judge(loaded, wanted) if wanted.embedded else None
    rows: list[dict[str, Any]] = []

    def add(name: str, kind: str, tree: Params, other: Transformer | None = None,
            cached: bool = False) -> None:  # fmt: skip
        found = validation.compare(model, params, tree, other, cached)
        row = _row(name, found) | {"kind": kind, "formats": formats_of(tree)}
        row |= {"bytes": size_in_bytes(tree), "ratio": size_in_bytes(tree) / size_in_bytes(params)}
        if judge:
            row["pass_at_1"] = judge(other or model, tree, name)
        rows.append(row)
        say(f"{name}: KL {found.kl:.3g} nats, {found.bits_per_byte_change:+.5f} bits per byte")

    for policy in wanted.policies:
        tree = quantize_params(params, policy)
        add(policy, "plain", tree)
        narrow = any(name.startswith("int4") for name in formats_of(tree).values())
        if wanted.activations and not narrow:
            add(f"{policy}, W8A8", "activations", tree, _with(model, activations="int8"))
        if wanted.calibration is not None and narrow:
            tree = calibrate_params(model, params, policy, wanted.calibration)
            add(f"{policy}, GPTQ", "calibrated", tree)
    if wanted.kv_cache:
        add("float, int8 cache", "activations", params, _with(model, kv_cache="int8"), cached=True)
    base = validation.compare(model, params, params)
    before = {
        "bytes": size_in_bytes(params),
        "bits_per_byte": base.bits_per_byte_before,
        "tokens": base.tokens,
        "text_bytes": base.text_bytes,
        "pass_at_1": judge(model, params, "float") if judge else None,
    }
    layers, linears = _sensitivity(model, params, validation, wanted.sensitivity)
    return {
        "checkpoint": checkpoint,
        "data": validation.arguments[0],
        "float": before,
        "rows": rows,
        "sensitivity": wanted.sensitivity,
        "layers": layers,
        "linears": linears,
        "notes": _notes(wanted),
    }


def _row(name: str, found: Comparison) -> dict[str, Any]:
    return {
        "name": name,
        "bits_per_byte": found.bits_per_byte_after,
        "bits_per_byte_change": found.bits_per_byte_change,
        "kl": found.kl,
        "top1_agreement": found.top1_agreement,
    }


def _notes(wanted: Wanted) -> list[str]:
    notes = []
    if wanted.calibration is not None:
        count = sum(int((np.asarray(b["segment_ids"]) > 0).sum()) for b in wanted.calibration)
        notes.append(f"GPTQ: calibrated on {count:,} tokens that are not among the held-out ones.")
    if wanted.activations:
        notes.append("W8A8: activations of quantized weights in int8 too, a scale for each token.")
    if wanted.kv_cache:
        notes.append(
            "int8 cache: keys and values in int8, a scale for each token and head; each row is "
            "one text there, so that its bits per byte are not the other rows'."
        )
    return notes


def _with(model: Transformer, **changes: Any) -> Transformer:
    return Transformer(model.config.replace(**changes))


def _sensitivity(
    model: Transformer, params: Params, validation: Validation, policy: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What one layer alone, and one kind of weight alone, in the policy's formats would cost."""
    rounded = dequantize_params(quantize_params(params, parse(policy)))
    top = ["top query layer"] * ("top_query" in params)
    count = model.config.num_layers
    layers = []
    for number, name in enumerate([*(f"layer {i}" for i in range(count)), *top]):
        mixed = dict(params)
        if number < count:
            mixed["layers"] = jax.tree.map(
                lambda a, b, i=number: a.at[i].set(b[i].astype(a.dtype)),
                params["layers"], rounded["layers"],
            )  # fmt: skip
        else:
            mixed["top_query"] = rounded["top_query"]
        layers.append(_row(name, validation.compare(model, params, mixed)))
    linears = []
    changed = {path for path, name in formats_of(quantize_params(params, policy)).items()
               if name != "float"}  # fmt: skip
    for kind in dict.fromkeys(path.rpartition("/")[2] for path in changed):
        mixed = _only(params, rounded, kind)
        linears.append(_row(kind, validation.compare(model, params, mixed)))
    return layers, sorted(linears, key=lambda row: -row["kl"])


def _only(params: Params, rounded: Params, kind: str) -> Params:
    """The float tree with the rounded weights of one kind, such as "down"."""
    from geex_jax.parallel import by_path, tree_of

    other = by_path(rounded)

    def pick(path: str, leaf: Any) -> Any:
        mine = f"/{kind}/" in f"/{path}" or path.endswith(f"/{kind}")
        return jnp.asarray(other[path], leaf.dtype) if mine else leaf

    return tree_of({path: pick(path, leaf) for path, leaf in by_path(params).items()})


class Judge:
    """pass@1 of a tree on the held-out tasks: greedy answers, run in the sandbox.

    Raises:
      GeexError: the folder holds no tasks of a language that can be run here.
    """

    def __init__(self, loaded: Loaded, wanted: Wanted):
        from geex_jax.benchmark import languages

        assert wanted.embedded is not None
        self.loaded, self.data = loaded, wanted.embedded
        here = [x for x in languages.LANGUAGES if not languages.get(x).toolchain().missing]
        held = [x for x in here if list(self.data.glob(f"*{x}*"))]
        self.names = list(wanted.languages) or held
        if not self.names:
            raise GeexError(
                f"{self.data} holds no tasks that can be run here", "geex embedded, geex doctor"
            )

    def __call__(self, model: Transformer, params: Params, name: str) -> dict[str, float]:
        """`value`, `low` and `high` (95 %) of pass@1, the mean over the languages."""
        from geex_jax.benchmark.humaneval_x import command

        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        with tempfile.TemporaryDirectory(prefix="geex-quantize-") as folder:
            saved, output = pathlib.Path(folder) / "model", pathlib.Path(folder) / "judged"
            checkpoints.save_model(saved, model.config, params, self.loaded.tokenizer)
            words = ["--checkpoint", saved, "--data", self.data, "--language",
                     ",".join(self.names), "--n", 1, "--temperature", 0, "--max-tokens", 128,
                     "--sample-batch", 50, "--output", output]  # fmt: skip
            with contextlib.redirect_stdout(io.StringIO()):
                failed = command.run(parser.parse_args([str(word) for word in words]))
            if failed or not (output / "summary.json").is_file():
                raise GeexError(f"{name}: the tasks were not judged", "geex doctor says why")
            summary = json.loads((output / "summary.json").read_text())
        scores = [one["pass_at_k"]["1"] for one in summary["generation"]]
        found = summary["average"].get("1") or scores[0]
        return {key: float(found[key]) for key in ("value", "low", "high")}
