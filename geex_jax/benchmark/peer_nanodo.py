"""nanodo's published train step (github.com/google-deepmind/nanodo, Apache-2.0) as a peer.

Nothing of nanodo is copied here: it is imported from a checkout, and its own `Trainer.step_fn` is
what runs. nanodo's module of data imports TensorFlow and its logging imports clu; the step uses
neither, so where they are not installed an empty module stands in their place, in the peer's
process alone.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import pathlib
import sys
import time
import warnings
from typing import Any
from unittest import mock

import numpy as np

from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig
from geex_jax.training.optimizer import OptimizerConfig

# What nanodo imports and its step does not call.
UNUSED = ("tensorflow", "tensorflow_datasets", "tensorflow_text", "clu")
UNUSABLE = "Some donated buffers were not usable"  # nanodo donates its input, which no output fits
# nanodo's parts, of the fields of a ModelConfig.
PARTS: dict[str, Any] = {
    "activation": "gelu_tanh",
    "qkv_bias": False,
    "output_bias": False,
    "mlp_bias": False,
    "top_query_layer": False,
    "norm_eps": 1e-6,
}


def check_checkout(path: str | pathlib.Path) -> pathlib.Path:
    """Returns the folder that holds the package `nanodo`.

    Raises:
      GeexError: it does not hold it.
    """
    folder = pathlib.Path(path)
    if not (folder / "nanodo" / "train.py").is_file():
        raise GeexError(
            f"--peer {path} holds no nanodo/train.py",
            "give a clone of github.com/google-deepmind/nanodo",
        )
    return folder.resolve()


@dataclasses.dataclass(frozen=True)
class PeerSpec:
    """What the peer's process needs to know.

    Attributes:
      folder: of the checkout.
      model: a shape of nanodo's parts (see `PARTS`).
      optimizer: the settings of both sides.
      metrics: False takes nanodo's statistics of gradients, parameters and updates out of its
        step: three more passes over three trees.
    """

    folder: str
    model: ModelConfig
    optimizer: OptimizerConfig
    metrics: bool = True


class Nanodo:
    """The package, imported from its checkout, and its config of a shape."""

    def __init__(self, spec: PeerSpec):
        import ml_collections

        for name in UNUSED:
            if name not in sys.modules and importlib.util.find_spec(name) is None:
                sys.modules[name] = mock.MagicMock(name=name)
        sys.path.insert(0, spec.folder)
        try:
            self.train = importlib.import_module("nanodo.train")
            self.factory = importlib.import_module("nanodo.model_factory")
        except Exception as error:
            raise GeexError(
                f"nanodo of {spec.folder} does not import: {type(error).__name__}: {error}",
                "install what it needs, or take another commit",
            ) from error
        if not spec.metrics:
            self.train.metrics_lib.get_metrics = lambda aux, c, loss, *_: {"train_loss": loss}
        model, optimizer = spec.model, spec.optimizer
        sizes = {
            "D": model.d_model,
            "H": model.num_heads,
            "L": model.context_length,
            "N": model.num_layers,
            "F": model.d_ff,
            "dtype": model.dtype,
            "fsdp_enabled": True,
            "remat": False,
        }
        rates = {
            "num_train_steps": optimizer.steps,
            "peak_learning_rate": optimizer.lr,
            "init_learning_rate": 0.0,
            "final_learning_rate": optimizer.end_lr,
            "warmup_steps": optimizer.warmup,
            "decay_type": "cosine",
            "weight_decay": optimizer.weight_decay,
            "weight_decay_exclusion_names": ["bias", "scale"],
            "clip_by_global_norm": optimizer.clip or None,
            "optimizer": "adamw",
            "b1": optimizer.b1,
            "b2": optimizer.b2,
            "eps": optimizer.eps,
        }
        self.config = ml_collections.ConfigDict(
            {"model": sizes, "opt": rates, "log_internal_metrics": False}
        )
        self.module, self.loss = self.factory.get_model_and_loss(self.config, model.vocab_size)

    def trainer(self, state: Any, mesh: Any, shardings: Any) -> Any:
        """nanodo's `Trainer`, whose `step_fn` is the jitted step."""
        return self.train.Trainer(self.config, state, mesh, shardings, self.loss)


class NanodoStep:
    """nanodo's trainer from our parameters, in its own process."""

    def __init__(self, start: tuple[PeerSpec, Any]):
        import jax

        spec, params = start
        peer = Nanodo(spec)
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
        shardings, state = peer.train._init_train_state(
            peer.config, peer.module, jax.random.PRNGKey(0), mesh
        )
        state = state.replace(params=adopt(state.params, params))
        self.trainer = peer.trainer(state, mesh, shardings)

    def parameters(self) -> int:
        """Their number."""
        import jax

        return sum(x.size for x in jax.tree.leaves(self.trainer.state.params))

    def step(self, batch: dict[str, np.ndarray]) -> tuple[float, float]:
        """Takes one step; returns its loss and its seconds."""
        import jax

        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", UNUSABLE)
            self.trainer.state, metrics = self.trainer.step_fn(self.trainer.state, batch["tokens"])
        jax.block_until_ready(self.trainer.state)
        return float(metrics["train_loss"]), time.perf_counter() - start

    def cpu_seconds(self) -> float:
        """Of all threads of the process, so far."""
        return time.process_time()


def adopt(theirs: Any, ours: dict[str, Any]) -> Any:
    """nanodo's (boxed) parameter tree with the values of our stacked one.

    Raises:
      GeexError: a leaf that has no counterpart of its shape: another nanodo than the one known.
    """
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    plain = nn.unbox(theirs)
    layers = ours["layers"]

    def block(tree: dict[str, Any], i: int) -> dict[str, Any]:
        attention, mlp = layers["attention"], layers["mlp"]
        out = {
            "LayerNorm_0": {"scale": layers["attention_norm"]["scale"][i]},
            "LayerNorm_1": {"scale": layers["mlp_norm"]["scale"][i]},
            "CausalAttn_0": {
                "query": {"kernel": attention["query"]["kernel"][i]},
                "key": {"kernel": attention["key"]["kernel"][i]},
                "value": {"kernel": attention["value"]["kernel"][i]},
                "attn_out_proj": {"kernel": attention["output"]["kernel"][i]},
            },
            "Mlp_0": {
                "Dense_0": {"kernel": mlp["up"]["kernel"][i]},
                "Dense_1": {"kernel": mlp["down"]["kernel"][i]},
            },
        }
        return jax.tree.map(lambda old, new: np.reshape(new, old.shape), tree, out)

    new = {
        "embed": {"embedding": ours["embedding"]["tokens"]},
        "pos_embed": {"embedding": ours["embedding"]["positions"]},
        "out_ln": {"scale": ours["final_norm"]["scale"]},
    }
    try:
        for name in plain:
            if name.startswith("blocks_"):
                new[name] = block(plain[name], int(name.removeprefix("blocks_")))
        values = jax.tree.map(lambda old, x: jnp.asarray(np.reshape(x, old.shape)), plain, new)
    except (ValueError, KeyError, IndexError) as error:
        raise GeexError(
            f"nanodo's parameters are not those known here: {str(error).splitlines()[0]}",
            "take a nanodo of 2024 or later, as published",
        ) from error
    return jax.tree.map(
        lambda box, x: box.replace_boxed(x) if isinstance(box, nn.Partitioned) else x,
        theirs,
        values,
        is_leaf=lambda x: isinstance(x, nn.Partitioned),
    )


def lower(spec: PeerSpec, devices: list[Any], batch_size: int) -> Any:
    """nanodo's step over all `devices` (its axis "data": batch and parameters), lowered.

    The state is shapes alone, so the devices may be those of an AOT topology.
    """
    import flax.linen as nn
    import jax

    peer = Nanodo(spec)
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    here = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    state = jax.eval_shape(
        lambda: peer.train._init_train_state(peer.config, peer.module, jax.random.PRNGKey(0), here)[
            1
        ]
    )
    shardings = nn.get_sharding(state, mesh)
    step = peer.trainer(None, mesh, shardings).step_fn
    tokens = jax.ShapeDtypeStruct((batch_size, spec.model.context_length), np.int32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", UNUSABLE)
        return step.lower(state, tokens)
