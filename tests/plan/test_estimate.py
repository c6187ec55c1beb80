"""Bytes from shapes alone; the search and the scaling table that stand on them."""

import json
import math
import pathlib

import pytest

from geex_jax.cli import main
from geex_jax.errors import GeexError
from geex_jax.plan import experiments, scaling
from geex_jax.plan.estimate import SETS, estimate, mesh_sizes
from geex_jax.plan.jobs import Job, load
from geex_jax.plan.search import candidates
from geex_jax.plan.topology import parse
from geex_jax.training.metrics import count_params

pytestmark = pytest.mark.optimized

HERE = pathlib.Path(__file__).parent
TINY = str(HERE / "tiny.py")
BIG = str(HERE.parent.parent / "experiments" / "codegeex_13b.py")
PLAIN = "--config.model.attention=xla"  # traces faster than a kernel
SLICE = parse("v5e:2x2")


def of(*words, topology=SLICE):
    return estimate(load(Job(topology.name, config=TINY, overrides=(PLAIN, *words))), topology)


def test_parameters_and_optimizer_are_exact_and_activations_follow_the_shapes():
    whole, cut = of("--config.mesh.fsdp=1", "--config.mesh.data=4"), of()
    assert whole["elements"] == cut["elements"] > 900_000
    assert whole["parts"]["parameters"] == 4 * whole["elements"]
    assert whole["parts"]["optimizer"] == pytest.approx(8 * whole["elements"], abs=16)
    assert 4 * whole["elements"] / 4 < cut["parts"]["parameters"] < 4 * whole["elements"] / 3.5
    kept = "kept for the backward pass"
    assert cut["parts"][kept] == 3 * 2 * 256 * 128 * 2  # layers, rows, tokens, width, bytes
    assert of("--config.batch_size=16")["parts"][kept] == 2 * cut["parts"][kept]
    parted = of("--config.batch_size=16", "--config.accumulate=2")["parts"]
    assert parted[kept] == cut["parts"][kept]
    assert parted["gradients"] == SETS * cut["parts"]["gradients"]


def test_policies_that_keep_more_take_more_and_compute_less():
    found = [of(f"--config.model.remat={p}") for p in ("full", "qkv", "none")]
    kept = [f["parts"]["kept for the backward pass"] for f in found]
    assert kept[0] < kept[1] < kept[2]
    assert kept[1] - kept[0] == 3 * kept[0]  # query, key and value are as wide as the residual
    ratios = [f["flops_ratio"] for f in found]
    assert ratios[0] > ratios[1] > ratios[2] == pytest.approx(1)


def test_what_is_known_of_a_policy_holds_for_other_rows_and_meshes():
    job = Job("v5e:2x2", config=TINY, overrides=("--config.batch_size=16", PLAIN))
    for found in candidates(job):
        if "--config.model.remat=qkv" in found.words and "--config.mesh.tensor=2" in found.words:
            again = of("--config.batch_size=16", *found.words)
            assert found.total == pytest.approx(again["total"], rel=0.01)
            return
    pytest.fail("no candidate with a tensor axis")


def test_sizes_that_do_not_fill_the_slice_are_refused():
    assert mesh_sizes({"fsdp": -1, "tensor": 2}, 8)["fsdp"] == 4
    for sizes in ({"fsdp": 3}, {"fsdp": -1, "tensor": 3}, {"fsdp": -1, "data": -1}):
        with pytest.raises(GeexError, match="does not fill 8 devices"):
            mesh_sizes(sizes, 8)


def test_memory_only_says_fits_by_its_status(capsys):
    words = ["plan", "--config", BIG, "--memory-only", "--json", "--topology"]
    assert main([*words, "v5e:16x16"]) == 0
    large = json.loads(capsys.readouterr().out)
    assert large["fits"] and large["parts"]["parameters"] > 4 * 12.87e9 / 256
    assert "not compiled" in large["label"]
    assert main([*words, "v5e:2x2"]) == 1
    small = json.loads(capsys.readouterr().out)
    assert not small["fits"] and small["total"] > small["usable"]
    assert main(["plan", "--config", TINY, "--slice", "small", "--memory-only"]) == 0
    assert "batch 16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("topology", "rows", "remat", "compiled"),  # GiB, arguments + temporaries by libtpu 0.0.42.1
    [
        ("v5e:16x16", 1, "full", 4.68),
        ("v5e:16x16", 4, "ctx", 12.57),
        ("v6e:8x8", 8, "ctx", 28.33),
        ("v5p:4x4x8", 4, "minimal", 39.78),
    ],
)
def test_the_arithmetic_is_within_15_percent_of_what_was_compiled(
    topology, rows, remat, compiled, capsys
):
    chips = math.prod(int(n) for n in topology.split(":")[1].split("x"))
    # One part of the batch needs no sum of gradients; that is how the first was compiled.
    batch, parts = (chips, 1) if rows == 1 else (3072, 3072 // chips // rows)
    words = ["--topology", topology, f"--config.batch_size={batch}", f"--config.accumulate={parts}"]
    words += [f"--config.model.remat={remat}"]
    assert main(["plan", "--config", BIG, "--memory-only", "--json", *words]) == 0
    total = json.loads(capsys.readouterr().out)["total"] / 2**30
    assert total == pytest.approx(compiled, rel=0.15)


@pytest.mark.parametrize(
    ("name", "key", "compiled"),
    [("geex_1b", "v5e-8", 8.4), ("geex_6b", "v6e-16", 20.6), ("codegeex_13b", "v4-128", 24.53)],
)
def test_so_it_is_for_the_experiments_slices(name, key, compiled, capsys):
    path = str(HERE.parent.parent / "experiments" / f"{name}.py")
    assert main(["plan", "--config", path, "--slice", key, "--memory-only", "--json"]) == 0
    total = json.loads(capsys.readouterr().out)["total"] / 2**30
    assert total == pytest.approx(compiled, rel=0.15)


def test_entries_of_slices_are_overrides():
    assert experiments.slice_overrides(TINY, "small") == [
        "--config.batch_size=16", "--config.mesh.fsdp=4",
    ]  # fmt: skip
    assert load(Job("v5e:2x2", config=TINY, slice="small")).batch_size == 16
    late = load(Job("v5e:2x2", config=TINY, slice="small", overrides=("--config.batch_size=4",)))
    assert late.batch_size == 4
    with pytest.raises(GeexError, match="did you mean small"):
        experiments.find_slice(TINY, "smal")
    with pytest.raises(GeexError, match="has no SLICES"):
        experiments.find_slice(HERE / "test_hlo.py", "small")


@pytest.mark.parametrize("name", ["codegeex_13b", "geex_1b", "geex_6b"])
def test_every_slice_of_the_experiments_divides(name):
    path = HERE.parent.parent / "experiments" / f"{name}.py"
    for key, entry in experiments.slices_of(path).items():
        where = parse(entry["topology"], entry.get("slices", 1))
        config = load(Job(where.name, config=str(path), slice=key))
        sizes = mesh_sizes(config.mesh.to_dict(), where.devices)
        ways = sizes["data"] * sizes["fsdp"]
        assert config.batch_size % (ways * config.accumulate) == 0, key


def test_candidates_keep_the_batch_and_stop_where_memory_ends():
    job = Job("v5e:2x2", config=TINY, overrides=("--config.batch_size=16", PLAIN))
    found = list(candidates(job))
    parts = {w for c in found for w in c.words if "accumulate" in w}
    assert parts >= {"--config.accumulate=4", "--config.accumulate=1"}
    assert all(c.fits and 0 < c.score <= 1 for c in found)
    full = [c for c in found if "--config.model.remat=full" in c.words]
    assert len({c.words for c in found}) == len(found) > len(full) > 2


def test_scaling_is_arithmetic_and_says_so(tmp_path, capsys):
    assert main(["plan", "--scaling", "64..1536", "--json", "--cache", str(tmp_path)]) == 0
    table = json.loads(capsys.readouterr().out)
    assert "nothing measured" in table["label"]
    rows = {(r["kind"], r["topology"]): r for r in table["rows"]}
    first, last = rows["strong", "v4:4x4x4"], rows["strong", "v4:8x12x16"]
    assert first["batch"] == last["batch"] == 3072 and last["chips"] == 1536
    assert rows["weak", "v4:8x12x16"]["batch"] == 48 * 1536
    # Twice all weights, and all gradients all-reduced, in 16 bits, for each part of the batch.
    from geex_jax.models import preset

    size = 2 * count_params(preset("codegeex-13b"))
    assert first["wire"] == pytest.approx(4 * size * 63 / 64)
    assert first["ici"] == pytest.approx(8 * first["wire"] / 270e9)
    assert all(0 < r["mfu_exposed"] < r["mfu_overlap"] < 1 for r in table["rows"])
    assert main(["plan", "--scaling", "64..256", "--topology-family", "v4"]) == 0
    assert "nothing compiled, nothing measured" in capsys.readouterr().out


def test_scaling_takes_compiled_wire_bytes_where_there_are_some(tmp_path):
    plan = {
        "compiled": {"fits": True, "key": "k", "collectives": [{"ici": 5e9, "count": 24}]},
        "topology": {"slices": 1, "name": "v4:4x4x4"}, "fast": False,
        "model": {"name": "codegeex-13b", "parameters": 12_873_943_040},
        "step": {"accumulate": 24},
    }  # fmt: skip
    scaling.keep_wire(tmp_path, plan)
    row = scaling.row(parse("v4:4x4x4"), 3072, "strong", str(tmp_path))
    assert (row["wire"], row["wire_source"]) == (5e9, "compiled")
    assert math.isclose(row["ici"], 8 * 5e9 / 270e9)


@pytest.mark.parametrize("words", [["64-1536"], ["0..3"], ["64..1536", "--topology-family", "v3"]])
def test_scaling_refuses(words, capsys):
    assert main(["plan", "--scaling", *words]) == 2
    assert capsys.readouterr().err.startswith("geex: error: ")
