"""What is wrong with a source is one line that names tensor and file, and leaves nothing behind."""

import fcntl
import json
import os
import pathlib

import numpy as np
import pytest

from geex_jax import checkpoints, cli
from geex_jax.checkpoints import convert, export, output, safetensors_file, sources
from geex_jax.checkpoints.families import HUGGING_FACE
from geex_jax.checkpoints.tensors import InMemory
from geex_jax.errors import GeexError
from geex_jax.parallel import parse_mesh
from tests.checkpoints import helpers
from tests.checkpoints.helpers import CODEGEEX, FORMS, LLAMA, fails, tensors_for, write


def victim(form: str) -> str:
    official = form in helpers.OFFICIAL_FORMS
    return "layers.1.mlp.dense_h_to_4h.bias" if official else "model.layers.1.mlp.up_proj.weight"


def file_of(form: str, source: pathlib.Path, name: str, tensors) -> pathlib.Path:
    """The file that holds a tensor."""
    if form in ("pt", "mp"):
        return source if form == "pt" else source / "mp_rank_00_model_states.pt"
    base = "pytorch_model{}.bin" if form.endswith("bin") else "model{}.safetensors"
    shard = f"-0000{list(tensors).index(name) % 2 + 1}-of-00002"
    return source / base.format(shard if form.startswith("sharded") else "")


def poked(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array.reshape(-1)[-1] = value
    return array


DAMAGE = {
    "nan": ("holds a NaN or an infinity", lambda a: poked(a, np.nan)),
    "infinite": ("holds a NaN or an infinity", lambda a: poked(a, -np.inf)),
    "misshaped": ("has shape", lambda a: np.concatenate([a, a])),
    "turned": ("has shape", lambda a: a.reshape(*a.shape[::-1], 1)),
    "integers": ("is int32, no float type of weights", lambda a: a.astype(np.int32)),
    "double": ("is float64, no float type of weights", lambda a: a.astype(np.float64)),
    "other float": ("choose one with --dtype", lambda a: a.astype(np.float16)),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("form", FORMS)
def test_a_bad_tensor_is_named_with_its_file(tmp_path, form, damage):
    words, change = DAMAGE[damage]
    tensors, name = tensors_for(form), victim(form)
    tensors[name] = change(tensors[name])
    source = write(form, tmp_path / "official", tensors)
    file = file_of(form, source, name, tensors)
    if (form, damage) in (("mp", "nan"), ("mp", "infinite")):  # it is in the last rank
        file = file.with_name("mp_rank_01_model_states.pt")
    fails(source, tmp_path / "m", f"{file}: {name}", words)


@pytest.mark.parametrize("form", FORMS)
def test_missing_and_unknown_tensors(tmp_path, form):
    tensors, name = tensors_for(form), victim(form)
    extra = {**tensors, "layers.0.strange\nname": np.zeros((4, 4), np.float32)}
    source = write(form, tmp_path / "official", extra)
    file = file_of(form, source, list(extra)[-1], extra)
    fails(source, tmp_path / "m", f"{file}: unknown tensor layers.0.strange\\nname")
    lacking = {n: a for n, a in tensors.items() if n != name}
    source = write(form, tmp_path / "official2", lacking)
    alone = form in ("safetensors", "bin", "pt")
    where = file_of(form, source, next(iter(lacking)), lacking) if alone else source
    fails(source, tmp_path / "m", f"{where}: no tensor {name}")
    del lacking[list(lacking)[-1]]
    source = write(form, tmp_path / "official3", lacking)
    fails(source, tmp_path / "m", f"no tensor {name} (and 1 more are missing)")


@pytest.mark.parametrize("form", FORMS)
def test_files_cut_anywhere(tmp_path, form):
    source = write(form, tmp_path / "official", tensors_for(form))
    files = [source] if source.is_file() else sorted(source.iterdir())
    file = next(f for f in reversed(files) if f.suffix in (".pt", ".bin", ".safetensors"))
    whole = file.read_bytes()
    for part in (0, 5, 9, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:part])
        fails(source, tmp_path / "m", str(file), "cut short")


def test_what_was_there_survives_a_failure(tmp_path):
    good = write("safetensors", tmp_path / "good", tensors_for("safetensors"))
    convert(good, tmp_path / "m")
    before = {p: p.read_bytes() for p in (tmp_path / "m").rglob("*") if p.is_file()}
    tensors = tensors_for("safetensors")
    tensors[victim("safetensors")][:] = np.nan
    bad = write("safetensors", tmp_path / "bad", tensors)
    fails(good, tmp_path / "m", f"{tmp_path / 'm'} exists; choose another folder, or pass")
    fails(bad, tmp_path / "m", "NaN", overwrite=True)
    assert {p: p.read_bytes() for p in (tmp_path / "m").rglob("*") if p.is_file()} == before


def test_folders_made_on_the_way_go_too(tmp_path):
    tensors = tensors_for("safetensors")
    good = write("safetensors", tmp_path / "good", tensors)
    assert checkpoints.load_model(convert(good, tmp_path / "new" / "deep" / "m")).config.d_ff == 12
    tensors[victim("safetensors")][:] = np.nan
    bad = write("safetensors", tmp_path / "bad", tensors)
    fails(bad, tmp_path / "other" / "deep" / "m", "NaN")
    assert not (tmp_path / "other").exists()


def test_the_source_is_never_replaced(tmp_path):
    source = write("safetensors", tmp_path / "all" / "sub" / "hf", tensors_for("safetensors"))
    for dest in (source, source.parent, tmp_path / "all", source.parent / ".." / "sub"):
        fails(source, dest, "holds the source", overwrite=True)
    (tmp_path / "link").symlink_to(source)
    fails(tmp_path / "link", source, "holds the source", overwrite=True)
    fails(source, tmp_path / "link", "is a link or a file", overwrite=True)
    file = write("pt", tmp_path / "official", tensors_for("pt"))
    fails(file, file, "is a link or a file", overwrite=True)
    fails(file, file.parent, "holds the source", overwrite=True)
    model = convert(source, tmp_path / "m")
    with pytest.raises(GeexError, match="holds the source"):
        export(model, model, overwrite=True)
    assert checkpoints.load_model(model).config.vocab_size == 12
    inner = convert(source, source / "m")  # DEST inside the source harms nothing
    assert checkpoints.load_model(inner).config.vocab_size == 12


def test_dtypes(tmp_path):
    tensors = tensors_for("safetensors")
    tensors[victim("safetensors")][0, 0] = 1e6
    source = write("safetensors", tmp_path / "hf", tensors)
    file = source / "model.safetensors"
    fails(source, tmp_path / "m", f"{file}: {victim('hf')} is beyond float16", dtype="fp16")
    fails(source, tmp_path / "m", "unknown dtype 'float8'; did you mean float", dtype="float8")
    fails(source, tmp_path / "m", "unknown dtype 'bf15'; did you mean bf16?", compute_dtype="bf15")
    fails(source, tmp_path / "m", "unknown mesh axis 'fdsp'; did you mean fsdp?", mesh={"fdsp": 2})
    fails(source, tmp_path / "m", "mesh axis tensor = 0; give a size above", mesh={"tensor": 0})
    tensors[victim("safetensors")][0, 0] = np.finfo(np.float32).max
    source = write("safetensors", tmp_path / "hf2", tensors)
    fails(source, tmp_path / "m", "is beyond bfloat16", dtype="bf16")
    mixed = {n: a.astype(np.float16) if "norm" in n else a for n, a in tensors_for("hf").items()}
    source = write("safetensors", tmp_path / "hf3", mixed)
    kinds = checkpoints.read_config(convert(source, tmp_path / "mixed"))["leaves"]
    assert kinds["final_norm/scale"][1] == "float16" and kinds["head/kernel"][1] == "float32"
    kinds = checkpoints.read_config(convert(source, tmp_path / "one", dtype="bf16"))["leaves"]
    assert {kind for _, kind in kinds.values()} == {"bfloat16"}


def test_tied_heads_and_buffers(tmp_path):
    config = LLAMA.replace(tied_head=True)
    tensors = helpers.outside(HUGGING_FACE["llama"], config)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["model.layers.1.self_attn.rotary_emb.inv_freq"] = np.full(2, np.nan, np.float32)
    source = helpers.write_hf(tmp_path / "hf", "llama", config, tensors)
    loaded = checkpoints.load_model(convert(source, tmp_path / "m"))
    assert "head" not in loaded.params
    tensors["lm_head.weight"][3, 3] += 1
    source = helpers.write_hf(tmp_path / "hf2", "llama", config, tensors)
    fails(source, tmp_path / "n", "model.safetensors: lm_head.weight is not the embedding")


def edited(folder: pathlib.Path, file: str, **changes) -> None:
    values = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(values | changes))


def test_configs(tmp_path):
    source = write("safetensors", tmp_path / "hf", tensors_for("hf"))
    config = source / "config.json"
    whole = config.read_text()
    edited(source, "config.json", model_type="lama")
    fails(source, tmp_path / "m", f"{config}: model_type 'lama' is not known; did you mean llama?")
    edited(source, "config.json", model_type=["llama"])
    fails(source, tmp_path / "m", f"{config}: model_type ['llama'] is not known")
    config.write_text(whole)
    edited(source, "config.json", intermediate_size=16)
    fails(source, tmp_path / "m", "model.layers.0.mlp.gate_proj.weight has shape [12, 8]", "[16, 8")
    config.write_text(whole)
    edited(source, "config.json", novelty=3)
    fails(source, tmp_path / "m", f"{config}: unknown key novelty = 3", "--ignore-key novelty")
    convert(source, tmp_path / "ignored", ignore=["novelty"])
    for text in ("{", "[1]", "[" * 100_000, "\x00"):
        config.write_text(text)
        fails(source, tmp_path / "m", f"{config} is no JSON object; fetch the file again")
    config.unlink()
    fails(source, tmp_path / "m", f"no config.json in {source}; bring config.json and model.saf")
    fails(source / "model.safetensors", tmp_path / "m", "give the folder with config.json")
    fails(tmp_path / "nowhere", tmp_path / "m", "no checkpoint at")


@pytest.mark.parametrize("form", ["sharded", "sharded_bin"])
def test_indexes(tmp_path, form):
    source = write(form, tmp_path / "hf", tensors_for(form))
    index = next(source.glob("*.index.json"))
    whole = index.read_text()
    places = json.loads(whole)["weight_map"]
    name, shard = next(iter(places.items()))
    for elsewhere in ("../elsewhere", "/etc/passwd", "sub/x"):
        edited(source, index.name, weight_map=places | {name: elsewhere})
        fails(source, tmp_path / "m", f"{index} places {name} in {elsewhere}, outside its folder")
    for absent in ("gone", "..", ""):
        edited(source, index.name, weight_map=places | {name: absent})
        fails(source, tmp_path / "m", f"{index} names {absent} for {name} and 0 more", "not there")
    edited(source, index.name, weight_map=places | {"strange": shard})
    fails(source, tmp_path / "m", f"{source / shard}: no tensor strange, which {index.name} places")
    for text in ("{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}'):
        index.write_text(text)
        fails(source, tmp_path / "m", f"{index}: no weight_map")
    index.write_text(whole[:50])
    fails(source, tmp_path / "m", f"{index} is no JSON object")
    index.unlink()
    fails(source, tmp_path / "m", str(source), "is there without an index")
    for file in source.glob("*-of-*"):
        file.unlink()
    fails(source, tmp_path / "m", f"{source}: no weights; bring model.safetensors")


def test_a_copy_in_the_wrong_shard_is_not_taken(tmp_path):
    tensors = tensors_for("sharded")
    source = write("sharded", tmp_path / "hf", tensors)
    name = next(iter(tensors))
    second = source / "model-00002-of-00002.safetensors"
    held = {n: InMemory(t.read()) for n, t in safetensors_file.index(second).items()}
    safetensors_file.write(second, {**held, name: InMemory(tensors[name] + 1)})
    assert np.array_equal(sources.open_source(source).tensors[name].read(), tensors[name])


def test_a_tokenizer_that_is_too_large_or_comes_along(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    source = write("safetensors", tmp_path / "hf", tensors_for("hf"))

    def words(count: int) -> str:
        vocabulary = {f"w{i}": i for i in range(count)}
        model = tokenizers.models.WordLevel(vocabulary, unk_token="w0")
        return tokenizers.Tokenizer(model).to_str()

    (source / "tokenizer_config.json").write_text('{"eos_token": "w1"}')
    (source / "tokenizer.json").write_text(words(13))
    fails(source, tmp_path / "m", f"{source}: 13 token ids for 12 rows", "with --tokenizer")
    (source / "tokenizer.json").write_text(words(12))
    model = convert(source, tmp_path / "m")
    assert checkpoints.load_model(model).tokenizer.vocab_size == 12
    out = export(model, tmp_path / "out")
    assert (out / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    again = convert(export(model, tmp_path / "st", format="safetensors"), tmp_path / "m2")
    assert checkpoints.load_model(again).tokenizer.vocab_size == 12
    file = helpers.write_official(tmp_path / "official", [helpers.official(CODEGEEX)])
    geex = convert(file, tmp_path / "cg", num_heads=2, tokenizer=source)
    back = convert(export(geex, tmp_path / "pt", format="codegeex"), tmp_path / "c2", num_heads=2)
    assert checkpoints.load_model(back).tokenizer.vocab_size == 12


def test_a_tokenizer_of_an_unknown_kind_does_not_stop_the_weights(tmp_path, capsys):
    source = write("safetensors", tmp_path / "hf", tensors_for("hf"))
    (source / "tokenizer.model").write_text("IQ== 0\n")  # tiktoken's form, as CodeGeeX4's
    assert cli.main(["convert", str(source), str(tmp_path / "m")]) == 0
    assert "not taken along" in capsys.readouterr().out
    loaded = checkpoints.load_model(tmp_path / "m")
    assert loaded.tokenizer is None
    assert "SentencePiece" in loaded.provenance["source"]["tokenizer"]
    fails(source, tmp_path / "n", "SentencePiece", tokenizer=source)  # asked for: an error


def test_space_rights_and_company(tmp_path, monkeypatch):
    source = write("safetensors", tmp_path / "hf", tensors_for("hf"))
    (tmp_path / "file").write_text("")
    fails(source, tmp_path / "file" / "m", f"{tmp_path / 'file'}", "Not a directory")
    partial = tmp_path / ".m.partial"
    partial.mkdir()
    handle = os.open(partial, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    fails(source, tmp_path / "m", f"another process is converting into {tmp_path / 'm'}; wait")
    os.close(handle)
    partial.rmdir()
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
        fails(source, tmp_path / "m", f"{tmp_path} has 0.0 GB free", "choose another disk")

    def full(target, array):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("geex_jax.checkpoints.arrays.write", full)
        with pytest.raises(GeexError, match="No space left on device; the same command goes on"):
            convert(source, tmp_path / "m")
    assert partial.is_dir()  # kept: after an hour of work, freeing the disk is enough
    convert(source, tmp_path / "m")
    assert not partial.exists()


def test_the_command(tmp_path, capsys):
    source = write("sharded", tmp_path / "hf", tensors_for("hf"))
    model, out = tmp_path / "m", tmp_path / "out"
    assert cli.main(["convert", str(source), str(model), "--mesh", "2x4", "--dtype", "bf16"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"wrote {model}: family llama, bfloat16, ")
    assert "see --tokenizer" in said.out and said.out.count("\n") == 1
    assert "converting llama: 4,768/4,768 B" in said.err
    assert cli.main(["export", str(model), str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == f"wrote {out}: README.md, config.json, model.safetensors\n"
    for command, words in (
        (["convert", str(source), str(model)], "exists; choose another folder"),
        (["convert", str(source), str(model), "--mesh", "2x"], "mesh"),
        (["convert", str(tmp_path / "no"), str(tmp_path / "x")], "no checkpoint at"),
        (["export", str(source), str(tmp_path / "x")], "is no geex model; geex convert"),
        (["export", str(model), str(tmp_path / "x"), "--format", "hg"], "did you mean hf?"),
        (["export", str(model), str(tmp_path / "x"), "--max-shard-gb", "0"], "give a size above 0"),
    ):
        assert cli.main(command) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("geex: error: ") and words in said.err
        assert said.err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "m", "out"]


def test_progress_speaks_in_units_that_fit(capsys):
    for total, text in (
        (700, "700/700 B"),
        (23_456, "23/23 kB"),
        (5_400_000_000, "5,400/5,400 MB"),
    ):
        meter = output.Meter("x", total)
        meter.update(total)
        meter.close()
        assert text in capsys.readouterr().err


def test_provenance_and_order(tmp_path):
    source = write("sharded", tmp_path / "hf", tensors_for("hf"))
    one, two = (convert(source, tmp_path / name / "m", mesh=parse_mesh("2x1")) for name in "ab")

    def kept(model):
        return {p.name: p.read_bytes() for p in model.glob("*.json")}

    assert kept(one) == kept(two)
    about = checkpoints.read_config(one)
    assert about["provenance"]["source"] == {
        "family": "llama",
        "name": "hf",
        "files": {p.name: p.stat().st_size for p in source.glob("*.safetensors")},
    }
    assert about["model"]["name"] == "m" and about["model"]["param_dtype"] == "float32"
    assert about["provenance"]["converted_by"].startswith("geex-jax ")
