"""What a run consists of, and every refusal that needs no compiler."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from geex_jax import files, tokenizers
from geex_jax.checkpoints import load_model
from geex_jax.checkpoints.store import locate
from geex_jax.data import manifest as manifests
from geex_jax.data.loader import make_loader
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer, from_dict
from geex_jax.parallel import batch_sharding, batch_ways, make_mesh, placing
from geex_jax.parallel.placing import local_rows
from geex_jax.training import config as configs
from geex_jax.training.evaluate import ByteCounter
from geex_jax.training.optimizer import make_optimizer
from geex_jax.training.step import TrainState, init_state, sharded_init


class Run:
    """What a run consists of once everything has been checked, before anything is compiled."""

    def __init__(self, config: configs.Config, workdir: pathlib.Path):
        self.config, self.workdir = config, workdir
        if not config.data.folder:
            raise GeexError("config.data.folder is empty", "name a folder that geex prepare wrote")
        self.manifest = manifests.load(config.data.folder)
        self.tokenizer = tokenizers.load(pathlib.Path(config.data.folder) / "tokenizer")
        if self.tokenizer.fingerprint() != self.manifest.tokenizer.fingerprint:
            raise GeexError(
                f"the tokenizer in {config.data.folder} is not the one that made its rows",
                "run geex prepare again",
            )
        self.seq_len = self.manifest.seq_len
        vocab = self.manifest.tokenizer.vocab_size
        self.mesh = make_mesh(config.mesh.to_dict())
        configs.check_batch(config, batch_ways(self.mesh))
        self.rows = local_rows(batch_sharding(self.mesh), config.batch_size)
        start = self._fine_tuned_from(config, vocab)
        if start is None:
            shape = configs.model_config(config, vocab, self.seq_len)
        else:
            shape = start.replace(
                dropout=config.model.dropout,
                dtype=config.model.dtype,
                remat=config.model.remat,
                attention=config.model.attention,
                matmul=config.model.matmul,
            )
        self.model = Transformer(shape)
        self.optimizer_config = configs.optimizer_config(config)
        self.step_config = dataclasses.replace(
            configs.step_config(config), languages=len(self.manifest.languages)
        )
        self.loader = make_loader(
            config.data.folder,
            "train",
            batch_size=config.batch_size,
            seed=config.seed,
            alpha=config.data.alpha,
            weights=config.data.weights.to_dict() or None,
            max_epochs=config.data.max_epochs,
            curriculum=_plain(config.data.curriculum) or None,
            rows=self.rows.tolist(),
            prefetch=config.data.prefetch,
        )
        if self.loader.steps is not None and self.loader.steps < config.steps:
            raise GeexError(
                f"{config.steps} steps are asked for, but max_epochs ends the data after "
                f"{self.loader.steps}",
                f"set config.steps={self.loader.steps}, or a higher config.data.max_epochs",
            )
        self.counter = ByteCounter.of(self.tokenizer, self.manifest, self.model.config.vocab_size)
        self._check_workdir()

    def _fine_tuned_from(self, config: configs.Config, vocab: int) -> ModelConfig | None:
        if not config.init_from:
            return None
        about, _, folder = locate(config.init_from)
        shape = from_dict(about["model"])
        found = tokenizers.load(folder).fingerprint() if folder.is_dir() else "none"
        if found != self.manifest.tokenizer.fingerprint:
            raise GeexError(
                f"vocabulary of {config.init_from} ({found}) is not the data's "
                f"({self.manifest.tokenizer.fingerprint}, {vocab} pieces)",
                f"run geex prepare with --tokenizer {config.init_from}/tokenizer",
            )
        if shape.context_length < self.seq_len:
            raise GeexError(
                f"rows of {self.seq_len} tokens exceed the model's context of "
                f"{shape.context_length}",
                f"run geex prepare with --seq-len {shape.context_length}",
            )
        return shape

    def _check_workdir(self) -> None:
        """On the first process alone: it is one folder for all of them."""
        if jax.process_index() != 0:
            return
        path = self.workdir / "experiment.json"
        mine = json.loads(json.dumps(self.config.to_dict(), default=list))
        mine["data_fingerprint"] = self.manifest.fingerprint
        if path.is_file():
            changes = configs.same_run(json.loads(path.read_text()), mine)
            if changes:
                raise GeexError(
                    f"{self.workdir} holds a run of another config ({'; '.join(changes[:3])})",
                    "choose another --workdir, or use the old values",
                )
        elif self.workdir.is_dir() and any(self.workdir.iterdir()):
            raise GeexError(
                f"{self.workdir} is not empty and no workdir", "choose another --workdir"
            )
        else:
            files.write_json(path, mine)

    def fresh_state(self) -> TrainState:
        """A state at step 0, born in its places on the mesh; fine-tuning reads its weights there.

        Raises:
          GeexError: the weights to start from are damaged, or of other shapes or types.
        """
        optimizer = make_optimizer(self.optimizer_config)
        state = sharded_init(
            self.mesh,
            lambda: init_state(self.model, optimizer, self.config.seed, self.step_config),
        )
        if not self.config.init_from:
            return state
        params = load_model(self.config.init_from, mesh=self.mesh).params
        if jax.tree.structure(params) != jax.tree.structure(state.params):
            raise GeexError(
                f"the parameters in {self.config.init_from} are not those of a float model",
                "fine-tune the float checkpoint",
            )
        cast = jax.jit(
            lambda new: jax.tree.map(lambda a, b: a.astype(b.dtype), new, state.params),
            out_shardings=jax.tree.map(lambda x: x.sharding, state.params),
        )
        return dataclasses.replace(state, params=cast(params))

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """Places this process's rows of a batch on the mesh."""
        place = batch_sharding(self.mesh)
        return placing.put(batch, place, self.rows, self.config.batch_size)


def _plain(value: Any) -> Any:
    # ml_collections may wrap the groups in a tuple.
    if isinstance(value, ConfigDict):
        return value.to_dict()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value
