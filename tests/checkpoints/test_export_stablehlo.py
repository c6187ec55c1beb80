"""StableHLO programs: greedy tokens of a process that cannot import this library are ours."""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from geex_jax import checkpoints
from geex_jax.checkpoints import export, stablehlo
from geex_jax.errors import GeexError
from geex_jax.inference import generate_tokens
from geex_jax.models import ModelConfig, Transformer
from geex_jax.quantize import quantize_params

flatbuffers = pytest.importorskip("flatbuffers")
CODEGEEX = ModelConfig(
    vocab_size=40, context_length=32, d_model=64, num_heads=2, num_layers=2, d_ff=96
)
ROTARY = CODEGEEX.replace(
    position="rotary", top_query_layer=False, tied_head=False, num_kv_heads=1, norm="rmsnorm"
)
PROMPTS = [[5, 17, 33, 2], [8, 9]]
# Any import of this library, or of what it is built on but jax, ends the process.
BLOCK = """
import atexit, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"geex_jax", "flax", "orbax", "tensorstore", "optax"}:
            raise ImportError(f"blocked: {name}")
sys.meta_path.insert(0, Block())
atexit.register(lambda: print("modules", *sorted({m.split(".")[0] for m in sys.modules})))
"""


def params_of(config, seed=0):
    model = Transformer(config)
    params = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 4), jnp.int32))["params"]
    return jax.tree.map(lambda x: x * 8 if x.ndim > 1 else x, params)


def run_alone(folder, tmp_path, new):
    """The folder's own script in a process without this library; its rows of tokens."""
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    paths = f"{tmp_path}:{pathlib.Path(flatbuffers.__file__).parent.parent}"
    words = [f"--tokens={','.join(map(str, prompt))}" for prompt in PROMPTS]
    done = subprocess.run(
        [sys.executable, folder / "run.py", *words, f"--new={new}"],
        capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *rows, modules = done.stdout.splitlines()
    assert modules.startswith("modules ") and "geex_jax" not in modules.split()
    return [[int(token) for token in row.split(",")] for row in rows]


@pytest.mark.parametrize(("config", "policy"), [(CODEGEEX, None), (ROTARY, "int4-g32+embedding")])
def test_tokens_of_a_process_without_the_library_are_ours(tmp_path, config, policy):
    params = params_of(config)
    params = quantize_params(params, policy) if policy else params
    checkpoints.save_model(tmp_path / "model", config, params)
    folder = export(tmp_path / "model", tmp_path / "out", format="stablehlo",
                    programs=stablehlo.Options(slots=24))  # fmt: skip
    about = json.loads((folder / "manifest.json").read_text())
    decode = about["programs"]["decode"]
    names = [name for name, _, _ in decode["inputs"]]
    leaf = "kernel_int4" if policy else "kernel"
    assert f"weights/layers/mlp/up/{leaf}" in names and "cache/length" in names
    assert decode["inputs"][-1][1][1:3] == ["b", "24"] and about["platforms"][1] == "tpu"
    text = (folder / "decode.mlir").read_text()
    assert ("xi8>" in text or "xui8>" in text) == (policy is not None)
    assert set(re.findall(r"custom_call @(\w+)", text)) <= {"shape_assertion", "Sharding"}
    got = run_alone(folder, tmp_path, 12)
    assert got == generate_tokens(Transformer(config), params, PROMPTS, max_new_tokens=12)
    assert len({token for row in got for token in row}) > 3


def test_what_cannot_be_exported_is_one_line(tmp_path):
    config = CODEGEEX
    checkpoints.save_model(tmp_path / "model", config, params_of(config))
    for options, words in (
        (stablehlo.Options(platforms=("cpu", "abacus")), "unknown platform 'abacus'"),
        (stablehlo.Options(slots=64), "--slots 64 in a context of 32"),
    ):
        with pytest.raises(GeexError, match=words):
            export(tmp_path / "model", tmp_path / "out", format="stablehlo", programs=options)
    with pytest.raises(GeexError, match="are for stablehlo"):
        export(tmp_path / "model", tmp_path / "out", programs=stablehlo.Options())
    assert not (tmp_path / "out").exists()
