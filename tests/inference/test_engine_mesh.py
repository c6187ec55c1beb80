"""An engine over two devices: the same tokens as on one, and what lies where."""

import jax
import pytest

from geex_jax.errors import GeexError
from geex_jax.inference import Engine, EngineConfig, Request, SamplingParams
from geex_jax.parallel import make_mesh, shardings
from geex_jax.quantize import quantize_params
from tests.inference.helpers import ByteTokenizer, small_model

SIZES = EngineConfig(
    slots=2, batches=(2,), windows=(96,), prefill_chunk=32, prefix_cache_bytes=1 << 19,
    prefix_block=8, speculate=3, speculate_ngram=2,
)  # fmt: skip
TEXT = list(b"return a + b\nreturn a + c\nreturn a")


def tokens(engine):
    asked = [
        Request(tuple(TEXT), SamplingParams(max_new_tokens=20, ignore_eos=True)),
        Request(tuple(TEXT[:9]), SamplingParams(max_new_tokens=8, temperature=1.0, seed=1, n=2)),
        Request((*TEXT, 1), SamplingParams(max_new_tokens=8, logit_bias={5: 1.0})),
    ]
    tickets = [engine.submit(r) for r in asked]
    while engine.turn():
        pass
    return [s.tokens for t in tickets for s in t.result(0)]


@pytest.mark.skipif(len(jax.devices()) < 2, reason="needs two devices")
def test_two_devices_draw_the_tokens_of_one():
    model, params = small_model()
    params = quantize_params(params)
    mesh = make_mesh({"tensor": 2})
    placed = jax.device_put(params, shardings(mesh, params, uneven=True))
    engine = Engine(model, placed, ByteTokenizer(), SIZES, mesh=mesh)
    single = Engine(model, params, ByteTokenizer(), SIZES)
    assert tokens(engine) == tokens(single)
    stats = engine.stats()
    assert stats["draft_accepted"] > 0 and stats["prefix_hits"] > 0
    for cache in (engine.programs.state.cache.key, engine.programs.pool["key"]):
        assert cache.sharding.shard_shape(cache.shape)[3] == cache.shape[3] // 2
    assert single.stats()["drawn_tokens"] == stats["drawn_tokens"]


def test_other_axes_are_refused():
    mesh = make_mesh({"fsdp": 2})
    with pytest.raises(GeexError, match="fsdp=2"):
        Engine(*small_model(), ByteTokenizer(), SIZES, mesh=mesh)
