"""The convert bench: what it measures, its arithmetic, and a small run with kill and restart."""

import json
import math
import shutil
import signal

import pytest

from geex_jax import cli
from geex_jax.benchmark import convert_bench as bench
from geex_jax.benchmark import synthetic
from geex_jax.checkpoints import inspecting
from geex_jax.checkpoints.families import HUGGING_FACE, expected_leaves
from geex_jax.errors import GeexError

KILL = {"dest_absent": True, "equal": True, "same_files": True, "kept": 9, "written_again": 0}


def test_a_small_run_with_kill_and_restart(tmp_path, capsys, monkeypatch):
    flags = ["--gigabytes", "0.06", "--workdir", str(tmp_path), "--json"]
    assert cli.main(["bench", "convert", *flags]) == 0
    result = json.loads(capsys.readouterr().out)
    assert not any(tmp_path.iterdir())
    runs, kill = result["runs"], result["kill"]
    assert runs["killed"]["status"] == -signal.SIGKILL
    assert runs["geex convert"]["status"] == runs["restarted"]["status"] == 0
    assert kill["dest_absent"] and kill["equal"] and kill["same_files"]
    assert kill["kept"] > 0 and kill["written_again"] == 0
    assert 0 < kill["kept_bytes"] <= kill["share"] * result["nbytes"]
    # An interpreter with jax, and no more than the promise; the same for all three.
    peaks = [done["peak"] for done in runs.values()]
    assert min(peaks) > 100e6 and max(peaks) == result["peak"] <= result["bound"]
    assert result["nbytes"] == 2 * result["parameters"] == pytest.approx(0.06e9, rel=0.1)
    assert result["holds"] and "all of it holds" in bench.report(result)
    broken = result | {"within_bound": False, "holds": False}
    monkeypatch.setattr(bench, "measure", lambda *args: broken)
    assert cli.main(["bench", "convert", "--workdir", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "within it: NO" in out and "IT DOES NOT HOLD" in out


def test_the_bound():
    def holds(peak: int = 0, largest: int = 0, **changes) -> bool:
        return bench.verdict(peak, largest, KILL | changes)["holds"]

    assert bench.verdict(1, 700_000_000, KILL)["bound"] == 2_400_000_000
    assert holds(2_400_000_000, 700_000_000) and not holds(2_400_000_001, 700_000_000)
    for change in ("dest_absent", "equal", "same_files"):
        assert not holds(**{change: False})
    assert not holds(kept=0) and not holds(written_again=1)


def test_the_peak_is_the_childs_own(tmp_path):
    code = "x = b'x' * (300 << 20)"
    small, large = (bench.run_child(["-c", c], tmp_path / "log") for c in ("pass", code))
    # Without a launcher it would be this process's at least, with all that it has imported.
    assert small.status == large.status == 0 and small.peak < 100e6
    assert large.peak - small.peak == pytest.approx(300 << 20, rel=0.03)


def test_a_child_is_stopped_and_a_failed_one_is_one_line(tmp_path):
    stopped = bench.run_child(
        ["-c", "import time; time.sleep(600)"], tmp_path / "log", lambda: True
    )
    assert stopped.status == -signal.SIGKILL
    with pytest.raises(GeexError, match=r"status 2 \(geex: error: no checkpoint at .*nothing"):
        bench.convert(tmp_path / "nothing", tmp_path / "m")


@pytest.mark.parametrize("family", synthetic.FIELDS)
def test_every_family_has_the_size_asked_for(family):
    config = synthetic.shape(family, 3)
    leaves = expected_leaves(config)
    assert 2 * sum(map(math.prod, leaves.values())) == pytest.approx(3e9, rel=0.03)
    path, size = synthetic.largest_stacked(config, 2)
    assert size == 2 * math.prod(leaves[path]) == max(2 * math.prod(s) for s in leaves.values())
    assert config.num_layers > 10 and set(synthetic.FIELDS) == {*HUGGING_FACE, "codegeex"}


@pytest.mark.parametrize("family", ["codegeex", "chatglm"])
def test_what_is_written_opens_as_the_family(tmp_path, family):
    config = synthetic.shape(family, 0.05)
    source = synthetic.write_checkpoint(tmp_path / "s", family, config)
    report = inspecting.inspect(source)
    assert report.family == family and report.config["d_model"] == config.d_model
    assert list(report.dtypes) == ["float16" if family == "codegeex" else "bfloat16"]
    again = synthetic.write_checkpoint(tmp_path / "t", family, config)
    assert inspecting.inspect(again).fingerprint == report.fingerprint


def test_the_usual_way_gives_the_same(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="the usual way is transformers'")
    pytest.importorskip("torch", reason="the usual way is transformers'")
    source = synthetic.write_checkpoint(tmp_path / "s", "llama", synthetic.shape("llama", 0.05))
    bench.convert(source, tmp_path / "whole")
    print_of = inspecting.inspect(tmp_path / "whole").fingerprint
    done = bench.peer_run(source, tmp_path, print_of)
    assert done.status == 0 and done.peak > 100e6
    (tmp_path / "usual").rename(tmp_path / "old")

    def same_again(command, log):
        shutil.copytree(tmp_path / "old" / "params", command[-1])
        return done

    monkeypatch.setattr(bench, "run_child", same_again)
    with pytest.raises(GeexError, match="the usual way gives other content"):
        bench.peer_run(source, tmp_path, "0123")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--family lama", "unknown family 'lama'; did you mean llama"),
        ("--gigabytes 0.01", "--gigabytes 0.01; give at least 0.05"),
        ("--gigabytes nan", "--gigabytes nan; give at least 0.05"),
        ("--gigabytes 1e9", "GB free"),
        ("--workdir no/such", "no/such; make it"),
        ("--family chatglm --peer", "transformers has no class for chatglm; leave --peer out"),
        ("--keeps", "unknown flag --keeps; did you mean --keep"),
    ],
)
def test_mistakes_are_told_in_one_line(flags, message, capsys):
    assert cli.main(["bench", "convert", *flags.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_without_transformers_one_line_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["bench", "convert", "--peer"]) == 2
    assert 'needs torch and transformers; pip install "geex-jax' in capsys.readouterr().err
