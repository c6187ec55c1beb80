"""What a family file is made of: rules for tensors and fields for the config.

A family says how its files name what our model calls otherwise. Everything else is derived from
its two tables: which tensors must be there and of what shape, how they are cut, turned and
stacked on the way in, and the same backwards on the way out.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from geex_jax.checkpoints.families.fields import Field
from geex_jax.errors import GeexError
from geex_jax.models.config import ModelConfig
from geex_jax.models.transformer import Transformer
from geex_jax.parallel import by_path

Count = Callable[[ModelConfig], int]


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of a family's table: an outside tensor and what it holds of ours.

    The rows of the outside tensor are those of our parts, in this order, cut into `blocks` equal
    blocks: rows [q; k; v] are one block, GPT-NeoX's (q, k, v) for every head are `num_heads`
    blocks. A kernel lies transposed outside ([out, in]); all else as it is.

    Attributes:
      outside: name, "{i}" for the layer.
      ours: our paths; those inside `layers/` are stacked.
      blocks: number of blocks.
      split: how tensor-parallel parts of it are cut: axis 0, 1, or None for copies.
      turn: whether kernels are transposed on the way.
    """

    outside: str
    ours: tuple[str, ...]
    blocks: Count = lambda config: 1
    split: int | None = None
    turn: bool = True

    def turns(self, path: str) -> bool:
        """Whether this part of ours lies transposed outside."""
        return self.turn and path.endswith("/kernel")


def tensor(outside: str, *ours: str, split: int | None = None) -> tuple[Rule, ...]:
    """A single tensor that both sides keep alike."""
    return (Rule(outside, ours, split=split),)


def norm(outside: str, ours: str) -> tuple[Rule, ...]:
    """`weight` and `bias` of a normalization."""
    return (
        Rule(f"{outside}.weight", (f"{ours}/scale",)),
        Rule(f"{outside}.bias", (f"{ours}/bias",)),
    )


def linear(
    outside: str,
    *ours: str,
    blocks: Count = lambda config: 1,
    weight_split: int | None = None,
    bias_split: int | None = None,
) -> tuple[Rule, ...]:
    """`weight` and `bias` of a linear that holds one or several of ours."""
    return (
        Rule(f"{outside}.weight", tuple(f"{o}/kernel" for o in ours), blocks, weight_split),
        Rule(f"{outside}.bias", tuple(f"{o}/bias" for o in ours), blocks, bias_split),
    )


@dataclasses.dataclass(frozen=True)
class Binding:
    """A rule made concrete for one model and one layer.

    Attributes:
      name: the outside tensor.
      rule: its line in the table.
      parts: our paths with the shape of each (of one layer).
      layer: index on the stacked axis, None outside the layers.
      blocks: see `Rule`.
    """

    name: str
    rule: Rule
    parts: tuple[tuple[str, tuple[int, ...]], ...]
    layer: int | None
    blocks: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the outside tensor."""
        turned = [shape[::-1] if self.rule.turns(path) else shape for path, shape in self.parts]
        return (sum(s[0] for s in turned), *turned[0][1:]) if turned[0] else ()

    def inward(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """Cuts an outside array into ours, kernels [in, out]."""
        rest = array.shape[1:]
        rows = [shape[-1] if self.rule.turns(path) else shape[0] for path, shape in self.parts]
        if len(rows) == 1 and self.blocks == 1:
            cut = [array]
        else:
            blocks = array.reshape(self.blocks, -1, *rest)
            ends = np.cumsum([n // self.blocks for n in rows])[:-1]
            cut = [p.reshape(-1, *rest) for p in np.split(blocks, ends, axis=1)]
        paths = [path for path, _ in self.parts]
        return {p: a.T if self.rule.turns(p) else a for p, a in zip(paths, cut, strict=True)}

    def outward(self, ours: Mapping[str, np.ndarray]) -> np.ndarray:
        """The inverse of `inward`."""
        turned = [ours[path].T if self.rule.turns(path) else ours[path] for path, _ in self.parts]
        if len(turned) == 1 and self.blocks == 1:
            return turned[0]
        rest = turned[0].shape[1:]
        blocks = [a.reshape(self.blocks, -1, *rest) for a in turned]
        return np.concatenate(blocks, axis=1).reshape(-1, *rest)


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of checkpoints: a table of config fields and a table of tensors.

    Attributes:
      name: Hugging Face's `model_type`, or our name for what has none.
      architecture: class name that goes into an exported config.json.
      fields: config.json to ModelConfig and back; see `fields.Field`.
      parts: fields of ModelConfig that are the same in every model of the family.
      tensors: the table.
      ignored: regular expressions of tensors to skip: buffers that older versions saved.
      only: fields whose values the mathematics here supports: {key: allowed values}.
      free: more keys without effect on the logits, beside those that all families share.
      tied_copy: name of a tied head's copy, which some files hold and which must be equal.
      example: a published model, for messages.
    """

    name: str
    architecture: str
    fields: tuple[Field, ...]
    parts: Mapping[str, Any]
    tensors: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()
    only: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    free: frozenset[str] = frozenset()
    tied_copy: str | None = None
    example: str = ""

    def bind(
        self, config: ModelConfig, leaves: Mapping[str, tuple[int, ...]] | None = None
    ) -> dict[str, Binding]:
        """The outside tensors of a model of this family, by name.

        Args:
          config: the model.
          leaves: shapes of the model's parameters; by default those of the float model.

        Raises:
          GeexError: the family has no tensor for a parameter of this model.
        """
        leaves = dict(leaves or expected_leaves(config))
        found: dict[str, Binding] = {}
        for rule in self.tensors:
            present = [path for path in rule.ours if path in leaves]
            if not present:
                continue
            if len(present) < len(rule.ours):
                raise _cannot_hold(self, f"{present[0]} without {rule.ours}")
            for name, binding in _concrete(rule, config, leaves):
                found[name] = binding
            for path in present:
                del leaves[path]
        if leaves:
            raise _cannot_hold(self, next(iter(leaves)))
        return found

    def skips(self, name: str) -> bool:
        """Whether a tensor of the file is a buffer to leave out."""
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)


def _cannot_hold(family: Family, what: str) -> GeexError:
    return GeexError(
        f"a {family.name} checkpoint has no place for {what}",
        "choose the family or format that the model belongs to",
    )


def _concrete(
    rule: Rule, config: ModelConfig, leaves: Mapping[str, tuple[int, ...]]
) -> list[tuple[str, Binding]]:
    blocks = rule.blocks(config)
    if "{i}" not in rule.outside:
        parts = tuple((path, leaves[path]) for path in rule.ours)
        return [(rule.outside, Binding(rule.outside, rule, parts, None, blocks))]
    parts = tuple((path, leaves[path][1:]) for path in rule.ours)
    names = [rule.outside.format(i=i) for i in range(config.num_layers)]
    return [(n, Binding(n, rule, parts, i, blocks)) for i, n in enumerate(names)]


def expected_leaves(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the float model's parameters by path, layers stacked."""
    # What has no effect on shapes is left out, so that a model under another name is found again.
    names = (
        "name",
        "dtype",
        "param_dtype",
        "remat",
        "dropout",
        "scan_layers",
        "scan_unroll",
        "attention",
        "matmul",
        "activations",
        "kv_cache",
    )
    return dict(_leaves(config.replace(**{key: getattr(ModelConfig(), key) for key in names})))


@functools.lru_cache(maxsize=32)  # tracing takes longer than a small model's conversion
def _leaves(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    tokens = jax.ShapeDtypeStruct((1, 1), np.int32)
    tree = jax.eval_shape(Transformer(config).init, jax.random.key(0), tokens)["params"]
    return {path: leaf.shape for path, leaf in by_path(tree).items()}
