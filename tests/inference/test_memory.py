"""int8 weights are int8 in memory: bytes of live arrays, and what decode needs beside them."""

import gc

import jax
import jax.numpy as jnp
import pytest

from geex_jax.inference import Decoding, Engine, EngineConfig, generate_tokens, warming
from geex_jax.inference.decode import _decode
from geex_jax.models import ModelConfig, Transformer
from geex_jax.quantize import quantize_params, size_in_bytes
from tests.inference.helpers import ByteTokenizer

pytestmark = pytest.mark.optimized

CONFIG = ModelConfig(
    vocab_size=256, context_length=64, d_model=128, num_heads=2, num_layers=12, d_ff=512
)
KERNELS = 12 * 128 * 128  # weights in the linears of one block


def live_bytes():
    gc.collect()
    return sum(x.nbytes for x in jax.live_arrays())


def fresh(config):
    model = Transformer(config)
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]


def test_live_arrays_shrink_to_a_byte_a_weight_and_the_model_still_generates():
    start = live_bytes()
    model, params = fresh(CONFIG)
    full = live_bytes() - start
    params = quantize_params(params, 8)
    small = live_bytes() - start
    linears = 13 * KERNELS
    assert full - small == pytest.approx(3 * linears, rel=0.02)  # less the scales
    assert small < 0.35 * full and size_in_bytes(params) == pytest.approx(small, abs=4096)
    assert len(generate_tokens(model, params, [[1, 2]], max_new_tokens=4)[0]) == 4
    # Afterwards too there is no float copy of the weights.
    assert live_bytes() - start == pytest.approx(small, abs=4096)


@pytest.mark.parametrize("bits", [8, 4])
def test_decode_keeps_no_float_copy_of_the_weights(bits):
    model, params = fresh(CONFIG)
    params = quantize_params(params, bits)
    decoding = Decoding(model, params, [[1, 2, 3]], max_new_tokens=40)
    compiled = _decode.lower(
        model, params, decoding._state, decoding._request, jnp.int32(8)
    ).compile()
    # Of 13 blocks two are float at a time: one of the stack, and the top one.
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * KERNELS * 4 * 1.2
    carried = loop_state(compiled.as_text())
    assert "s8[12,512,128]" in carried or "u8[12,512,64]" in carried
    assert "f32[12,512,128]" not in carried and "f32[12,128,512]" not in carried
    # The top query layer is not in the stack; its kernels are carried as integers too.
    assert "s8[512,128]" in carried or "u8[512,64]" in carried
    assert "f32[512,128]" not in carried and "f32[128,512]" not in carried


def loop_state(text):
    """The types that the while loops of a compiled program carry."""
    return " ".join(line for line in text.splitlines() if " while(" in line)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_engines_programs_copy_neither_cache_nor_weights(bits):
    model, params = fresh(CONFIG)
    params = quantize_params(params, bits)
    sizes = EngineConfig(
        slots=4, batches=(2, 4), windows=(32, 64), prefill_chunk=16, speculate=2,
        prefix_cache_bytes=1 << 21,
    )  # fmt: skip
    engine = Engine(model, params, ByteTokenizer(), sizes)
    cache = engine.programs.state.cache
    half = cache.key.nbytes // 2  # of keys alone
    seen = set()
    for label, key, given in warming.plan(engine):
        kind = label.split()[0]
        # One window of each kind is enough, the smaller one.
        if (kind, "guessed" in label) in seen or (bits == 4 and kind not in ("decode", "prefill")):
            continue
        seen.add((kind, "guessed" in label))
        compiled = engine.programs.lower(key, given).compile()
        memory, text = compiled.memory_analysis(), compiled.as_text()
        if kind != "keep":  # it gives the pool up, not the state
            assert memory.alias_size_in_bytes >= cache.key.nbytes + cache.value.nbytes, label
        whole = f"f32[{','.join(map(str, cache.key.shape))}]"
        copies = [line for line in text.splitlines() if f"= {whole}" in line and " copy(" in line]
        assert not copies, label
        assert memory.temp_size_in_bytes < half + 2 * KERNELS * 4 * 1.2, label
        if kind in ("decode", "prefill"):
            carried = loop_state(text)
            assert "s8[12,512,128]" in carried or "u8[12,512,64]" in carried
            for shape in ("[12,512,128]", "[12,128,512]", "[512,128]", "[128,512]"):
                assert f"f32{shape}" not in carried, label
    assert {kind for kind, _ in seen} >= {"decode", "prefill"}
