"""Official CodeGeeX files and models of ours: hostile, damaged, or not belonging together."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest

from geex_jax import checkpoints
from geex_jax.checkpoints import convert, sources
from tests.checkpoints import helpers
from tests.checkpoints.helpers import CODEGEEX, fails, tensors_for, write


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("name", ["evil.pt", "hf/pytorch_model.bin", "mp/mp_rank_01"])
def test_a_malicious_pickle_is_refused(tmp_path, name):
    if name.startswith("hf"):
        folder = write("bin", tmp_path / "hf", tensors_for("bin"))
    elif name.startswith("mp"):
        folder = write("mp", tmp_path / "mp", tensors_for("mp"))
        name += "_model_states.pt"
    file = tmp_path / name
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"module": Evil(tmp_path / "harm")}))
    source = file if name == "evil.pt" else folder
    fails(source, tmp_path / "m", str(file), "mkdir, which is not a tensor")
    assert not (tmp_path / "harm").exists()


def test_ranks(tmp_path):
    config = CODEGEEX.replace(num_heads=4, d_model=16)
    parts = helpers.split(helpers.official(config, "float32"), 4)
    source = helpers.write_official(tmp_path / "official", parts)
    first, third = (source / f"mp_rank_0{i}_model_states.pt" for i in (0, 2))
    third.rename(tmp_path / "away")
    fails(source, tmp_path / "m", f"{source}: no {third.name}; bring all ranks")
    (source / "mp_rank_03_model_states.pt").rename(tmp_path / "away3")
    fails(source, tmp_path / "m", f"{first}: top_query_embeddings.weight has shape [4, 16]")
    name = "layers.0.attention.dense.bias"
    for change, words in (
        (lambda a: a + 1, f"{third}: {name} differs between rank 0 and rank 2"),
        (lambda a: a[:-1], f"{third}: {name} is float32 [15], in {first.name} float32 [16]"),
        (lambda a: a.astype(np.float16), f"{third}: {name} is float16 [16], in {first.name}"),
        (lambda a: np.full(16, np.nan, np.float32), f"{third}: {name} differs"),
        (None, f"{third}: no tensor {name}, which other ranks have"),
    ):
        odd = {n: a for n, a in parts[2].items() if n != name}
        odd |= {name: change(parts[2][name])} if change else {}
        helpers.write_official(source, [parts[0], parts[1], odd, parts[3]])
        fails(source, tmp_path / "m", words, num_heads=4)
    name = "layers.0.attention.query.weight"
    odd = {**parts[2], name: parts[2][name] * np.inf}
    helpers.write_official(source, [parts[0], parts[1], odd, parts[3]])
    fails(source, tmp_path / "m", f"{third}: {name} holds a NaN", num_heads=4)
    odd = [{**part, name: np.float32(0)} for part in parts]
    helpers.write_official(source, odd)
    fails(source, tmp_path / "m", f"{first}: {name} has shape []", num_heads=4)


def test_official_shapes_that_cannot_be(tmp_path):
    tensors = helpers.official(CODEGEEX)
    file = helpers.write_official(tmp_path / "official", [tensors])
    fails(file, tmp_path / "m", "d_model 8 does not divide into 3 heads", num_heads=3)
    fails(file, tmp_path / "m", "--num-heads 0; give a number above 0", num_heads=0)
    fails(file, tmp_path / "m", f"--vocab-size 13; the embedding in {file} has 12", vocab_size=13)
    fails(file, tmp_path / "m", "--vocab-size 0", vocab_size=0)
    model = checkpoints.load_model(convert(file, tmp_path / "cut", num_heads=2, vocab_size=5))
    assert np.array_equal(
        model.params["embedding"]["tokens"], tensors["word_embeddings.weight"][:5]
    )
    for name, words in (
        ("layers.999999999.x", "unknown tensor layers.999999999.x"),
        ("layers.x.y", "unknown tensor layers.x.y"),
        ("layers.7.input_layernorm.bias", "no tensor of layers.2"),
    ):
        odd = helpers.write_official(tmp_path / "o", [{**tensors, name: np.zeros(8, np.float16)}])
        fails(odd, tmp_path / "m", str(odd), words)
    hf = write("safetensors", tmp_path / "hf", tensors_for("hf"))
    fails(hf, tmp_path / "m", "are for official CodeGeeX checkpoints", num_heads=2)
    folder = tmp_path / "official" / "two"
    helpers.write_official(folder, [tensors], "a.pt")
    assert sources.open_source(folder, num_heads=2).path == folder  # one .pt in a folder is found
    helpers.write_official(folder, [tensors], "b.pt")
    fails(folder, tmp_path / "m", f"no config.json in {folder}")


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_files_whose_mlp_is_twice_as_wide(tmp_path, bits):
    tensors = helpers.official(CODEGEEX, bits=bits)  # d_ff = 2 d_model: int8 looked like int4
    file = helpers.write_official(tmp_path / "official", [tensors])
    leaves = checkpoints.read_config(convert(file, tmp_path / "m", num_heads=2))["leaves"]
    assert f"layers/mlp/up/kernel_int{bits}" in leaves
    name = "layers.0.mlp.dense_4h_to_h.weight"
    tensors[name] = tensors[name].astype(np.float16)
    file = helpers.write_official(tmp_path / "official2", [tensors])
    fails(file, tmp_path / "n", f"{file}: {name} is float16, no int8")


def test_damaged_models_of_ours(tmp_path):
    model = convert(write("safetensors", tmp_path / "hf", tensors_for("hf")), tmp_path / "a")
    whole = (model / "config.json").read_text()
    about = json.loads(whole)
    for change, words in (
        ({"leaves": {"a/b": 3}}, "its config.json is damaged"),
        ({"model": 7}, "its config.json is damaged"),
        ({"model": about["model"] | {"d_ff": 13}}, "layers/mlp/down/kernel has shape [2, 12, 8]"),
        ({"format": 9}, "is not a geex model (format 9"),
    ):
        (model / "config.json").write_text(json.dumps(about | change))
        fails(model, tmp_path / "m", str(model), words)
    (model / "config.json").write_text(whole)
    chunk = model / "params" / "layers.mlp.up.kernel" / "0.0.0"
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-4])
    fails(model, tmp_path / "m", str(chunk.parent), "layers/mlp/up/kernel is damaged")
    chunk.unlink()
    fails(model, tmp_path / "m", str(chunk.parent), "layers/mlp/up/kernel is damaged")
    (chunk.parent / ".zarray").unlink()
    fails(model, tmp_path / "m", f"{model / 'params'}: no readable tensor layers/mlp/up/kernel")
    os.rename(model / "params", tmp_path / "away")
    fails(model, tmp_path / "m", f"{model}: neither params/ nor safetensors")
