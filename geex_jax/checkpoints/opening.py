"""Opens a checkpoint in the form that it shall run in: quantized on the way, or as it is stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from geex_jax import files
from geex_jax.checkpoints.store import Loaded, load_model, locate
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, from_dict
from geex_jax.parallel import tree_of
from geex_jax.quantize import Policy, is_quantized, quantize_params
from geex_jax.quantize.rounding import Rounding


@dataclasses.dataclass(frozen=True)
class Form:
    """What a model runs as.

    Attributes:
      policy: quantizes float weights while loading; None leaves them as they are stored, float or
        quantized.
      rounding: of the policy, "clean" or "official".
      changes: fields of the model's config to change: dtype, kv_cache, activations.
    """

    policy: Policy | None = None
    rounding: Rounding = "clean"
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def check(self, path: files.Path) -> ModelConfig:
        """Refuses a checkpoint that cannot run so, by its config.json alone.

        Returns:
          The config that the model will have.

        Raises:
          GeexError: nothing there; quantized already; a policy that does not fit; int8 activations
            where no weight is quantized, which they would not change.
        """
        about = locate(path)[0]
        config = from_dict({**about["model"], **self.changes})
        leaves = {
            name: jax.ShapeDtypeStruct(tuple(shape), jax.numpy.dtype(dtype))
            for name, (shape, dtype) in about["leaves"].items()
        }
        tree = tree_of(leaves)
        if self.policy is not None:
            if is_quantized(tree):
                raise GeexError(f"{path} is quantized already", "take it without another policy")
            tree = jax.eval_shape(self.quantized, tree)
        if self.changes.get("activations") == "int8" and not is_quantized(tree):
            raise GeexError(
                f"int8 activations, and no weight of {path} is quantized", "add a policy: int8, say"
            )
        return config

    def open(self, path: files.Path, mesh: jax.sharding.Mesh | None = None) -> Loaded:
        """Loads and quantizes, each float leaf only in memory until it has been.

        Args:
          path: as for `load_model`, after `check`. mesh: where the parameters go; by default onto
            one device.

        Raises:
          GeexError: as `load_model` and `quantize_params`.
        """
        loaded = load_model(path, mesh, **self.changes)
        if self.policy is None:
            return loaded
        return dataclasses.replace(loaded, params=self.quantized(loaded.params, consume=True))

    def quantized(self, params: Any, consume: bool = False) -> Any:
        """Float parameters by the policy; with `consume` the float ones are given up."""
        assert self.policy is not None
        return quantize_params(params, self.policy, self.rounding, consume=consume)
