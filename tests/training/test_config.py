"""Experiment files and their overrides."""

import pytest

from geex_jax.errors import GeexError
from geex_jax.training.config import (
    default_config,
    list_experiments,
    load_config,
    model_config,
    optimizer_config,
    same_run,
    summary,
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.py"
    path.write_text(
        "from geex_jax.training.config import default_config\nget_config = default_config\n"
    )
    return path


def test_overrides_take_the_type_of_what_was_there(path):
    words = ["--config.optimizer.lr=3e-4", "--config.steps=1e3", "--config.name", "mine"]
    words += ["--config.model.overrides.num_layers=3", "--config.evaluate.prompts=['C: int ']"]
    words += ["--config.optimizer.clip=2", "--config.data.weights.python=1.5"]
    words += ["--config.data.curriculum=((100, {'Python': 2.0}), (200, 0.5))"]
    config = load_config(path, words)
    assert list(config.data.curriculum) == [(100, {"Python": 2.0}), (200, 0.5)]
    assert config.optimizer.lr == 3e-4 and config.steps == 1000 and config.name == "mine"
    assert isinstance(config.steps, int) and isinstance(config.optimizer.clip, float)
    assert config.model.overrides.num_layers == 3
    assert config.evaluate.prompts == ["C: int "]
    assert config.data.weights.python == 1.5


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--config.optimizer.lrr=1", "unknown config key optimizer.lrr; did you mean optimizer.lr"),
        ("--config.optimzer.lr=1", "unknown config key optimzer; did you mean optimizer"),
        ("--config.steps=many", "--config.steps=many is not a int"),
        ("--config.steps=1.5", "is not a int"),
        ("--config.optimizer=3", "--config.optimizer is a group"),
        ("--config.steps", "has no value"),
        ("--confg.steps=3", "unknown flag --confg.steps"),
        ("--config.steps.more=3", "unknown config key steps.more"),
    ],
)
def test_mistakes_are_one_line(path, word, message):
    with pytest.raises(GeexError, match=message) as error:
        load_config(path, [word])
    assert "\n" not in str(error.value)


def test_no_such_file(tmp_path):
    with pytest.raises(GeexError, match="no config file"):
        load_config(tmp_path / "no.py")


def test_every_experiment_loads_and_says_what_it_is():
    found = list_experiments()
    assert found
    keys = set(default_config().keys())
    for path in found:
        assert set(load_config(path).keys()) == keys
        assert len(summary(path)) > 20


def test_a_run_begun_before_a_key_existed_had_its_default():
    new = default_config().to_dict()
    old = default_config().to_dict()
    del old["optimizer"]["moments"], old["model"]["matmul"], old["model"]["attention"]
    assert same_run(old, new) == []
    new["model"].update(remat="full", attention="splash")  # how, not what, is computed
    assert same_run(old, new) == []
    new["optimizer"]["moments"] = "int8"
    assert same_run(old, new) == ["optimizer.moments: 'float32' -> 'int8'"]


def test_kernels_matmuls_and_moments_reach_the_model_and_the_optimizer(path):
    config = load_config(
        path,
        [
            "--config.model.attention=xla",
            "--config.model.matmul=int8",
            "--config.model.remat=minimal_offload",
            "--config.optimizer.moments=bfloat16",
        ],
    )
    model = model_config(config, 512, 64)
    assert (model.attention, model.matmul, model.remat) == ("xla", "int8", "minimal_offload")
    assert optimizer_config(config).moments == "bfloat16"
