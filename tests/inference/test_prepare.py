"""Parameters laid out for a CPU: the same tokens, and no weight is copied in a step."""

import functools
import gc
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.inference import (
    Decoding,
    Engine,
    EngineConfig,
    Request,
    SamplingParams,
    generate_tokens,
    prepare,
)
from geex_jax.inference.decode import _decode
from geex_jax.inference.sampling import most_likely
from geex_jax.models import ModelConfig, Transformer
from geex_jax.quantize import quantize_params
from tests.inference.helpers import ByteTokenizer, small_model

MODULE = importlib.import_module("geex_jax.inference.prepare")
CONFIG = ModelConfig(
    vocab_size=64, context_length=32, d_model=32, num_heads=2, num_layers=2, d_ff=96
)
PROMPTS = [[1, 2, 3], [5]]


@pytest.fixture(scope="module")
def trees():
    tokens = jnp.zeros((1, 4), jnp.int32)
    params = jax.jit(Transformer(CONFIG).init)(jax.random.key(0), tokens)["params"]
    return {"float": params, "int8": quantize_params(params)}


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_the_same_tokens_and_no_copies_of_weights(trees, kind, monkeypatch):
    monkeypatch.setenv("GEEX_KERNELS", "off")
    model, params = prepare(Transformer(CONFIG), trees[kind], least=0)
    assert not model.config.scan_layers and "layers" not in params
    up = params["layers_1"]["mlp"]["up"]
    assert up["kernel_out" if kind == "float" else "kernel_int8"].shape == (96, 32)
    again = prepare(model, params, least=0)[1]
    jax.tree.map(np.testing.assert_array_equal, again, params)
    expected = generate_tokens(Transformer(CONFIG), trees[kind], PROMPTS, max_new_tokens=6)
    assert generate_tokens(model, params, PROMPTS, max_new_tokens=6) == expected
    decoding = Decoding(model, params, PROMPTS, max_new_tokens=6)
    lowered = _decode.lower(model, params, decoding._state, decoding._request, jnp.int32(4))
    text = lowered.compile().as_text()
    weight = r"(f32|s8)\[(96,32|32,96)\]"
    assert re.search(weight, text)
    copies = [x for x in text.splitlines() if re.search(rf"= {weight}\S* (copy|fusion|dynamic)", x)]
    assert not copies


def test_16_bits_are_cast_once_and_small_trees_stay(trees):
    model = Transformer(CONFIG.replace(dtype="bfloat16"))
    assert prepare(model, trees["float"]) == (model, trees["float"])
    _, params = prepare(model, trees["float"], least=0)
    kernel = params["top_query"]["layer"]["mlp"]["down"]["kernel_out"]
    assert kernel.dtype == jnp.bfloat16 and kernel.shape == (32, 96)
    assert params["embedding"]["tokens"].dtype == jnp.float32  # sums of tables are float32


def live_bytes():
    return sum(x.nbytes for x in jax.live_arrays())


@pytest.mark.parametrize(("kind", "consume"), [("float", True), ("int8", True), ("float", False)])
def test_an_original_goes_as_soon_as_its_copies_are_there(trees, kind, consume, monkeypatch):
    gc.collect()
    before = live_bytes()
    params = jax.tree.map(jnp.copy, trees[kind])
    whole = live_bytes() - before
    largest = max(x.nbytes for x in jax.tree.leaves(params))
    table = params["embedding"]["tokens"]
    copies, seen = MODULE._copies, []

    def measured(path, leaf, *settings):
        made = copies(path, leaf, *settings)  # and here the original is still held
        seen.append(live_bytes() - before)
        return made

    monkeypatch.setattr(MODULE, "_copies", measured)
    _, new = prepare(Transformer(CONFIG), params, least=0, consume=consume)
    peak = max(seen)
    if consume:
        assert not params and whole < peak <= whole + largest
        assert live_bytes() - before == pytest.approx(whole, abs=4096)
    else:  # whose params stay: twice what is copied
        jax.tree.map(np.testing.assert_array_equal, params, trees[kind])
        assert peak > 1.9 * (whole - table.nbytes)
    assert new["embedding"]["tokens"] is table  # what is not copied is the same array
    assert jax.tree.all(jax.tree.map(lambda x: not x.is_deleted(), new))


def test_an_engine_lays_its_models_out_and_may_give_up_the_originals(monkeypatch):
    """The draft model too is laid out: the tokens are those without it, and it is kept."""
    monkeypatch.setattr("geex_jax.inference.engine.prepare", functools.partial(prepare, least=0))
    model, params = small_model()
    noise = jax.tree.map(lambda x: x * 1.02 if x.ndim > 1 else x, params)
    sizes = {"slots": 2, "batches": (2,), "windows": (96,), "prefix_cache_bytes": 0, "steps": 4}
    plain = Engine(model, params, ByteTokenizer(), EngineConfig(**sizes), consume=True)
    assert not params and "kernel_out" in plain.programs.weights[0]["layers_2"]["mlp"]["up"]
    again = plain.programs.weights[0]
    guessing = Engine(
        Transformer(model.config.replace(scan_layers=False)), again, ByteTokenizer(),
        EngineConfig(**sizes, speculate=2), draft=(model, noise), consume=True,
    )  # fmt: skip
    assert "layers" in noise and guessing.programs.weights[0] is again  # nothing left to do
    assert guessing.programs.weights[1]["layers_0"]["mlp"]["up"]["kernel_out"].shape == (64, 32)
    found = []
    for engine in (plain, guessing):
        asked = SamplingParams(16, 0.8, seed=5, ignore_eos=True)
        ticket = engine.submit(Request((100, 101, 102), asked))
        while engine.turn():
            pass
        found.append(ticket.result(0)[0].tokens)
    assert found[0] == found[1] and len(found[0]) == 16
    stats = guessing.stats()
    assert 0 < stats["draft_accepted"] < stats["draft_proposed"]


def test_most_likely_is_the_first_of_equals():
    logits = jnp.asarray([[0.0, 3, 3, 1], [-jnp.inf] * 4, [jnp.nan] * 4, [1, 2, 3, 4]])
    assert most_likely(logits).tolist() == [1, 0, 0, 3]
