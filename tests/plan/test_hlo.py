"""The parser of optimized HLO, on recorded pieces and on a program compiled here."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.plan import collectives, hlo, traffic

# Pieces of optimized HLO as libtpu 0.0.42 prints it, cut short.
# scan: 39 layers; a sliced weight is gathered by an asynchronous fusion (one channel, three
# appearances), a gradient is all-reduced whole; a kernel's text has lines that begin with }.
# mixed: two slices of four; a reduce-scatter as TPUs print it, an exchange between slices by the
# host's runtime, an all-reduce across them, a permute in a matmul, what runs on another core.
FOLDER = pathlib.Path(__file__).parent / "snippets"
SCAN = (FOLDER / "scan.hlo").read_text()
MIXED = (FOLDER / "mixed.hlo").read_text()
MB = 2 * 5120 * 5120  # bytes of a gathered weight


@pytest.fixture(scope="module")
def scan():
    return hlo.Module(SCAN)


@pytest.fixture(scope="module")
def mixed():
    found = collectives.find(hlo.Module(MIXED), [0] * 4 + [1] * 4)
    return {(c.kind, c.how): c for c in found}


def test_a_kernel_text_with_closing_braces_ends_no_computation(scan):
    body = scan.computations["body.1"]
    assert body.root.name == "tuple.2" and "fusion.9" in body.by_name
    assert set(body.by_name) >= {"kernel.1", "all-reduce.5"} and "0" not in body.by_name
    assert scan.entry.name == "main.1"


def test_types_shapes_and_memory_spaces():
    arrays = hlo.arrays_of(
        "(bf16[20,5120]{1,0:T(8,128)(2,1)S(1)}, s4[3]{0}, pred[], /*index=3*/f32[2])"
    )
    assert [a.dtype for a in arrays] == ["bf16", "s4", "pred", "f32"]
    assert [a.bytes for a in arrays] == [2 * 20 * 5120, 2, 1, 8]
    assert [a.space for a in arrays] == [1, 0, 0, 0]


def test_loops_run_as_often_as_their_condition_says(scan):
    assert scan.runs["body.1"] == 39 and scan.runs["async_start.1"] == 39
    assert not scan.unknown_loops


@pytest.mark.parametrize(
    ("change", "rounds"),
    [
        (("%limit.1 = s32[]{:T(128)} constant(39)", "%limit.1 = s32[]{:T(128)} constant(7)"), 7),
        (("%one.1 = s32[]{:T(128)} constant(1)", "%one.1 = s32[]{:T(128)} constant(2)"), 20),
        (("%zero.2 = s32[]{:T(128)} constant(0)", "%zero.2 = s32[]{:T(128)} constant(9)"), 30),
        (("direction=LT", "direction=GT"), 1),
        (("body=%body.1", 'body=%body.1, backend_config={"known_trip_count":{"n":"5"}}'), 5),
    ],
)
def test_trip_counts(change, rounds):
    module = hlo.Module(SCAN.replace(*change))
    assert module.runs["body.1"] == rounds
    assert module.unknown_loops == (["while.1"] if "GT" in change[1] else [])


def test_an_asynchronous_collective_counts_once(scan):
    found = collectives.find(scan, [0] * 256)
    gather, reduce = sorted(found, key=lambda c: c.kind)
    assert (gather.kind, gather.how, gather.asynchronous) == ("all-gather", "fused", True)
    assert (gather.count, gather.group, gather.bytes) == (39, 256, MB)
    assert gather.ici == pytest.approx(MB * 255 / 256)
    assert (reduce.kind, reduce.how, reduce.asynchronous) == ("all-reduce", "sync", False)
    assert reduce.ici == pytest.approx(2 * MB * 255 / 256)
    assert "attention/query" in gather.scope


def test_gradients_that_are_reduced_whole_are_found(scan):
    found = collectives.find(scan, [0] * 256)
    assert [c.kind for c in collectives.full_gradients(found, {5120 * 5120})] == ["all-reduce"]
    assert collectives.full_gradients(found, {5120 * 20480}) == []


def test_a_reduce_scatter_in_its_tpu_form(mixed):
    one = mixed["reduce-scatter", "sync"]
    assert {c.kind for c in mixed.values()} >= {"reduce-scatter", "all-reduce", "all-gather"}
    assert one.group == 4 and one.slices == 1


def test_bytes_on_the_wires_of_every_kind():
    found = collectives.find(hlo.Module(MIXED), [0] * 4 + [1] * 4)
    scatters = sorted(c.ici for c in found if c.kind == "reduce-scatter")
    assert scatters == [75 * 4, 2 * 1024 * 256 * 3 / 4]
    kinds = {(c.kind, c.how): c for c in found}
    gather = kinds["all-gather", "start/done"]
    assert gather.bytes == 256 * 8 * 2 and gather.asynchronous
    assert not kinds["all-gather", "awaited at once"].asynchronous
    permute = kinds["collective-permute", "windowed"]
    assert permute.ici == 192 * 768 * 2 and permute.group == 4
    assert kinds["all-reduce", "call-start"].ici == 2 * 4000 * 3 / 4


def test_what_crosses_slices_goes_over_the_data_centre(mixed):
    between = mixed["all-reduce", "megascale"]
    assert between.dcn == 2 * 256 * 256 * 2 / 2 and between.ici == 0 and between.asynchronous
    crossing = mixed["all-reduce", "sync"]
    assert (crossing.group, crossing.slices) == (2, 2)
    assert (crossing.ici, crossing.dcn) == (0, 4000.0)
    same = {(c.kind, c.how): c for c in collectives.find(hlo.Module(MIXED), [0] * 8)}
    assert same["all-reduce", "sync"].dcn == 0


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,2},{1,3}}", [[0, 2], [1, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", [[0, 1, 2, 3]]),
        (
            "replica_groups=mesh['a'=2,'b'=3], device_ids=([3,2]T(1,0)) {'b'}",
            [[0, 2, 4], [1, 3, 5]],
        ),
        ("replica_groups=mesh['a'=4] {'a':(1)2}", [[0, 2], [1, 3]]),
        ("replica_groups={}", [[0, 1, 2, 3]]),
    ],
)
def test_groups_in_all_their_forms(text, groups):
    found = collectives.groups_of(
        hlo.Instruction("a", "all-reduce", "f32[]", [], f", {text}, x"), 4
    )
    assert found.tolist() == groups


@pytest.mark.parametrize("kind", ["all-gather", "reduce-scatter", "all-to-all"])
def test_ring_formulas(kind):
    assert collectives.wire(kind, 800, 8) == (700, 0)
    assert collectives.wire("all-reduce", 800, 8) == (1400, 0)
    ici, dcn = collectives.wire("all-reduce", 800, 8, slices=2)
    assert ici == 2 * 800 * 3 / 4 and dcn == 2 * 800 / 4 / 2


def test_traffic_counts_slices_and_not_stacks(scan):
    found = traffic.measure(scan)
    x = 2 * 2048 * 5120
    # Each round: a slice in; a weight gathered, twice read, once written by the all-reduce; the
    # kernel and the matmul each read and write the activations.
    round_bytes = 2 * 20 * 5120 + MB + MB + 4 * x + 2 * MB
    assert found.hbm == pytest.approx(39 * round_bytes)
    assert found.loops == found.hbm and found.cycles == 39 * 1100 and found.kernels == 39


def test_a_kernel_counts_by_what_it_declares_and_an_update_in_place_by_the_update():
    cache = "bf16[40,2,2048,5120]{3,2,1,0:T(8,128)(2,1)}"
    text = f"""HloModule step, is_scheduled=true

ENTRY %main.1 (c.1: bf16[40,2,2048,5120], q.1: bf16[2,5120], i.1: s32[]) -> bf16[40,2,2048,5120] {{
  %c.1 = {cache} parameter(0)
  %q.1 = bf16[2,5120]{{1,0}} parameter(1)
  %i.1 = s32[] parameter(2)
  %a.1 = bf16[2,5120]{{1,0}} custom-call(%c.1, %q.1), custom_call_target="tpu_custom_call", DECLARED
  %u.1 = bf16[1,2,1,5120]{{3,2,1,0}} bitcast(%a.1)
  ROOT %d.1 = {cache} dynamic-update-slice(%c.1, %u.1, %i.1, %i.1, %i.1, %i.1)
}}
"""
    declared = 'backend_config={"cost_estimate":{"flops":"1","bytes_accessed":"43000000"}}'
    found = traffic.measure(hlo.Module(text.replace("DECLARED", declared)))
    assert found.hbm == pytest.approx(43e6 + 2 * 20480, abs=100)
    silent = traffic.measure(hlo.Module(text.replace("DECLARED", "backend_config={}")))
    assert silent.hbm == pytest.approx(2 * 40 * 2 * 2048 * 5120, rel=1e-4)


def test_of_a_conditional_all_branches_count_or_the_lightest():
    text = """HloModule step, is_scheduled=true

%dear.1 (x.1: f32[32,512]) -> f32[32,512] {
  %x.1 = f32[32,512]{1,0} parameter(0)
  %y.1 = f32[32,512]{1,0} negate(%x.1)
  ROOT %z.1 = f32[32,512]{1,0} sort(%y.1), dimensions={1}
}

%cheap.1 (x.2: f32[32,512]) -> f32[32,512] {
  %x.2 = f32[32,512]{1,0} parameter(0)
  ROOT %y.2 = f32[32,512]{1,0} negate(%x.2)
}

ENTRY %main.1 (p.1: pred[], x.3: f32[32,512]) -> f32[32,512] {
  %p.1 = pred[] parameter(0)
  %x.3 = f32[32,512]{1,0} parameter(1)
  ROOT %c.1 = f32[32,512]{1,0} conditional(%p.1, %x.3, %x.3), BRANCHES
}
"""
    for branches in (
        "true_computation=%dear.1, false_computation=%cheap.1",
        "branch_computations={%cheap.1, %dear.1}",
    ):
        given, each = text.replace("BRANCHES", branches), 2 * 4 * 32 * 512
        assert traffic.measure(hlo.Module(given)).hbm == 3 * each
        assert traffic.measure(hlo.Module(given, lightest=True)).hbm == each


def test_copies_of_whole_arrays_in_loops_are_found():
    text = SCAN.replace(
        "  %next.1 =", "  %copy.77 = bf16[39,20,5120]{1,2,0:T(8,128)(2,1)} copy(%w.1)\n  %next.1 ="
    )
    found = traffic.copies(hlo.Module(text), [39 * 20 * 5120], "loops")
    assert [(c.name, c.count) for c in found] == [("copy.77", 39)]
    assert traffic.copies(hlo.Module(SCAN), [39 * 20 * 5120], "loops") == []


def test_a_program_compiled_here():
    mesh = jax.make_mesh((4,), ("x",), devices=jax.devices()[:4],
                         axis_types=(jax.sharding.AxisType.Auto,))  # fmt: skip
    rows = jax.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    whole = jax.NamedSharding(mesh, jax.sharding.PartitionSpec())

    @jax.jit
    def run(x, ws):
        def body(c, w):
            c = jax.lax.with_sharding_constraint(c @ w, rows)
            return c + jax.lax.with_sharding_constraint(jnp.sum(c, 0), whole), None

        return jax.lax.scan(body, x, ws)[0]

    x = jax.ShapeDtypeStruct((8, 128), jnp.float32, sharding=rows)
    ws = jax.ShapeDtypeStruct((6, 128, 128), jnp.float32, sharding=whole)
    module = hlo.Module(run.lower(x, ws).compile().as_text())
    found = collectives.find(module, [0] * 4)
    assert [(c.kind, c.count, c.group, c.bytes) for c in found] == [("all-reduce", 6, 4, 512)]
    assert traffic.measure(module).hbm > 6 * 128 * 128 * 4
    assert np.isfinite(traffic.measure(module).cycles)
