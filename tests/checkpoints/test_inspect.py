"""What `geex inspect` says of a checkpoint, and that a fingerprint is of the content alone."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from geex_jax import cli, tokenizers
from geex_jax.checkpoints import (
    convert,
    converting,
    export,
    inspecting,
    save_model,
    sources,
    states,
    store,
)
from geex_jax.checkpoints.families import HUGGING_FACE, expected_leaves
from geex_jax.checkpoints.inspecting import inspect
from geex_jax.checkpoints.source import read_params
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, from_dict, preset
from geex_jax.parallel import make_mesh, shardings
from geex_jax.quantize import quantize_params
from tests.checkpoints import helpers
from tests.checkpoints.helpers import CODEGEEX, LLAMA

# vocabulary 12, width 8, 2 layers, 2 heads of 4 (1 for keys and values), mlp 12, head untied
LLAMA_PARTS = {
    "embedding": 12 * 8,
    "attention": 2 * (8 * 8 + 8 * 4 + 8 * 4 + 8 * 8),
    "mlp": 2 * 3 * 8 * 12,
    "norms": 2 * 2 * 8 + 8,
    "head": 8 * 12,
}
MESHED = LLAMA.replace(vocab_size=16, d_model=16, num_heads=4, num_kv_heads=4, d_ff=32)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A Hugging Face folder in bfloat16."""
    tensors = helpers.outside(HUGGING_FACE["llama"], MESHED, "bfloat16")
    return helpers.write_hf(tmp_path_factory.mktemp("llama") / "hf", "llama", MESHED, tensors)


@pytest.fixture(scope="module")
def model(llama):
    """The same, converted."""
    return convert(llama, llama.parent / "m")


def params_of(config: ModelConfig):
    """Random parameters; `Transformer.init` would take seconds."""
    rng = np.random.default_rng(0)
    tree = {}
    for path, shape in expected_leaves(config).items():
        *folders, leaf = path.split("/")
        here = tree
        for folder in folders:
            here = here.setdefault(folder, {})
        here[leaf] = rng.standard_normal(shape, np.float32)
    return tree


def counts(report: inspecting.Report) -> dict[str, int]:
    return {name: part["parameters"] for name, part in report.parts.items()}


@pytest.mark.parametrize("form", ["safetensors", "sharded_bin"])
def test_parts_of_an_outside_folder(tmp_path, form):
    tensors = helpers.tensors_for(form)
    report = inspect(helpers.write(form, tmp_path / "hf", tensors))
    assert counts(report) == LLAMA_PARTS and report.parameters == sum(LLAMA_PARTS.values())
    assert report.nbytes == 4 * report.parameters == sum(p["bytes"] for p in report.parts.values())
    assert report.dtypes == {"float32": report.nbytes}
    assert report.kind == "Hugging Face folder" and report.family == "llama"
    assert report.storage["format"] == ("safetensors" if form == "safetensors" else "PyTorch")
    assert report.storage["files"] == (1 if form == "safetensors" else 2)
    assert report.disk_bytes > report.nbytes and report.quantization is None
    assert {leaf.path: leaf.shape for leaf in report.leaves} == {
        name: array.shape for name, array in tensors.items()
    }


@pytest.mark.parametrize("form", helpers.OFFICIAL_FORMS)
def test_an_official_file_and_its_parts(tmp_path, form):
    report = inspect(helpers.write(form, tmp_path / "o", helpers.tensors_for(form)), num_heads=2)
    assert report.family == "codegeex" and report.config["num_heads"] == 2
    assert report.parameters == sum(map(math.prod, expected_leaves(CODEGEEX).values()))
    assert "top query layer" in report.parts
    kinds = {"pt": "official CodeGeeX file", "mp": "official CodeGeeX folder of 2 tensor-parallel"}
    assert report.kind.startswith(kinds[form])


def test_rows_that_the_model_does_not_need_are_counted_apart(tmp_path):
    tied = LLAMA.replace(tied_head=True)
    tensors = helpers.outside(HUGGING_FACE["llama"], tied)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    report = inspect(helpers.write_hf(tmp_path / "hf", "llama", tied, tensors))
    assert report.parts[inspecting.UNUSED] == {"parameters": 0, "bytes": 4 * 12 * 8}
    assert report.parameters == sum(LLAMA_PARTS.values()) - LLAMA_PARTS["head"]


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantized_model(tmp_path, bits):
    whole = sum(map(math.prod, expected_leaves(CODEGEEX).values()))
    source = helpers.write_official(tmp_path / "o", [helpers.official(CODEGEEX, bits=bits)])
    folder = convert(source, tmp_path / "m", num_heads=2)
    for report in (inspect(source, num_heads=2), inspect(folder)):
        assert report.parameters == whole
        formats = {"formats": [f"int{bits}"]}
        assert report.quantization == {"bits": bits, "rounding": "official"} | formats
    rows = [s for p, s in expected_leaves(CODEGEEX).items() if p.endswith("kernel")]
    assert report.scales == sum(math.prod(s) // s[-2] for s in rows)
    kernels = sum(map(math.prod, rows))
    assert report.dtypes["uint8" if bits == 4 else "int8"] == kernels * bits // 8
    floats = helpers.write_official(tmp_path / "f", [helpers.official(CODEGEEX)])
    params = quantize_params(read_params(sources.open_source(floats, num_heads=2)), bits)
    clean = inspect(save_model(tmp_path / "clean", CODEGEEX, params))
    assert clean.quantization == {"bits": bits, "rounding": "clean"} | formats
    assert clean.parameters == whole and clean.scales == report.scales


def test_the_mesh_is_found_back(llama, monkeypatch):
    monkeypatch.setattr(converting, "SMALL", 0)
    for sizes in ({"fsdp": 2, "tensor": 4}, {"tensor": 2}, {}):
        folder = convert(llama, llama.parent / "cut", mesh=sizes, overwrite=True)
        report = inspect(folder)
        assert report.storage["mesh"] == sizes
        assert report.storage["layers_apart"] == sum(x.path[:7] == "layers/" for x in report.leaves)
        up = next(leaf for leaf in report.leaves if leaf.path == "layers/mlp/up/kernel")
        assert up.shape == (2, 16, 32)
        assert up.chunk == (1, 16 // sizes.get("fsdp", 1), 32 // sizes.get("tensor", 1))
        assert up.cut == ("layer", *sizes)


def test_a_fingerprint_is_of_the_content_alone(llama, model, tmp_path, monkeypatch):
    report = inspect(model)
    assert report.fingerprint and len(report.fingerprint) == 16
    monkeypatch.setattr(converting, "SMALL", 0)
    params = read_params(sources.open_source(model))
    same = [
        convert(llama, tmp_path / "cut", mesh={"fsdp": 2, "tensor": 4}),
        export(model, tmp_path / "safe", format="safetensors", max_shard_bytes=5000),
        save_model(tmp_path / "saved", MESHED, params),
    ]
    found = [inspect(path) for path in same]
    assert {r.fingerprint for r in found} == {report.fingerprint}
    kinds = ["model folder (converted)", "geex safetensors", "model folder"]
    assert [r.kind for r in found] == kinds
    assert {json.dumps(counts(r)) for r in found} == {json.dumps(counts(report))}
    assert inspect(model, fingerprint=False).fingerprint is None


def test_a_fingerprint_tells_one_weight_and_types(model, tmp_path):
    params = read_params(sources.open_source(model))
    key = params["layers"]["attention"]["key"]
    key["kernel"] = key["kernel"].copy()
    key["kernel"][1, 2, 3] += 1
    changed = inspect(save_model(tmp_path / "changed", MESHED, params)).fingerprint
    wider = inspect(convert(model, tmp_path / "wider", dtype="float32")).fingerprint
    assert len({inspect(model).fingerprint, changed, wider}) == 3


def test_long_arrays_are_read_in_pieces(model, monkeypatch):
    from geex_jax.checkpoints import layout

    before = inspect(model).fingerprint
    monkeypatch.setattr(layout, "BLOCK", 100)
    assert inspect(model).fingerprint == before


def test_a_training_workdir_and_its_steps(tmp_path, shared):
    params = params_of(CODEGEEX)
    words = tokenizers.load(shared / "codegeex-tokenizer")
    store.write_header(tmp_path / "model", CODEGEEX, params, words, {"data": "rows"})
    kept = states.StateStore(tmp_path / "checkpoints", keep_last=2, keep_best=0)
    other = jax.tree.map(lambda x: x + 1, params)
    for step, tree in ((10, other), (20, params)):
        kept.save(step, tree, {"count": np.zeros(())}, {})
    kept.close()
    last = inspect(tmp_path)
    first, second = (inspect(tmp_path / "checkpoints" / step) for step in ("10", "20"))
    assert last.kind == "training workdir (its last step)" and last.family.startswith("CodeGeeX (")
    assert first.kind == second.kind == "training step"
    assert first.provenance == {"data": "rows", "step": 10} and last.provenance["step"] == 20
    assert last.fingerprint == second.fingerprint != first.fingerprint
    # Beside the parameters lie moments of the optimizer: they are not the model's.
    assert last.fingerprint == inspect(save_model(tmp_path / "m", CODEGEEX, params)).fingerprint
    assert last.tokenizer == {
        "kind": "codegeex",
        "vocab_size": words.vocab_size,
        "fingerprint": words.fingerprint(),
    }


@pytest.mark.parametrize("sizes", [{"fsdp": 2, "tensor": 2}, {"tensor": 4}, {}], ids=str)
def test_the_mesh_that_orbax_saved_from(tmp_path, sizes):
    params = params_of(MESHED)
    mesh = make_mesh(sizes)
    spread = jax.device_put(params, shardings(mesh, params, uneven=True))
    report = inspect(save_model(tmp_path / "m", MESHED, spread))
    assert report.storage["format"] == "Orbax, one OCDBT store"
    assert report.storage["mesh"] == sizes
    up = next(leaf for leaf in report.leaves if leaf.path == "layers/mlp/up/kernel")
    assert up.chunk == (2, 16 // sizes.get("fsdp", 1), 32 // sizes.get("tensor", 1))
    assert up.cut == tuple(sizes)
    assert report.fingerprint == inspect(save_model(tmp_path / "one", MESHED, params)).fingerprint


@pytest.mark.parametrize(
    ("config", "family", "presets"),
    [
        (LLAMA, "as llama", []),
        (preset("geex-3m", vocab_size=64), "CodeGeeX (", ["geex-3m (vocab_size 64, not 8192)"]),
        (preset("geex-3m").replace(name="mine"), "CodeGeeX (", ["geex-3m"]),
        (CODEGEEX.replace(top_query_layer=False), "of no published family", []),
    ],
)
def test_a_model_without_a_history_is_told_by_its_shape(tmp_path, config, family, presets):
    folder = save_model(tmp_path / "m", config, params_of(config))
    report = inspect(folder, fingerprint=False)
    assert report.family.startswith(family) and report.presets == presets
    assert from_dict(report.config) == config and report.provenance == {}


def test_json_is_the_report(model, capsys):
    assert cli.main(["inspect", str(model), "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found == json.loads(json.dumps(dataclasses.asdict(inspect(model))))
    assert found["provenance"]["source"]["family"] == found["family"] == "llama"
    assert "0/0" not in err


def test_what_is_printed(model, capsys):
    report = inspect(model)
    assert cli.main(["inspect", str(model), "--tree"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(model)
    shown = {line[:12].strip(): line[12:] for line in lines if line[:1].isalpha()}
    assert shown["family"] == "llama" and shown["quantized"] == "no"
    assert shown["parameters"] == f"{report.parameters:,}"
    assert shown["fingerprint"] == report.fingerprint
    tree = [line.split()[0] for line in lines[-len(report.leaves) :]]
    assert tree == sorted(expected_leaves(MESHED))
    assert cli.main(["inspect", str(model), "--no-fingerprint"]) == 0
    out, err = capsys.readouterr()
    assert "fingerprint" not in out + err and "layers/" not in out


def test_a_tokenizer_that_cannot_be_read_stops_nothing(llama, tmp_path):
    tensors = helpers.outside(HUGGING_FACE["llama"], LLAMA)
    folder = helpers.write_hf(tmp_path / "hf", "llama", LLAMA, tensors)
    assert inspect(folder).tokenizer is None
    (folder / "tokenizer.json").write_text("{")
    report = inspect(folder)
    assert report.tokenizer and "tokenizer.json" in report.tokenizer["error"]
    assert "tokenizer   error" in inspecting.render(report)


def test_mistakes_are_one_line(model, tmp_path, capsys):
    def fails(*argv) -> str:
        assert cli.main(["inspect", *map(str, argv)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "; " in error
        return error

    assert "no checkpoint at" in fails("org/name")
    assert "--num-heads" in fails(model, "--num-heads", "2")
    tensors = helpers.outside(HUGGING_FACE["llama"], LLAMA)
    missing = dict(tensors)
    del missing["model.norm.weight"]
    assert "no tensor model.norm.weight" in fails(
        helpers.write_hf(tmp_path / "short", "llama", LLAMA, missing)
    )
    (tmp_path / "empty").mkdir()
    assert "empty" in fails(tmp_path / "empty")


def test_a_damaged_chunk_is_one_line(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(converting, "SMALL", 0)
    folder = convert(llama, tmp_path / "m")
    chunk = next((folder / "params" / "layers.mlp.up.kernel").glob("1.*"))
    chunk.unlink()
    with pytest.raises(GeexError, match=r"layers/mlp/up/kernel is damaged"):
        inspect(folder)
    assert inspect(folder, fingerprint=False).nbytes == inspect(llama).nbytes  # headers only
