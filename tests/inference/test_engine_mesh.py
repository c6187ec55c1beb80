"""An engine over two devices: the same tokens as on one, and what lies where."""

import jax
import pytest

from geex_jax.errors import GeexError
from geex_jax.inference import Engine, EngineConfig, Request, SamplingParams, generate_tokens
from geex_jax.inference.state import check_mesh
from geex_jax.parallel import make_mesh, shardings
from geex_jax.quantize import quantize_params
from tests.inference.helpers import ByteTokenizer, small_model

SIZES = EngineConfig(
    slots=2, batches=(2,), windows=(96,), prefill_chunk=32, prefix_cache_bytes=1 << 19,
    prefix_block=8,
)  # fmt: skip
TEXT = list(b"return a + b\nreturn a + c\nreturn a")


@pytest.mark.skipif(len(jax.devices()) < 2, reason="needs two devices")
def test_two_devices_draw_the_tokens_of_one():
    model, params = small_model()
    params = quantize_params(params)
    mesh = make_mesh({"tensor": 2})
    placed = jax.device_put(params, shardings(mesh, params, uneven=True))
    engine = Engine(model, placed, ByteTokenizer(), SIZES, mesh=mesh)
    greedy = SamplingParams(max_new_tokens=16, ignore_eos=True)
    drawn = SamplingParams(max_new_tokens=16, ignore_eos=True, temperature=1.0, seed=1, n=2)
    tickets = [engine.submit(Request(tuple(TEXT), p)) for p in (drawn, greedy)]
    while engine.turn():
        pass
    found = [s.tokens for t in tickets for s in t.result(0)]
    heat = [1.0, 1.0, 0.0]
    assert found == generate_tokens(
        model, params, [TEXT] * 3, temperature=heat, seed=1, max_new_tokens=16, vocab_limit=257
    )
    stats = engine.stats()
    assert stats["prefix_hits"] > 0
    for cache in (engine.programs.state.cache.key, engine.programs.pool["key"]):
        assert cache.sharding.shard_shape(cache.shape)[3] == cache.shape[3] // 2


def test_other_axes_are_refused():
    with pytest.raises(GeexError, match="fsdp=2"):
        check_mesh(make_mesh({"fsdp": 2}))
