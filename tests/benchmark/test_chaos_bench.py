"""The parts of the chaos bench; a whole round is minutes (`geex bench chaos`)."""

import numpy as np
import pytest

from geex_jax.benchmark import chaos_bench
from geex_jax.cli import main


def test_its_lines_tell_what_is_equal():
    rows = [
        {"same_mesh": True, "error": 0.0, "equal": True},
        {"same_mesh": True, "error": 1e-8, "equal": False},
        {"same_mesh": False, "error": 2e-5, "equal": True},
    ]
    same, other = chaos_bench.lines({"rounds": rows})
    assert same.startswith("same mesh: 1 of 2 rounds equal (1 bit for bit; largest difference 1.0e")
    assert other.startswith("another mesh on 2 processes: 1 of 1 rounds equal (0 bit for bit")


def test_a_difference_is_in_units_of_the_largest_weight():
    a, b = {"x": np.array([1.0, 4.0])}, {"x": np.array([1.0, 2.0])}
    assert chaos_bench._difference(a, b) == 1.0 and chaos_bench._difference(b, b) == 0.0


@pytest.mark.parametrize("flag", ["--rounds=0", "--first=0", "--steps=5"])
def test_settings_that_make_no_round(flag, capsys):
    assert main(["bench", "chaos", flag]) == 2
    assert "give 1 round and 12 steps or more" in capsys.readouterr().err


@pytest.mark.slow
def test_a_round_ends_with_the_weights_of_an_undisturbed_run(tmp_path):
    """kill -9 of one of 4, on with 2, kill -9 of one of 2, on with 4: bit for bit."""
    result = chaos_bench.measure(tmp_path, [1], 12, 0, lambda *_, **__: None)
    (row,) = result["rounds"]
    assert row["same_mesh"] and row["error"] == 0 and row["equal"]
    assert [kill["of"] for kill in row["kills"]] == [4, 2] and len(row["resumed"]) == 3
