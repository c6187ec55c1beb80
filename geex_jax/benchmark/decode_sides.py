"""The sides of `geex bench decode` and `prefill`: ours, by weight format, and other Pythons' peers.

All sides hold one random model of a CodeGeeX shape less its top query layer (a GPT-2 with the
activation x * sigmoid(1.702 x)), which every peer can express.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import time
from typing import Any

import numpy as np

from geex_jax.benchmark import decode_peers
from geex_jax.errors import GeexError

OURS = "geex"
# name -> (changes to the ModelConfig, bits of the weights)
FORMATS: dict[str, tuple[dict[str, str], int | None]] = {
    "float32": ({}, None),
    "bfloat16": ({"dtype": "bfloat16", "param_dtype": "bfloat16"}, None),
    "int8": ({}, 8),
    "int8-bf16": ({"dtype": "bfloat16", "param_dtype": "bfloat16"}, 8),
    "w8a8": ({"activations": "int8"}, 8),
}


def shape_of(preset: str) -> Any:
    """The preset's ModelConfig with an ordinary block in place of the top query layer.

    Raises:
      GeexError: no such preset, or one of another family.
    """
    from geex_jax import models

    config = models.preset(preset)
    usual = models.ModelConfig()
    if config.position != "learned" or config.activation != usual.activation:
        raise GeexError(f"{preset} is no CodeGeeX shape", "take geex-125m or geex-350m")
    layers = config.num_layers + config.top_query_layer
    return config.replace(num_layers=layers, top_query_layer=False)


def save_weights(config: Any, folder: str) -> None:
    """Writes random float32 parameters as NAME.npy, / written as a dot."""
    import jax
    import jax.numpy as jnp

    from geex_jax.models import Transformer
    from geex_jax.parallel import by_path

    tokens = jnp.zeros((1, 4), jnp.int32)
    params = jax.jit(Transformer(config).init)(jax.random.key(0), tokens)["params"]
    for path, leaf in by_path(params).items():
        np.save(pathlib.Path(folder) / f"{path.replace('/', '.')}.npy", np.asarray(leaf))


class Ours:
    """This library in a process of its own: `inference.Decoding` over prepared parameters.

    Args:
      spec: "weights" (folder), "config" (ModelConfig).
    """

    def __init__(self, spec: dict[str, Any]):
        self.spec: dict[str, Any] = spec
        self.models: dict[str, Any] = {}

    def save(self) -> None:
        """Writes the weights that all sides read."""
        save_weights(self.spec["config"], self.spec["weights"])

    def load(self, name: str) -> int:
        """Reads and prepares the weights in one format; returns the bytes a step reads of them."""
        import jax

        from geex_jax.inference import prepare
        from geex_jax.models import Transformer

        changes, bits = FORMATS[name]
        config = self.spec["config"].replace(**changes)
        params = read_weights(self.spec["weights"], config, bits)
        model, params = prepare(Transformer(config), params)
        jax.block_until_ready(params)
        self.models[name] = (model, params)
        return step_bytes(params)

    def generate(self, name: str, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        """Ids that continue the prompts."""
        decoding = self._start(name, prompts, tokens)
        decoding.advance(tokens)
        return decoding.tokens()

    def prefill(self, name: str, prompts: list[list[int]]) -> float:
        """Seconds to the first token."""
        start = time.perf_counter()
        self._start(name, prompts, 1).tokens()
        return time.perf_counter() - start

    def decode(self, name: str, prompts: list[list[int]], tokens: int) -> float:
        """Seconds of a decode step: over `tokens` steps after the first token."""
        decoding = self._start(name, prompts, tokens + 1)
        decoding.tokens()  # waits
        start = time.perf_counter()
        decoding.advance(tokens)
        decoding.tokens()
        return (time.perf_counter() - start) / tokens

    def _start(self, name: str, prompts: list[list[int]], tokens: int) -> Any:
        from geex_jax.inference import Decoding

        model, params = self.models[name]
        return Decoding(model, params, prompts, max_new_tokens=tokens)

    def native(self) -> bool:
        """Whether the C++ kernels are in use here."""
        from geex_jax.kernels import cpu_native

        return cpu_native.available()

    def bandwidth(self) -> float:
        """Bytes a second that all cores together read from memory, the best of five times."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        parts = np.ones((cores, (512 << 20) // cores // 8), np.int64)

        def read(i: int) -> None:
            parts[i].sum()

        best = float("inf")
        for _ in range(5):
            threads = [threading.Thread(target=read, args=(i,)) for i in range(cores)]
            start = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            best = min(best, time.perf_counter() - start)
        return parts.nbytes / best


def read_weights(folder: str, config: Any, bits: int | None) -> Any:
    """The parameters of `save_weights` in the config's type, their linears and table in `bits`."""
    import jax.numpy as jnp

    from geex_jax.parallel import tree_of
    from geex_jax.quantize import quantize_kernel, quantize_params

    found = pathlib.Path(folder).glob("*.npy")
    params = tree_of({p.stem.replace(".", "/"): np.load(p, mmap_mode="r") for p in found})
    if bits:
        params = quantize_params(params, bits)
        table, scale = quantize_kernel(jnp.asarray(params["embedding"].pop("tokens")).T, 8, "clean")
        params["embedding"] |= {"tokens_int8": table, "tokens_scale": scale}
    return _cast(params, jnp.dtype(config.param_dtype))


def _cast(tree: Any, dtype: Any) -> Any:
    import jax.numpy as jnp

    if isinstance(tree, dict):
        return {k: v if k.endswith("_scale") else _cast(v, dtype) for k, v in tree.items()}
    kept = np.issubdtype(tree.dtype, np.integer)
    return jnp.asarray(tree) if kept else jnp.asarray(tree, dtype)


def step_bytes(params: Any) -> int:
    """Bytes of parameters that one decode step reads: all but the table of positions."""
    import jax

    held = sum(x.nbytes for x in jax.tree.leaves(params))
    return held - params["embedding"]["positions"].nbytes


class PeerSide:
    """`decode_peers` in another Python; `call` is that of `turns.Side`.

    Args:
      python: the interpreter.
      spec: see `decode_peers`.

    Raises:
      GeexError: the interpreter does not start; what a peer raised, as one line.
    """

    def __init__(self, python: str, spec: dict[str, Any]):
        # Isolated: the folder of the script holds modules named as those of the standard library.
        command = [python, "-I", decode_peers.__file__, json.dumps(spec)]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by close
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
            )
        except OSError as error:
            raise GeexError(f"{python}: {error.strerror}", "give --peer-python a Python") from None

    def call(self, method: str, *args: Any) -> Any:
        """Returns the answer of the method there."""
        assert self._process.stdin and self._process.stdout
        line = ""
        with contextlib.suppress(BrokenPipeError):
            print(
                json.dumps({"method": method, "args": args}), file=self._process.stdin, flush=True
            )
            line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            last = (self._log.read().strip().splitlines() or ["no message"])[-1]
            raise GeexError(f"the peers' process died: {last}", "out of memory? a smaller --preset")
        answer = json.loads(line)
        if "error" in answer:
            raise GeexError(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=10)
        self._process.kill()
        self._process.wait()
        self._log.close()
