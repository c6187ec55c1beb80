"""The bench against nanodo: its flags, its counting of cycles, and a whole run.

The whole run is against a stand-in with nanodo's interface; against nanodo itself where
GEEX_NANODO names a clone of it.
"""

import json
import os
import pathlib

import numpy as np
import pytest

from geex_jax import cli
from geex_jax.benchmark import compiled, peer_nanodo
from geex_jax.benchmark import peer_step_bench as bench

STAND_IN = pathlib.Path(__file__).parent / "nanodo_stand_in"
SMALL = "--preset geex-3m --batch-size 1 --seq-len 16 --rounds 1"


def run(capsys, flags):
    status = cli.main(["bench", "peer-step", *flags.split()])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_without_a_peer_it_is_skipped_with_a_reason(capsys):
    status, out, _ = run(capsys, SMALL)
    assert status == 0 and out.startswith("skipped: no peer: give a clone of github.com")
    status, out, _ = run(capsys, f"{SMALL} --json")
    assert "no peer" in json.loads(out)["skipped"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--peer /nowhere", "--peer /nowhere holds no nanodo/train.py; give a clone of"),
        ("--rounds 0", "--rounds 0; give a number above 0"),
        (f"--peer {STAND_IN} --preset geex-3", "unknown model preset 'geex-3'"),
        (f"--peer {STAND_IN} --seq-len 4096", "longer than the context of geex-20m; give at most"),
        ("--only gpu", "invalid choice: 'gpu'"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, flags, message):
    status, _, error = run(capsys, flags)
    assert status == 2 and message in error and error.count("\n") == 1


def folders():
    yield pytest.param(str(STAND_IN), id="stand-in")
    nanodo = os.environ.get("GEEX_NANODO")
    reason = "GEEX_NANODO names no clone of nanodo"
    yield pytest.param(nanodo, id="nanodo", marks=pytest.mark.skipif(not nanodo, reason=reason))


@pytest.mark.parametrize("folder", list(folders()))
def test_both_sides_train_alike(capsys, folder):
    cores = min(os.sched_getaffinity(0))
    flags = f"--peer {folder} --only cpu {SMALL} --json --cores {cores}"
    status, out, error = run(capsys, flags)
    assert status == 0, error
    cpu = json.loads(out)["cpu"]
    assert cpu["largest_relative_difference"] < bench.TOLERANCE["float32"]
    ours, peers = cpu["losses"][bench.OURS], cpu["losses"][bench.PEER]
    assert ours[4] < ours[0] and peers[4] < peers[0], "nothing was learned"
    # Our norms have biases: two of each block, and the last norm's.
    assert cpu["parameters"][bench.OURS] - cpu["parameters"][bench.PEER] == (2 * 8 + 1) * 128
    assert set(cpu["tokens_per_second"]) == {bench.OURS, bench.PEER, bench.BARE}
    assert "times the faster nanodo" in bench.report({"cpu": cpu})


def test_a_peer_that_does_not_import_is_one_line(tmp_path, capsys):
    package = tmp_path / "nanodo"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "train.py").write_text("import nothing_of_this_name\n")
    status, _, error = run(capsys, f"--peer {tmp_path} --only cpu {SMALL}")
    assert status == 2 and "does not import: ModuleNotFoundError" in error


def test_batches_are_as_nanodo_reads_them():
    batch = bench.batch_of(7, 3, 50, 0)
    assert batch["tokens"].min() == 1 and batch["tokens"].max() == 6  # 0 is its padding
    np.testing.assert_array_equal(batch["targets"][:, :-1], batch["tokens"][:, 1:])
    assert batch["loss_mask"][:, :-1].all() and not batch["loss_mask"][:, -1].any()


def test_an_unknown_tree_is_refused():
    from geex_jax.errors import GeexError

    ours = {
        "embedding": {"tokens": np.zeros((4, 2)), "positions": np.zeros((3, 2))},
        "final_norm": {"scale": np.ones(2)},
        "layers": {},
    }
    good = {
        "embed": {"embedding": np.zeros((4, 2))},
        "pos_embed": {"embedding": np.zeros((3, 2))},
        "out_ln": {"scale": np.ones(2)},
    }
    assert peer_nanodo.adopt(good, ours)["embed"]["embedding"].shape == (4, 2)
    with pytest.raises(GeexError, match="not those known here"):
        peer_nanodo.adopt({**good, "another": {"kernel": np.zeros(2)}}, ours)


HLO = """HloModule jit_step, entry_computation_layout={()->f32[]}

%fused (p: f32[]) -> f32[] {
  %p = f32[] parameter(0)
}

%cond (arg: (s32[], f32[])) -> pred[] {
  %arg = (s32[], f32[]) parameter(0)
  %limit = s32[]{:T(128)} constant(7)
  ROOT %less = pred[] compare(%arg, %limit), direction=LT
}

%inner (arg.1: f32[]) -> f32[] {
  %f1 = f32[] fusion(%arg.1), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"5"}
}

%body (arg.2: (s32[], f32[])) -> (s32[], f32[]) {
  %f2 = f32[] fusion(%x), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"10"}
  %w = (s32[], f32[]) while(%t), condition=%cond2, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
}

%dear (a: f32[]) -> f32[] {
  %f3 = f32[] fusion(%a), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"1000"}
}

ENTRY %main (a: f32[]) -> f32[] {
  %f4 = f32[] fusion(%a), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"100"}
  %w2 = (s32[], f32[]) while(%t), condition=%cond, body=%body
  %c = f32[] conditional(%i, %a, %a), branch_computations={%inner, %dear}
  %k = f32[] call(%a), to_apply=%inner
}
"""  # noqa: E501


def test_cycles_count_loops_calls_and_the_dearest_branch():
    assert compiled.estimated_cycles(HLO) == 100 + 7 * (10 + 3 * 5) + 1000 + 5


def test_the_compiler_of_a_tpu_is_asked(capsys):
    pytest.importorskip("libtpu", reason="no libtpu here")
    flags = "--only tpu --tpu-preset geex-3m --tpu-batch-size 4 --tpu-seq-len 128 --json"
    status, out, error = run(capsys, f"--peer {STAND_IN} {flags}")
    assert status == 0, error
    tpu = json.loads(out)["tpu"]
    for name in (bench.OURS, bench.PEER, bench.BARE):
        assert tpu[name]["estimated_cycles"] > 1e5 and tpu[name]["argument_bytes"] > 1e6
    # Parameters and two moments of 2.6M, over four chips, in float32.
    assert tpu[bench.OURS]["argument_bytes"] == pytest.approx(3 * 2.63e6, rel=0.1)
    assert "GiB/chip" in bench.report({"tpu": tpu})
