"""The train step of a config on a mesh, not yet compiled: what a run runs and a plan compiles."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from geex_jax.languages import LANGUAGES
from geex_jax.models import ModelConfig, Transformer
from geex_jax.parallel import batch_sharding, batch_ways, use_mesh
from geex_jax.training import config as configs
from geex_jax.training.optimizer import make_optimizer
from geex_jax.training.step import TrainState, init_state, jit_train_step, state_shardings


@dataclasses.dataclass(frozen=True)
class Program:
    """A train step and the shapes, types and places of its arguments.

    Attributes:
      mesh: where it runs; real devices or those of an AOT topology.
      model: the shape.
      state: a TrainState of ShapeDtypeStructs with shardings.
      batch: int32 and float32 [B, S] ShapeDtypeStructs with shardings, as the loop gives them.
      step: `jit_train_step`'s result.
    """

    mesh: Mesh
    model: ModelConfig
    state: TrainState
    batch: dict[str, jax.ShapeDtypeStruct]
    step: Any

    def lower(self) -> Any:
        """Traces and lowers the step; call `.compile()` on what it returns."""
        with use_mesh(self.mesh):
            return self.step.lower(self.state, self.batch)


def train_program(
    config: configs.Config, mesh: Mesh, vocab_size: int | None = None, seq_len: int | None = None
) -> Program:
    """The program of an experiment config, without data and without a device being touched.

    Args:
      config: see `default_config`.
      mesh: from `make_mesh`.
      vocab_size: of the data's tokenizer; by default the preset's table.
      seq_len: tokens of a row; by default the model's context length.

    Raises:
      GeexError: a batch or a parameter that does not divide over the mesh; see `model_config`.
    """
    base = configs.preset(config.model.preset)
    length: int = seq_len or config.model.context_length or base.context_length
    model = configs.model_config(
        config, vocab_size or config.model.vocab_size or base.vocab_size, length
    )
    configs.check_batch(config, batch_ways(mesh))
    optimizer = make_optimizer(configs.optimizer_config(config))
    step_config = dataclasses.replace(configs.step_config(config), languages=len(LANGUAGES))
    state = jax.eval_shape(
        lambda: init_state(Transformer(model), optimizer, config.seed, step_config)
    )

    def placed(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    step = jit_train_step(mesh, state)
    place = batch_sharding(mesh)
    shape = (config.batch_size, length)
    names = ("tokens", "targets", "positions", "segment_ids", "language", "text_bytes")
    batch = {name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=place) for name in names}
    batch["loss_mask"] = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)
    state = jax.tree.map(placed, state, state_shardings(mesh, state))
    return Program(mesh, model, state, batch, step)
