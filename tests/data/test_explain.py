"""`geex prepare --explain`: what each stage decided of one file, the dedup and the split."""

import dataclasses
import os
import re

import pytest

from geex_jax.cli import main
from geex_jax.data import PrepareConfig, load_recipe, prepare
from geex_jax.data.explain import explain
from geex_jax.data.splits import split_of
from geex_jax.errors import GeexError
from tests.data.conftest import CONFIG
from tests.data.helpers import ByteTokenizer, source, write


@pytest.fixture(scope="module")
def recipe(tree):
    return CONFIG.recipe([tree])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("generated.py", "filters +drop +generated"),
        ("wide.cpp", r"filters +drop +long_lines: average line \d+.\d characters of at most 100"),
        ("numbers.cpp", "filters +drop +few_letters: 0.0% of the characters"),
        ("large.go", "filters +drop +too_large: 2000.. bytes"),
        ("zero.py", "decode +drop +binary"),
    ],
)
def test_the_stage_that_drops_a_file_says_why(recipe, tree, name, words):
    for wanted in (tree / name, name):
        text = explain(recipe, wanted)
        assert re.search(words, text), text
        assert "split" not in text  # it does not come that far


def test_a_kept_file_and_its_copy(recipe, tree, prepared):
    text = explain(recipe, tree / "part1" / "file1.py", prepared[0])
    assert re.search("dedup +keep", text) and "language       keep  Python" in text
    sha256 = re.search(r"by its hash (\w+)", text)[1]
    assert f"{split_of(sha256, CONFIG.validation_fraction)} of Python" in text
    text = explain(recipe, tree / "copy.py", prepared[0])
    assert "several documents have this text" in text
    assert "known of prepared data only" in explain(recipe, tree / "copy.py")


def test_near_copies_are_told(tmp_path):
    lines = [f"value{i} = compute_{i * 7 % 13}(value{i - 1}, option_{i})\n" for i in range(1, 90)]
    write(tmp_path / "in" / "a.py", "".join(lines))
    write(tmp_path / "in" / "b.py", "".join([*lines, "print(the_last_line)\n"]))
    config = PrepareConfig(workers=1, seq_len=256, validation_fraction=0.0)
    prepare(tmp_path / "in", tmp_path / "d", ByteTokenizer(), config)
    told = explain(config.recipe(tmp_path / "in"), tmp_path / "in" / "b.py", tmp_path / "d")
    assert re.search("dedup +drop +near_duplicate", told)


def test_what_no_source_gives(recipe, tree):
    for name in ("nothing.py", os.fspath(tree / "part0" / "nothing.py")):
        with pytest.raises(GeexError, match="no source gives"):
            explain(recipe, name)


def test_the_flag_needs_no_tokenizer(tmp_path, capsys):
    path = write(tmp_path / "x.py", source(1) + "# author jane.smith@siemens.com\n")
    assert main(["prepare", "--explain", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "filters        keep" in printed and "(text changed) [email 1]" in printed
    assert main(["prepare", "--output", "x"]) == 2
    assert "no input given" in capsys.readouterr().err


def test_a_recipe_file_is_a_recipe(tree, tmp_path, prepared):
    text = (
        "from geex_jax.data import Recipe, SourceSpec\n"
        f"def get_recipe():\n    return Recipe((SourceSpec({str(tree)!r}),), seq_len=64)\n"
    )
    path = write(tmp_path / "mine.py", text)
    recipe = load_recipe(path)
    assert recipe.name == "mine" and recipe.seq_len == 64
    assert "drop  generated" in explain(recipe, "generated.py")
    for bad, words in (("x = 1\n", "KeyError"), ("def get_recipe(): return 3\n", "no Recipe")):
        with pytest.raises(GeexError, match=words):
            load_recipe(write(tmp_path / "bad.py", bad))
    with pytest.raises(GeexError, match="did you mean permissive"):
        load_recipe("permisive")


def test_weights_of_sources(tmp_path):
    from geex_jax.data import Recipe, SourceSpec, prepare_recipe

    for name in ("a", "b"):
        for i in range(40):
            write(tmp_path / name / f"{i}.py", source(1000 * (name == "b") + i))
    base = Recipe(
        (SourceSpec(str(tmp_path / "a")), SourceSpec(str(tmp_path / "b"))),
        seq_len=256,
        validation_fraction=0.0,
    )
    files = {}
    for weight in (0.0, 0.5, 1.0, 2.0):
        sources = (base.sources[0], dataclasses.replace(base.sources[1], weight=weight))
        changed = dataclasses.replace(base, sources=sources)
        manifest = prepare_recipe(changed, tmp_path / f"d{weight}", ByteTokenizer(), workers=1)
        files[weight] = manifest.total("train").files
    assert (files[0.0], files[1.0], files[2.0]) == (40, 80, 120)
    assert 48 <= files[0.5] <= 72
