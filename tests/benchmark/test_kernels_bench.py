"""`geex bench kernels`: its cases are equal whatever computes them, and what differs is said."""

import jax.numpy as jnp
import pytest

from geex_jax.benchmark import kernels_bench as bench
from geex_jax.cli import main


def test_every_way_of_the_cases_is_equal_and_only_kernels_are_not_timed(monkeypatch):
    monkeypatch.setitem(bench.SIZES, "cpu", (2, 128, 128, 128, 1 << 16))
    speed = bench.bandwidth(1 << 16, 1)
    cases = [bench.attention_case(2, "int8", "float32")]
    cases += [bench.matmul_case(1, "int4", 32, "float", "float32")]
    rows = [row for case in cases for row in bench.measure(case, 1, speed)]
    assert [r["way"] for r in rows] == ["plain", "as used", "one matmul", "Pallas",
                                        "plain", "as used", "Pallas"]  # fmt: skip
    assert all(r["equal"] for r in rows) and speed > 0
    assert all((r["ms"] is None) == (r["way"] == "Pallas") for r in rows)
    # Of 128 slots 65 and 128 are live; a token of each is two heads of 128 integers and scales.
    assert rows[0]["bytes"] == 2 * (65 + 128) * 2 * (128 + 4)
    assert rows[4]["bytes"] == 128 * 256 // 2 + 128 * 8 * 4
    text = str(bench.table(rows, "here"))
    assert "interpreted" in text and "NOT EQUAL" not in text


def test_a_way_that_differs_is_said():
    ways = {"plain": lambda x: x, "wrong": lambda x: x * 1.01}
    rows = bench.measure(("a case", ways, (jnp.ones(4),), 16.0), 1, 1e9)
    assert [r["equal"] for r in rows] == [True, False]
    assert "NOT EQUAL" in str(bench.table(rows, "here"))


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--rows", "0"]])
def test_mistakes_are_one_line(words, capsys):
    assert main(["bench", "kernels", *words]) == 2
    assert "give numbers above 0" in capsys.readouterr().err
