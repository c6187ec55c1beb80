"""Real programs through the TPU compiler, small ones; the command around them."""

import json
import pathlib

import pytest

from geex_jax.cli import main
from geex_jax.errors import GeexError
from geex_jax.plan import compile as compiling
from geex_jax.plan import jobs
from geex_jax.plan.roofline import roofline
from geex_jax.plan.topology import parse

pytestmark = pytest.mark.optimized

TINY = str(pathlib.Path(__file__).parent / "tiny.py")
TRAIN = ["plan", "--config", TINY, "--topology", "v5e:2x2", "--fast"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    pytest.importorskip("libtpu")
    return str(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def plan(cache):
    return jobs.run(jobs.Job("v5e:2x2", config=TINY, fast=True, cache=cache))


def test_the_real_step_compiles_and_is_summarized(plan):
    compiled, memory = plan["compiled"], plan["compiled"]["memory"]
    assert compiled["fits"] and not compiled["cached"]
    assert memory["argument"] == pytest.approx(sum(plan["state"].values()), rel=0.05)
    assert memory["alias"] >= 0.99 * (plan["state"]["parameters"] + plan["state"]["optimizer"])
    assert compiled["used"] > memory["argument"] and memory["temp"] > plan["activations"]["device"]
    assert 1.1 < plan["flops"]["ratio"] < 1.35  # remat full
    assert compiled["traffic"]["hbm"] > memory["argument"]
    kinds = {c["kind"] for c in compiled["collectives"]}
    assert "all-gather" in kinds and all(c["group"] == 4 for c in compiled["collectives"])
    layers = [c for c in compiled["collectives"] if c["count"] == 3]
    assert len(layers) >= 6  # the weights of a layer, in each of three
    assert plan["label"].startswith("estimate")
    times = plan["roofline"]
    assert 0 < times["mfu_half_ici"] <= times["mfu_exposed"] <= times["mfu_overlap"] < 1


def test_the_command_reads_what_was_kept_and_exits_with_0(plan, cache, capsys):
    assert main([*TRAIN, "--cache", cache]) == 0
    out = capsys.readouterr().out
    assert "FITS" in out and "kept from an earlier run" in out
    assert "estimate: arithmetic over the compiled program, not measured" in out
    assert "all-gather over 4" in out and "least effort" in out
    assert main([*TRAIN, "--cache", cache, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["compiled"]["key"] == plan["compiled"]["key"] and again["compiled"]["cached"]


def test_too_little_memory_is_status_1_with_the_compilers_words(cache, capsys):
    small = ["--compiler-option", "xla_tpu_max_hbm_size_mib=1", "--cache", cache, "--json"]
    assert main([*TRAIN, *small]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["fits"] and found["roofline"] is None
    assert "Ran out of memory" in found["compiled"]["message"]
    assert found["compiled"]["over"] > 1 << 20


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["plan"], "no --config given"),
        (["plan", "--config", TINY], "no --topology given"),
        (["plan", "--config", TINY, "--topology", "v5e:16x61"], "not a shape that is sold"),
        (["plan", "--config", TINY, "--topolgy", "v5e:2x2"], "did you mean --topology?"),
        (["plan", "--config", TINY, "--slice", "smal"], "did you mean small?"),
        ([*TRAIN, "--config.batch_sise=3"], "did you mean batch_size?"),
        ([*TRAIN, "--compiler-option", "novalue"], "NAME=VALUE"),
        (["plan", "--decode", "--topology", "v5e:1x1", "--kv-bits", "4"], "--kv-bits 4"),
        (["plan", "--decode", "--topology", "v5e:1x1", "--bits", "3"], "--bits 3"),
        (["plan", "--decode", "--topology", "v5e:1x1", "--context", "9999"], "--context 9999"),
        (["plan", "--decode", "--topology", "v5e:1x1", "--memory-only"], "--memory-only"),
    ],
)
def test_mistakes_are_status_2_and_one_line(words, says, capsys):
    if "--decode" in words:
        pytest.importorskip("libtpu")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("geex: error: ") and error.count("\n") == 1 and says in error


def test_an_option_that_the_compiler_does_not_know_names_the_nearest(cache, capsys):
    assert main([*TRAIN, "--compiler-option", "xla_tpu_max_hbm_size_mb=9", "--cache", cache]) == 2
    assert "did you mean xla_tpu_max_hbm_size_mib?" in capsys.readouterr().err


def test_without_libtpu_the_remedy_is_said(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(TRAIN) == 2
    assert 'pip install "geex-jax[tpu]"' in capsys.readouterr().err


def test_a_process_with_other_settings_compiles_in_a_child(cache, plan, monkeypatch):
    monkeypatch.setattr("geex_jax.plan.topology.prepared", lambda: False)
    again = jobs.run(jobs.Job("v5e:2x2", config=TINY, fast=True, cache=cache))
    assert again["compiled"]["cached"] and again["compiled"]["key"] == plan["compiled"]["key"]
    with pytest.raises(GeexError, match="unknown config key nothing"):
        jobs.run(jobs.Job("v5e:2x2", config=TINY, overrides=("--config.nothing=1",)))


@pytest.mark.parametrize(("bits", "kv_bits"), [(8, 8), (4, 16)])
def test_the_engines_decode_step_reads_weights_and_cache_once(cache, capsys, bits, kv_bits):
    words = ["plan", "--decode", "--preset", "geex-3m", "--bits", str(bits), "--kv-bits",
             str(kv_bits), "--batch", "2", "--context", "256", "--prefill", "128", "--topology",
             "v5e:1x1", "--fast", "--cache", cache, "--json"]  # fmt: skip
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] and found["prefill"]["fits"]
    tokens = 2 * 8 * 2 * 256  # keys and values of eight blocks and two rows
    held = tokens * 128 * 2 if kv_bits == 16 else tokens * (128 + 2 * 4)
    assert found["state"]["keys and values"] == held
    assert found["compiled"]["memory"]["argument"] > found["floor"]
    assert found["compiled"]["unknown_loops"] and not found["compiled"]["collectives"]
    assert "ms/token at least" in found["speed"] and "(estimate" in found["speed"]
    assert not [w for w in found["warnings"] if "a cache or weight" in w]


def test_sizes_in_the_compilers_messages():
    first = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (18.52G) exceeds available HBM (15.75G)."
    )
    assert compiling.too_much(first) == pytest.approx(2.77 * 2**30)
    assert compiling.too_much("Exceeded hbm capacity by 512.0M.") == 2**29
    assert compiling.too_much("something else") == 0
    assert compiling.parse_options(["--a=true", "b=1", "c=-1.0", "d=x"]) == {
        "a": True, "b": 1, "c": -1.0, "d": "x",
    }  # fmt: skip


def test_roofline_by_hand():
    where = parse("v5e:16x16")
    step = 256 * 197e12  # a second of compute at peak
    sync = {"kind": "all-gather", "ici": 18e9, "dcn": 0.0, "count": 5, "asynchronous": False}
    hidden = {"kind": "all-gather", "ici": 18e9, "dcn": 0.0, "count": 5, "asynchronous": True}
    permute = {"kind": "collective-permute", "ici": 9e9, "dcn": 0, "count": 1, "asynchronous": True}
    found = roofline(where, step, 1.25 * step, 819e9, [sync, hidden])
    assert (found.ideal, found.compute, found.hbm) == (1, 1.25, 1)
    assert (found.ici, found.exposed, found.bound) == (1, 0.5, "compute")
    assert found.mfu_overlap == 1 / 1.25 and found.mfu_exposed == 1 / 1.75
    assert found.mfu_half_ici == 1 / 2.25
    assert roofline(where, step, step, 0, [permute]).ici == pytest.approx(9 / 45)
    assert roofline(where, step, step, 0, [], int8_flops=step).compute == 197 / 393
    assert roofline(where, step, step, 4 * 819e9, []).bound == "HBM"
