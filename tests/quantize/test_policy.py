"""Policies: one table decides, what it does not name is an error; every format runs the same."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import geex_jax as geex
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer
from geex_jax.parallel import by_path, make_mesh, placer, shardings
from geex_jax.quantize import (
    NAMED,
    Policy,
    Quantization,
    dequantize_params,
    formats_of,
    parse,
    quantization_of,
    quantize_params,
)
from geex_jax.training import loss_fn

CONFIG = ModelConfig(
    vocab_size=48, context_length=16, d_model=64, num_heads=2, num_layers=2, d_ff=128
)
UNTIED = CONFIG.replace(tied_head=False, top_query_layer=False, position="rotary")


def params_of(config):
    tokens = jnp.zeros((1, 4), jnp.int32)
    params = jax.jit(Transformer(config).init)(jax.random.key(0), tokens)["params"]
    return jax.tree.map(lambda x: x * 6 if x.ndim > 1 else x, params)


@pytest.fixture(scope="module")
def params():
    return params_of(CONFIG)


def test_the_first_rule_that_matches_the_end_of_a_path_decides():
    policy = parse("top_query/.*=float, mlp/(up|down)=int4-g64, .*=int8")
    assert policy.format("top_query/layer/mlp/up").name == "float"
    assert policy.format("layers/mlp/up") == policy.format("layers_7/mlp/down") == (4, 64)
    assert policy.format("layers/attention/query").name == "int8"
    assert parse("value=int8").rule("layers/not_a_value") is None  # whole words of a path only
    assert parse(8) == parse("int8") and parse(policy) is policy
    for name in NAMED:
        table = parse(name)
        assert table.format("embedding/tokens").name == table.format("head").name == "float"
        both = parse(f"{name}+embedding")
        assert both.format("embedding/tokens").name == both.format("head").name == "int8"


def test_policies_from_json_and_files(tmp_path):
    rules = {"mlp/.*": "int4", ".*": "int8"}
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(rules))
    assert parse(json.dumps(rules)).rules == parse(str(file)).rules == tuple(rules.items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("int5", "did you mean int"),
        ("mlp/.*=int3", "unknown format 'int3'"),
        ("mlp/(=int8", "is no pattern"),
        ("mlp/.*=int8,int4", "policy rule 'int4'"),
        ("{broken", "policy"),
        ('{"a": 1}', "is no table"),
        ("nowhere.json", "No such file"),
        ("mlp/.*=int8", "layers/attention/.* holds a kernel and no rule of policy"),
        (".*=int8,layer/nowhere=int4", "decides about no weight of this model"),
        (".*=int4", "embedding/tokens=int8 before that rule"),
    ],
)
def test_a_policy_that_is_wrong_is_one_line_before_any_work(params, text, words):
    with pytest.raises(GeexError, match=words):
        quantize_params(params, text)


def test_official_rounding_has_no_groups(params):
    with pytest.raises(GeexError, match="no groups"):
        quantize_params(params, "int4-g32", "official")


def test_groups_are_the_formula_by_group(params):
    leaves = quantize_params(params, "int4-g32")["layers"]["mlp"]["down"]
    assert leaves["kernel_int4"].shape == (2, 64, 64) and leaves["kernel_scale"].shape == (2, 64, 4)
    kernel = np.asarray(params["layers"]["mlp"]["down"]["kernel"][1]).T.reshape(64, 4, 32)
    expected = np.abs(kernel).max(-1) / np.float32(7)
    np.testing.assert_array_equal(leaves["kernel_scale"][1], expected)
    back = dequantize_params({"layers": {"mlp": {"down": leaves}}})["layers"]["mlp"]["down"]
    error = np.abs(np.asarray(back["kernel"][1]).T.reshape(64, 4, 32) - kernel)
    assert np.all(error <= 0.5001 * expected[..., None]) and error.max() > 0.3 * expected.min()


@pytest.mark.parametrize(
    ("config", "policy"), [(CONFIG, "int8+embedding"), (UNTIED, "int4-g32+embedding")]
)
def test_a_quantized_model_computes_what_its_float_twin_does(config, policy):
    params = params_of(config)
    tokens = jnp.arange(12, dtype=jnp.int32)[None] % 48
    ones = jnp.ones((1, 12))
    batch = {"tokens": tokens, "targets": tokens + 1, "positions": jnp.arange(12)[None],
             "segment_ids": ones.astype(int), "loss_mask": ones}  # fmt: skip

    @jax.jit
    def run(tree):
        model = Transformer(config)
        return model.apply({"params": tree}, tokens), loss_fn(tree, batch, model)[0]

    quantized = geex.quantize(params, policy)
    held = formats_of(quantized)
    assert held["embedding/tokens"] == "int8" and held.get("head", "int8") == "int8"
    twin = dequantize_params(quantized)
    assert set(by_path(twin)) == set(by_path(params))
    (got, loss), (expected, exact) = run(quantized), run(twin)
    np.testing.assert_allclose(got, expected, atol=2e-4)
    np.testing.assert_allclose(loss, exact, rtol=1e-5)
    if config is UNTIED:
        assert quantization_of(quantized) == Quantization(4, "clean", 32)


def test_on_a_mesh_of_eight_it_is_the_same_and_stays_in_its_place(params):
    policy = Policy("mine", (("mlp/.*", "int4-g32"), (".*", "int8")))  # the table of tokens too
    expected = quantize_params(params, policy)
    mesh = make_mesh({"fsdp": 2, "tensor": 4})
    placed = jax.device_put(params, shardings(mesh, params))
    got = quantize_params(placed, policy, place=placer(mesh), consume=True)
    table = by_path(shardings(mesh, got, uneven=True))
    for path, leaf in by_path(got).items():
        assert leaf.sharding.is_equivalent_to(table[path], leaf.ndim), path
    ints = next(x for p, x in by_path(got).items() if p.startswith("layers/mlp/up/kernel_int"))
    assert ints.addressable_shards[0].data.shape[1:] == (32, ints.shape[2] // 2)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert placed["layers"]["mlp"]["up"]["kernel"].is_deleted()
    assert not placed["layers"]["mlp"]["up"]["bias"].is_deleted()
    # Without a table integers are split as their kernels were.
    whole = jax.device_put(params, shardings(mesh, params))
    free = quantize_params(whole, "int8")["layers"]["mlp"]["down"]
    spec = PartitionSpec(None, "fsdp", "tensor")
    assert free["kernel_int8"].sharding.is_equivalent_to(NamedSharding(mesh, spec), 3)
