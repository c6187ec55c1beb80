"""The step: meshes, accumulation, decay, skips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer
from geex_jax.parallel import batch_sharding, make_mesh, use_mesh
from geex_jax.training.optimizer import OptimizerConfig, decay_mask, make_optimizer, schedule
from geex_jax.training.step import (
    StepConfig,
    init_state,
    jit_train_step,
    sharded_init,
    train_step,
)
from tests.models.running import apply

CONFIG = ModelConfig(
    vocab_size=256, context_length=32, d_model=64, num_layers=2, num_heads=4, d_ff=128
)
OPTIMIZER = OptimizerConfig(lr=1e-2, warmup=2, steps=20)


def batches(count: int, rows: int = 8, seed: int = 0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        data = rng.integers(0, 16, (rows, 33)).astype(np.int32)
        segments = np.ones((rows, 32), np.int32)
        segments[:, 20:] = 2
        mask = np.ones((rows, 32), np.float32)
        mask[:, 19] = 0
        positions = np.concatenate([np.arange(20), np.arange(12)]).astype(np.int32)
        yield {
            "tokens": data[:, :-1],
            "targets": data[:, 1:],
            "positions": np.broadcast_to(positions, (rows, 32)),
            "segment_ids": segments,
            "loss_mask": mask,
        }


def run(sizes, steps=4, config=CONFIG, step_config=None):
    mesh = make_mesh(sizes)
    model, optimizer = Transformer(config), make_optimizer(OPTIMIZER)
    state = sharded_init(mesh, lambda: init_state(model, optimizer, 3, step_config))
    losses = []
    with use_mesh(mesh):
        update = jit_train_step(mesh, state)
        for batch in batches(steps):
            placed = jax.device_put(batch, batch_sharding(mesh))
            state, metrics = update(state, placed)
            losses.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return np.array(losses), state


@pytest.fixture(scope="module")
def alone():
    return run({})


@pytest.mark.parametrize(
    "sizes",
    [
        {"data": 8},
        {"fsdp": 8},
        {"fsdp": 4, "tensor": 2},
        {"data": 2, "fsdp": 2, "tensor": 2},
        {"fsdp": 2, "sequence": 4},
        {"fsdp": 2, "sequence": 2, "tensor": 2},
    ],
    ids=lambda sizes: "x".join(f"{k}{n}" for k, n in sizes.items()),
)
def test_eight_devices_give_the_losses_of_one(alone, sizes):
    losses, state = run(sizes)
    np.testing.assert_allclose(losses, alone[0], rtol=2e-5)
    kernel = state.params["layers"]["mlp"]["up"]["kernel"]
    parts = sizes.get("fsdp", 1) * sizes.get("tensor", 1)
    assert kernel.addressable_shards[0].data.size * parts == kernel.size
    moment = state.opt_state[1][0].mu["layers"]["mlp"]["up"]["kernel"]
    assert moment.sharding == kernel.sharding


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_every_stage_of_zero_gives_the_losses_of_one_device(alone, zero):
    losses, state = run({"data": 2, "fsdp": 4}, step_config=StepConfig(zero=zero, accumulate=2))
    np.testing.assert_allclose(losses, alone[0], rtol=2e-5)
    kernel = state.params["layers"]["mlp"]["up"]["kernel"]
    assert kernel.sharding.is_fully_replicated
    moment = state.opt_state[1][0].mu["layers"]["mlp"]["up"]["kernel"]
    assert moment.addressable_shards[0].data.size * (4 if zero else 1) == kernel.size


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_zero_2_and_3_add_gradients_up_in_parts(zero):
    mesh = make_mesh({"fsdp": 8})
    config = StepConfig(zero=zero, accumulate=2)
    model, optimizer = Transformer(CONFIG), make_optimizer(OPTIMIZER)
    state = jax.eval_shape(lambda: init_state(model, optimizer, 3, config))
    batch = next(batches(1, rows=16))
    with use_mesh(mesh):
        text = jit_train_step(mesh, state).lower(state, batch).as_text()
    shape = "x".join(map(str, state.params["layers"]["mlp"]["up"]["kernel"].shape))
    said = [
        line
        for line in text.splitlines()
        if "sharding_constraint" in line and f"tensor<{shape}xf32>" in line
    ]
    assert said
    assert all(('"fsdp"' in line) == (zero > 1) for line in said), said


def test_the_constraints_stand_in_the_lowered_program():
    mesh = make_mesh({"fsdp": 4, "tensor": 2})
    model, optimizer = Transformer(CONFIG), make_optimizer(OPTIMIZER)
    state = sharded_init(mesh, lambda: init_state(model, optimizer))
    batch = next(batches(1))
    with use_mesh(mesh):
        text = jit_train_step(mesh, state).lower(state, batch).as_text()
    inside = [line for line in text.splitlines() if "sharding_constraint" in line]
    assert any('"tensor"' in line for line in inside), text[:2000]
    assert any('"data", "fsdp"' in line for line in inside)
    without = jax.jit(train_step).lower(state, batch).as_text()
    assert "sharding_constraint" not in without


@pytest.mark.parametrize("sizes", [{}, {"data": 2}])
def test_accumulation_changes_nothing(alone, sizes):
    losses, state = run(sizes, step_config=StepConfig(accumulate=4))
    np.testing.assert_allclose(losses, alone[0], rtol=2e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), state.params, alone[1].params
    )


@pytest.mark.parametrize("remat", ["full", "qkv", "dots", "minimal"])
def test_rematerialization_changes_nothing(alone, remat):
    losses, _ = run({}, config=CONFIG.replace(remat=remat))
    np.testing.assert_allclose(losses, alone[0], rtol=1e-5)


def test_bfloat16_is_close_to_float32(alone):
    losses, state = run({}, config=CONFIG.replace(dtype="bfloat16"))
    np.testing.assert_allclose(losses[:, 0], alone[0][:, 0], rtol=0.02)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state.params))


def test_dropout_is_random_reproducible_and_off_without_rng(alone):
    config = CONFIG.replace(dropout=0.1)
    first, state = run({}, config=config)
    again, _ = run({}, config=config)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - alone[0])[:, 0].max() > 1e-3
    tokens = jnp.arange(8)[None]
    with_rate = apply(Transformer(config), state.params, tokens)
    without = apply(Transformer(CONFIG), state.params, tokens)
    np.testing.assert_array_equal(with_rate, without)


def test_norms_and_biases_do_not_decay():
    shape = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    params = jax.eval_shape(Transformer(CONFIG).init, jax.random.key(0), shape)["params"]
    mask = decay_mask(params)
    flat = {
        "/".join(k.key for k in path): v for path, v in jax.tree_util.tree_leaves_with_path(mask)
    }
    assert {p.split("/")[-1] for p, v in flat.items() if v} == {"kernel", "tokens", "positions"}
    assert {p.split("/")[-1] for p, v in flat.items() if not v} == {"scale", "bias"}


def test_schedule_warms_up_and_ends_where_it_says():
    lr = schedule(OptimizerConfig(lr=1e-4, end_lr=1e-6, warmup=10, steps=100))
    values = [float(lr(i)) for i in (0, 5, 10, 55, 100, 200)]
    np.testing.assert_allclose(values, [0, 5e-5, 1e-4, 5.05e-5, 1e-6, 1e-6], rtol=1e-4, atol=1e-12)


def test_what_is_not_finite_is_skipped_and_counted():
    model, optimizer = Transformer(CONFIG), make_optimizer(OPTIMIZER)
    state = jax.jit(lambda: init_state(model, optimizer))()
    good, bad = batches(2)
    update = jax.jit(train_step)
    state, _ = update(state, good)
    poisoned = {**bad, "loss_mask": np.full_like(bad["loss_mask"], np.nan)}
    after, metrics = update(state, poisoned)
    assert metrics["skipped"] == 1 and metrics["not_finite"] == 1
    assert after.step == 2 and after.skipped == 1 and after.good == 1
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, after.opt_state, state.opt_state)
    final, metrics = update(after, bad)
    assert metrics["skipped"] == 0 and final.good == 2


def test_a_spike_is_skipped_once_the_window_is_half_full():
    model = Transformer(CONFIG)
    optimizer = make_optimizer(OptimizerConfig(lr=1e-3, warmup=1, steps=100))
    step_config = StepConfig(skip_sigma=4.0, skip_window=8)
    state = jax.jit(lambda: init_state(model, optimizer, config=step_config))()
    update = jax.jit(train_step)
    for batch in batches(4):
        state, metrics = update(state, batch)
        assert metrics["skipped"] == 0
    # The targets of another world: ids that training never showed, with loss far above the window.
    wild = next(batches(1, seed=9))
    huge = jax.tree.map(lambda x: x, state.params)
    huge["embedding"]["tokens"] = state.params["embedding"]["tokens"] * 100
    spiked, metrics = update(state.replace(params=huge), wild)
    assert metrics["skipped"] == 1 and metrics["not_finite"] == 0
    assert metrics["loss"] > metrics["limit"]
    jax.tree.map(np.testing.assert_array_equal, spiked.params, huge)


def test_a_batch_that_does_not_divide_is_refused():
    state = init_state(
        Transformer(CONFIG), make_optimizer(OPTIMIZER), config=StepConfig(accumulate=3)
    )
    with pytest.raises(GeexError, match="8 rows does not divide into 3"):
        train_step(state, next(batches(1)))
