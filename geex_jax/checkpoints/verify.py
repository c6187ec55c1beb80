"""Our forward pass against PyTorch's on the same tokens: how far apart, and from which layer on."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax import files
from geex_jax.checkpoints.peers import PeerOutput, PeerShape, peer_shape, run_peer, state_names
from geex_jax.checkpoints.store import Loaded
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer
from geex_jax.quantize import quantization_of

# Largest |dlogit| that float32 arithmetic may cost a converted model.
TOLERANCE = 3e-4
# Relative difference from which states have parted. Measured on tiny models of ten families, and
# on 40 random layers: rounding (ours against PyTorch, float32 against float64) stays below
# 1.7e-5; the smallest mistake known (erf for tanh gelu) makes 3.9e-4 in its layer, an eps 1.5e-3.
APART = 1e-4


@dataclasses.dataclass(frozen=True)
class Difference:
    """One hidden state, ours against the peer's: max |d|, and that over the peer's RMS."""

    name: str
    max_abs: float
    relative: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What two outputs on the same tokens differ in; padding is left out.

    Attributes:
      positions: how many positions were compared.
      max_abs_logit, mean_abs_logit: of the difference of logits.
      rms_logit: of the peer's logits, to see the differences in proportion.
      kl_mean, kl_max: KL(peer || ours) of the next token in nats, over positions.
      top1_agreement: share of positions where both find the same token most likely.
      states: hidden states in the order in which they arise, then the logits.
    """

    positions: int
    max_abs_logit: float
    mean_abs_logit: float
    rms_logit: float
    kl_mean: float
    kl_max: float
    top1_agreement: float
    states: list[Difference]

    def first_apart(self, threshold: float) -> str | None:
        """The first state whose relative difference is above `threshold`, or not a number."""
        return next((s.name for s in self.states if not s.relative <= threshold), None)

    def widest(self) -> Difference:
        """The state whose relative difference is the largest, or not a number."""
        return max(self.states, key=lambda s: (math.isnan(s.relative), s.relative))


@dataclasses.dataclass(frozen=True)
class Report:
    """A comparison and what was made of it.

    Attributes:
      against: the peer's path.
      kind: its family, a model_type or "codegeex".
      weights: how ours are stored: "float32", "bfloat16", "int8 (clean)", ...
      rows: sequences that were run.
      tolerance: largest |dlogit| allowed; None: none was asked for (quantized weights).
      threshold: relative difference of hidden states from which they count as parted; None: not
        judged (quantized weights part from layer 0 on).
      comparison: the figures.
      first_apart: the first state above the threshold, None if none is.
      passed: whether the logits are within the tolerance; None if there is no tolerance.
      verdict: the outcome in one line.
    """

    against: str
    kind: str
    weights: str
    rows: int
    tolerance: float | None
    threshold: float | None
    comparison: Comparison
    first_apart: str | None
    passed: bool | None
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as a JSON-able dict; what is not a finite number becomes None."""

        def clean(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: clean(v) for k, v in value.items()}
            if isinstance(value, list):
                return [clean(v) for v in value]
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return clean(dataclasses.asdict(self))


def verify(
    loaded: Loaded,
    against: files.Path,
    tokens: np.ndarray | Sequence[Sequence[int]],
    *,
    tolerance: float | None = None,
    threshold: float | None = None,
    num_heads: int | None = None,
    batch_size: int | None = None,
    release: bool = False,
) -> Report:
    """Runs a checkpoint here and its original with PyTorch, both in float32, and compares them.

    Args:
      loaded: the model, float or quantized.
      against: a Hugging Face folder or the official CodeGeeX checkpoint (see `peers.run_peer`).
      tokens: int [B, T], or rows of different lengths.
      tolerance: largest |dlogit| allowed; by default 3e-4 for float weights and none for
        quantized ones, whose rounding is meant to differ from the original.
      threshold: relative difference, max |d| / RMS, from which a hidden state counts as parted;
        by default 1e-4 for float weights and none for quantized ones.
      num_heads: of a CodeGeeX file, which does not tell it.
      batch_size: rows at a time, here and there; by default all.
      release: drops the parameters from `loaded` once they are used, so that the two models are
        never in memory together; `loaded` is unusable afterwards.

    Raises:
      GeexError: the two are of different sizes, tokens do not fit, or the peer cannot be run.
    """
    padded, mask = pad_rows(tokens)
    shape = peer_shape(against, num_heads)
    _check_sizes(loaded.config, shape, padded)
    quantization = quantization_of(loaded.params)
    if quantization is None:
        weights = str(max(jax.tree.leaves(loaded.params), key=lambda x: x.size).dtype)
    else:
        weights = f"int{quantization.bits} ({quantization.rounding})"
    if quantization is None:
        tolerance = TOLERANCE if tolerance is None else tolerance
        threshold = APART if threshold is None else threshold
    ours = run_ours(loaded, padded, batch_size)
    if release:
        loaded.params.clear()
    theirs = run_peer(against, padded, num_heads=num_heads, batch_size=batch_size)
    theirs = dataclasses.replace(theirs, logits=theirs.logits[..., : loaded.config.vocab_size])
    comparison = compare(ours, theirs, mask)
    passed = None if tolerance is None else comparison.max_abs_logit <= tolerance
    return Report(
        against=str(against),
        kind=shape.kind,
        weights=weights,
        rows=len(padded),
        tolerance=tolerance,
        threshold=threshold,
        comparison=comparison,
        first_apart=None if threshold is None else comparison.first_apart(threshold),
        passed=passed,
        verdict=_verdict(comparison, weights, tolerance, threshold),
    )


def pad_rows(tokens: np.ndarray | Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows as int32 [B, T], padded on the right, and bool [B, T], True where a token is.

    Padding on the right changes nothing before it: every model here is causal.

    Raises:
      GeexError: no rows, or an empty one.
    """
    rows = [np.asarray(row, np.int32) for row in tokens]
    if not rows or min(map(len, rows)) == 0:
        raise GeexError("no tokens to compare on", "give rows of one token or more")
    padded = np.zeros((len(rows), max(map(len, rows))), np.int32)
    mask = np.zeros(padded.shape, bool)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
        mask[i, : len(row)] = True
    return padded, mask


def run_ours(loaded: Loaded, tokens: np.ndarray, batch_size: int | None = None) -> PeerOutput:
    """Runs our model in float32; tokens int32 [B, T]. Returns what `run_peer` does."""
    config = loaded.config.replace(dtype="float32", remat="none", attention="auto", matmul="float")
    model = Transformer(config)

    @jax.jit
    def forward(params: Any, tokens: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        logits, state = model.apply({"params": params}, tokens, mutable=["intermediates"])
        return logits, _states(dict(state["intermediates"]), config)

    size = batch_size or len(tokens)
    progress = files.Progress("JAX", len(tokens), "rows")
    logits, hidden = [], []
    with jax.default_matmul_precision("highest"):
        for i in range(0, len(tokens), size):
            out, states = jax.device_get(forward(loaded.params, jnp.asarray(tokens[i : i + size])))
            logits.append(out)
            hidden.append([row for x in states for row in (x if x.ndim == 4 else [x])])
            progress.update(len(out))
    return PeerOutput(
        np.concatenate(logits),
        [np.concatenate(x) for x in zip(*hidden, strict=True)],
        state_names(config.num_layers, config.top_query_layer),
    )


def _states(sown: dict[str, Any], config: ModelConfig) -> list[jax.Array]:
    """Sown states in order, [B, T, D] each, scanned layers as one [L, B, T, D]."""
    if config.scan_layers:
        layers = [sown["layers"]["residual"][0]]
    else:
        layers = [sown[f"layers_{i}"]["residual"][0] for i in range(config.num_layers)]
    states = [sown["embedded"][0], *layers, sown["normed"][0]]
    if config.top_query_layer:
        states.append(sown["top_query"]["layer"]["residual"][0])
    return states


def _check_sizes(config: ModelConfig, shape: PeerShape, tokens: np.ndarray) -> None:
    pairs = {
        "vocabulary": (config.vocab_size, shape.vocab_size),
        "d_model": (config.d_model, shape.d_model),
        "number of layers": (config.num_layers, shape.num_layers),
        "number of heads": (config.num_heads, shape.num_heads),
    }
    official = shape.kind == "codegeex"
    if official and config.vocab_size < shape.vocab_size:
        del pairs["vocabulary"]  # converted without the padded rows: the others are compared
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise GeexError(
                f"{name}: the checkpoint has {ours}, the one to compare with {theirs}",
                "a CodeGeeX file does not tell its heads: pass --num-heads"
                if official and name == "number of heads"
                else "these are two different models",
            )
    if config.top_query_layer != official:
        raise GeexError(f"only one of the two has a top query layer (peer: {shape.kind})",
                        "these are two different models")  # fmt: skip
    longest = min(config.context_length, shape.context_length)
    if tokens.shape[1] > longest:
        raise GeexError(f"{tokens.shape[1]} tokens in a row, the context is {longest}",
                        "pass --length, or a shorter text")  # fmt: skip
    if tokens.min() < 0 or tokens.max() >= config.vocab_size:
        raise GeexError(
            f"token {tokens.max()} is outside the vocabulary of {config.vocab_size}",
            "use the checkpoint's own tokenizer",
        )


def compare(ours: PeerOutput, theirs: PeerOutput, mask: np.ndarray | None = None) -> Comparison:
    """Compares two outputs on the same tokens.

    Args:
      ours: logits [B, T, V] and hidden states [B, T, D].
      theirs: the same of the reference.
      mask: bool [B, T], True where positions count; by default everywhere.

    Raises:
      GeexError: the two have different hidden states.
    """
    if ours.names != theirs.names or ours.logits.shape != theirs.logits.shape:
        raise GeexError("the two outputs do not have the same parts", "compare equal models")
    if mask is None:
        mask = np.ones(ours.logits.shape[:2], bool)
    pairs = zip(ours.names, ours.hidden, theirs.hidden, strict=True)
    states = [_difference(name, a[mask], b[mask]) for name, a, b in pairs]
    states.append(_difference("logits", ours.logits[mask], theirs.logits[mask]))
    total, squares, kl, same = 0.0, 0.0, [], []
    for a, b, keep in zip(ours.logits, theirs.logits, mask, strict=True):  # a row at a time: big
        a, b = a[keep].astype(np.float64), b[keep].astype(np.float64)
        total += float(np.abs(a - b).sum())
        squares += float(np.square(b).sum())
        kl.append(kl_divergence(b, a))
        same.append(a.argmax(-1) == b.argmax(-1))
    divergence, count = np.concatenate(kl), int(mask.sum())
    values = count * ours.logits.shape[-1]
    return Comparison(
        positions=count,
        max_abs_logit=states[-1].max_abs,
        mean_abs_logit=total / values,
        rms_logit=math.sqrt(squares / values),
        kl_mean=float(divergence.mean()),
        kl_max=float(divergence.max()),
        top1_agreement=float(np.concatenate(same).mean()),
        states=states,
    )


def _difference(name: str, ours: np.ndarray, theirs: np.ndarray) -> Difference:
    largest = float(np.abs(ours - theirs).max())
    rms = math.sqrt(float(np.square(theirs, dtype=np.float64).mean()))
    return Difference(name, largest, largest / rms if rms else (0.0 if largest == 0 else math.inf))


def kl_divergence(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """KL(reference || other) in nats of softmax distributions; logits [..., V] to [...]."""

    def log_softmax(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, np.float64)
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    p, q = log_softmax(reference), log_softmax(other)
    return np.maximum((np.exp(p) * (p - q)).sum(-1), 0.0)  # rounding may leave -1e-17


def _verdict(
    found: Comparison, weights: str, tolerance: float | None, threshold: float | None
) -> str:
    size = f"max |dlogit| {found.max_abs_logit:.2g}"
    widest = found.widest()
    where = f"hidden states are widest apart at {widest.name} ({widest.relative:.2g} of their RMS)"
    if threshold is not None:
        first = found.first_apart(threshold)
        where = f"they first part ways at {first}" if first else f"no layer parts ways; {where}"
    if tolerance is None:
        return f"measured: {weights} weights, no tolerance set: {size}; {where}"
    if found.max_abs_logit <= tolerance:
        return f"agrees: {size} <= {tolerance:g}; {where}"
    return f"DIFFERS: {size} > {tolerance:g}; {where}"


def render(report: Report) -> str:
    """Returns the report as a table for people, the verdict last."""
    found = report.comparison
    lines = [
        f"{report.weights} weights against {report.kind} {pathlib.Path(report.against).name},"
        f" {found.positions} positions in {report.rows} rows",
        "",
        f"logits   max |d| {found.max_abs_logit:.3e}   mean |d| {found.mean_abs_logit:.3e}"
        f"   RMS {found.rms_logit:.3f}",
        f"KL       mean {found.kl_mean:.3e}   max {found.kl_max:.3e} nats",
        f"top-1    {100 * found.top1_agreement:.2f}% agree",
        "",
        f"{'state':<16}  {'max |d|':>9}  {'relative':>9}",
    ]
    for state in found.states:
        mark = f"  <- first above {report.threshold:g}" if state.name == report.first_apart else ""
        lines.append(f"{state.name:<16}  {state.max_abs:>9.2e}  {state.relative:>9.2e}{mark}")
    return "\n".join([*lines, "", report.verdict])
