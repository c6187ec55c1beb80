"""The attention bench: what it compares here, how it says so, and what it refuses."""

import json

import pytest

from geex_jax import cli
from geex_jax.benchmark import attention_bench as bench
from geex_jax.errors import GeexError

SHAPE = "1,128,2,1,32"


def test_on_a_cpu_splash_is_compared_and_xla_timed(capsys):
    words = ["--shape", SHAPE, "--rounds", "1", "--window", "50", "--json"]
    assert cli.main(["bench", "attention", *words]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["implementation"] for r in rows] == ["xla", "splash"]
    assert rows[0]["difference"] == 0 and 0 < rows[1]["difference"] < 1e-4
    assert rows[0]["both_ms"] > 0 and rows[1]["both_ms"] is None


def test_what_differs_is_said():
    row = {
        "shape": SHAPE,
        "implementation": "xla",
        "difference": 0.0,
        "equal": True,
        "forward_ms": 1.0,
        "both_ms": 3.0,
    }
    other = row | {"implementation": "cudnn", "equal": False, "difference": 0.5, "both_ms": 1.5}
    text = bench.text_table(bench.table([row, other], "a chip"))
    assert "5.0e-01 NOT EQUAL" in text and "1.500 (2.00x)" in text


@pytest.mark.parametrize("text", ["1,2,3", "1,128,3,2,64", "1,0,2,2,64", "a,b,c,d,e"])
def test_shapes_that_are_none(text):
    with pytest.raises(GeexError, match="shape"):
        bench.parse_shape(text)


def test_segments_are_ragged_and_end_in_padding():
    ids = bench.make_inputs((3, 256, 2, 2, 8), "float32")[-1]
    assert (ids[:, -1] == 0).all() and (ids[:, 0] == 1).all()
    assert all(len(set(row.tolist())) > 4 for row in ids)
