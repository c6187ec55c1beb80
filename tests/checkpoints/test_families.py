"""Every reference checkpoint, in every form on disk: logits, padding, hidden states, greedy tokens.

The model is named alike for all forms of a checkpoint, so that each program is compiled once.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.checkpoints import codegeex, convert
from geex_jax.checkpoints.families.configs import comparable
from geex_jax.checkpoints.store import load_model
from geex_jax.inference import generate_tokens
from geex_jax.models import ModelConfig, Transformer
from tests.checkpoints.helpers import same_tree

# Folder -> the folder with the reference of the same weights.
FOLDERS = {
    "gptj": "gptj",
    "gpt_neox": "gpt_neox",
    "gpt_neox_sharded_bin": "gpt_neox",
    "codegen": "codegen",
    "incoder": "incoder",
    "incoder_bin": "incoder",
    "glm4": "glm4",
    "codegeex4_chatglm": "glm4",
    "codegeex2_chatglm": "codegeex2_chatglm",
    "qwen2_tied": "qwen2_tied",
    "qwen2_untied_sharded": "qwen2_untied_sharded",
    "llama_codellama": "llama_codellama",
    "llama_deepseek_coder": "llama_deepseek_coder",
    "starcoder2": "starcoder2",
}
LOGITS = 3e-4  # the tolerance that the references suggest


@functools.partial(jax.jit, static_argnums=0)
def run(config: ModelConfig, params, tokens, positions=None, segment_ids=None):
    """Logits and the sown hidden states."""
    out, state = Transformer(config).apply(
        {"params": params}, tokens, positions, segment_ids, mutable=["intermediates"]
    )
    return out, state["intermediates"]


def loaded(folder: pathlib.Path):
    """A model folder's config, without what does not change a program, and its parameters."""
    model = load_model(folder)
    config = model.config.replace(name="any", param_dtype="float32")
    assert config.dtype == "float32"
    return config, model.params


def close(got, expected, where=None, atol: float = LOGITS) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape and got.dtype == np.float32
    kept = np.ones(got.shape[:2], bool) if where is None else np.asarray(where, bool)
    assert kept.any()
    np.testing.assert_allclose(got[kept], expected[kept], atol=atol, rtol=0)


@pytest.fixture(scope="module")
def hf(shared) -> pathlib.Path:
    return shared / "fixtures" / "hf"


def test_no_reference_folder_is_left_out(hf):
    assert {p.name for p in hf.iterdir() if p.is_dir()} == set(FOLDERS)


@dataclasses.dataclass(frozen=True)
class Case:
    """A converted folder, its reference, and what our model computes of the reference's tokens."""

    config: ModelConfig
    params: Any
    reference: Any
    notes: Mapping[str, Any]
    logits: Mapping[str, np.ndarray]
    hidden: Mapping[str, np.ndarray]

    @property
    def sides(self) -> list[str]:
        """Which padded batches the reference has."""
        return [side for side in ("left", "right") if f"tokens_{side}" in self.reference]


@pytest.fixture(scope="module", params=FOLDERS)
def case(request, hf, tmp_path_factory) -> Case:
    place = hf / FOLDERS[request.param]
    dest = tmp_path_factory.mktemp("families") / request.param
    config, params = loaded(convert(hf / request.param, dest))
    notes = json.loads((place / "reference.json").read_text())
    found = Case(config, params, np.load(place / "reference.npz"), notes, {}, {})
    logits, hidden = outputs(found)
    return dataclasses.replace(found, logits=logits, hidden=hidden)


def outputs(case: Case) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """All batches of a reference in one, so that one program is compiled."""
    reference, rows, parts = case.reference, 0, {}
    width = max(reference[f"tokens_{name}"].shape[1] for name in ("a", *case.sides))
    columns = []
    for name in ("a", *case.sides):
        tokens = reference[f"tokens_{name}"]
        steps = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
        positions = reference["position_ids_left"] if name == "left" else steps
        mask = np.ones(tokens.shape) if name == "a" else reference[f"mask_{name}"]
        more = ((0, 0), (0, width - tokens.shape[1]))
        grown = [np.pad(x, more) for x in (tokens, positions, mask)]
        columns.append(np.stack(grown).astype(np.int32))
        parts[name] = slice(rows, rows + len(tokens)), slice(tokens.shape[1])
        rows += len(tokens)
    logits, sown = run(case.config, case.params, *np.concatenate(columns, axis=1))
    states = {"embed": sown["embedded"][0], "last": sown["normed"][0]}
    states["layer0"] = sown["layers"]["residual"][0][0]
    return (
        {name: np.asarray(logits)[part] for name, part in parts.items()},
        {name: np.asarray(state)[parts["a"]] for name, state in states.items()},
    )


def test_logits_and_hidden_states(case):
    close(case.logits["a"], case.reference["logits_a"])
    for name, state in case.hidden.items():
        if "hidden_embed_a" in case.reference:  # only the remote code of CodeGeeX2 gives none
            close(state, case.reference[f"hidden_{name}_a"])


def test_padding_on_either_side_changes_nothing(case):
    assert "left" in case.sides
    for side in case.sides:
        mask = case.reference[f"mask_{side}"]
        assert not mask.all()
        close(case.logits[side], case.reference[f"logits_{side}"], mask)


def test_greedy_tokens_of_an_uneven_batch(case):
    config, params, cases = case.config, case.params, case.notes["greedy"]
    prompts = [one["prompt"] for one in cases]
    assert len({len(prompt) for prompt in prompts}) > 1
    count = len(cases[0]["new_tokens"])
    got = generate_tokens(Transformer(config), params, prompts, max_new_tokens=count)
    assert got == [one["new_tokens"] for one in cases]


@pytest.mark.parametrize("name", sorted(set(FOLDERS.values()) - {"codegeex2_chatglm"}))
def test_a_config_of_transformers_5_makes_the_same_model(hf, name, tmp_path):
    other = tmp_path / "v5"
    shutil.copytree(hf / name, other)
    shutil.copyfile(hf / name / "config.v5.json", other / "config.json")
    (config, params), (new_config, new_params) = (
        loaded(convert(folder, tmp_path / f"out{i}")) for i, folder in enumerate((hf / name, other))
    )
    assert comparable(config) == comparable(new_config)
    assert same_tree(params, new_params)


@pytest.mark.parametrize("form", ["codegeex_tiny.pt", "codegeex_tiny_qkv.pt", "mp2"])
def test_official_codegeex_in_its_three_forms(shared, form, tmp_path):
    folder = shared / "fixtures" / "codegeex"
    config, params = loaded(convert(folder / form, tmp_path / "model"))  # heads: config.json beside
    plain = codegeex.load(folder / "codegeex_tiny.pt", num_heads=config.num_heads)[1]
    assert same_tree(params, plain)
    reference = np.load(folder / "forward.npz")
    for name in "abc":
        tokens = np.atleast_2d(reference[f"tokens_{name}"])
        logits, sown = run(config, params, tokens)
        close(logits, reference[f"logits_{name}"].reshape(logits.shape), atol=2e-4)
        if name == "b":
            close(sown["embedded"][0], reference["hidden_b_emb"], atol=2e-4)
            for i in range(config.num_layers):
                layer = sown["layers"]["residual"][0][i]
                close(layer, reference[f"hidden_b_layer{i}"], atol=2e-4)
            close(sown["normed"][0], reference["hidden_b_final_layernorm"], atol=2e-4)
            close(sown["top_query"]["layer"]["residual"][0], reference["hidden_b_top"], atol=2e-4)


@pytest.mark.parametrize("explicit", [True, False], ids=["positions", "default"])
def test_packed_documents_of_the_official_code(shared, explicit, tmp_path):
    folder = shared / "fixtures" / "codegeex"
    config, params = loaded(convert(folder / "codegeex_tiny.pt", tmp_path / "model"))
    reference = np.load(folder / "forward.npz")
    tokens, positions = reference["tokens_d"], reference["position_ids_d"]
    # A document begins where positions start again; it sees itself only, as the official mask says.
    segments = 1 + np.cumsum(positions == 0, axis=1)
    seen = (segments[:, :, None] == segments[:, None, :]) & np.tri(tokens.shape[1], dtype=bool)
    assert (seen == ~reference["attention_mask_d"][:, 0]).all() and segments.max() > 2
    given = jnp.asarray(positions) if explicit else None
    logits, _ = run(config, params, tokens, given, segments)
    close(logits, reference["logits_d_packed"], atol=2e-4)
