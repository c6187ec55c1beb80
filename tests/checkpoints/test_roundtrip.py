"""Convert, export, convert: nothing changes, for random models of every family and form."""

import json
import pathlib
import tempfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geex_jax import checkpoints
from geex_jax.checkpoints import convert, converting, export, safetensors_file, sources, store
from geex_jax.checkpoints.families import HUGGING_FACE, expected_leaves, read_config
from geex_jax.checkpoints.families.configs import comparable
from geex_jax.checkpoints.source import read_params
from geex_jax.checkpoints.states import StateStore
from geex_jax.checkpoints.tensors import InMemory
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig
from geex_jax.quantize import quantize_params
from tests.checkpoints import helpers
from tests.checkpoints.helpers import CODEGEEX, LLAMA, same_tree, tensors_for

QUICK = settings(max_examples=3, deadline=None, derandomize=True, database=None)
DTYPES = st.sampled_from(["float32", "float16", "bfloat16"])
MESHES = st.sampled_from([{}, {"fsdp": 2}, {"fsdp": 2, "tensor": 4}, {"tensor": 8}])


def read(path, **flags) -> dict[str, np.ndarray]:
    return {n: t.read() for n, t in sources.open_source(path, **flags).tensors.items()}


def same(one, other) -> bool:
    """Whether two dicts of arrays are equal bit for bit."""
    return one.keys() == other.keys() and all(
        one[n].dtype == other[n].dtype
        and one[n].shape == other[n].shape
        and one[n].tobytes() == other[n].tobytes()
        for n in one
    )


@pytest.mark.parametrize("family", HUGGING_FACE)
@given(data=st.data())
@QUICK
def test_every_family(family, data):
    def pick(choices):
        return data.draw(st.sampled_from(choices))

    config, kind = helpers.tiny(family, pick), data.draw(DTYPES)
    tensors = helpers.outside(HUGGING_FACE[family], config, kind, data.draw(st.integers(0, 99)))
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(converting, "SMALL", pick([0, 300, 8 << 20]))
        folder = pathlib.Path(name)
        source = helpers.write_hf(folder / "a", family, config, tensors, pick(helpers.HF_FORMS))
        first = convert(source, folder / "b", mesh=data.draw(MESHES))
        largest = data.draw(st.integers(1, 5000))
        back = export(first, folder / "c", max_shard_bytes=largest)
        assert same(read(back), tensors)
        assert says(back, family) == says(source, family)
        if pick([False, True]):  # written anew, as for a model that was trained here
            (first / "source" / "config.json").unlink()
            anew = export(first, folder / "d", family=family)
            assert says(anew, family) == says(source, family) and same(read(anew), tensors)
        second = convert(back, folder / "e", mesh=data.draw(MESHES))
        inner = export(second, folder / "f", format="safetensors", max_shard_bytes=largest)
        third = convert(inner, folder / "g")
        params = checkpoints.load_model(first).params
        assert all(same_tree(params, params_of(path)) for path in (second, third))
        assert says(export(third, folder / "h"), family) == says(source, family)


def params_of(model: pathlib.Path):
    """As `load_model` gives them; quicker, for what it loads is seen elsewhere in the test."""
    return read_params(sources.open_source(model))


def says(folder: pathlib.Path, family: str) -> dict:
    file = folder / "config.json"
    values = json.loads(file.read_text())
    return comparable(read_config(HUGGING_FACE[family], values, file)) | {
        "type": values["model_type"]
    }


@pytest.mark.parametrize("bits", [0, 8, 4])
@given(data=st.data())
@settings(QUICK, max_examples=3)
def test_the_official_form(bits, data):
    def pick(choices):
        return data.draw(st.sampled_from(choices))

    config = helpers.tiny("codegeex", pick)
    ranks = [n for n in (1, 2, 4) if config.num_heads % n == 0]
    fused, kind = pick([False, True]), data.draw(DTYPES)
    tensors = helpers.official(config, kind, data.draw(st.integers(0, 99)), fused, bits)
    heads = {"num_heads": config.num_heads}
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(converting, "SMALL", pick([0, 300, 8 << 20]))
        folder = pathlib.Path(name)
        before = pick(ranks)
        parts = helpers.split(tensors, before)
        source = helpers.write_official(folder / "a", parts)
        first = convert(source, folder / "b", mesh=data.draw(MESHES), **heads)
        back = folder / "c"
        export(first, back, format="codegeex", fused_qkv=fused, model_parallel=before)
        assert same(read(back, **heads), read(source, **heads))
        for rank, part in enumerate(parts if before > 1 else []):
            file = back / f"mp_rank_{rank:02d}_model_states.pt"
            assert same({n: t.read() for n, t in flat(file).items()}, part)
        form = {"model_parallel": pick(ranks), "fused_qkv": pick([False, True])}
        other = export(first, folder / "d", format="codegeex", **form)
        second = convert(other, folder / "e", mesh=data.draw(MESHES), **heads)
        third = convert(export(second, folder / "f", format="safetensors"), folder / "g")
        loaded = checkpoints.load_model(third)
        assert all(same_tree(loaded.params, params_of(path)) for path in (first, second))
        assert comparable(loaded.config) == comparable(config)
        up = loaded.params["top_query"]["layer"]["mlp"]["up"]
        assert (f"kernel_int{bits}" if bits else "kernel") in up


def flat(file: pathlib.Path):
    from geex_jax.checkpoints.codegeex import _flat_codegeex

    return _flat_codegeex(file)


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_quantized_here_go_to_the_official_code_and_back(tmp_path, bits):
    file = helpers.write_official(tmp_path / "a", [helpers.official(CODEGEEX)])
    loaded = checkpoints.load_model(convert(file, tmp_path / "m", num_heads=2))
    params = quantize_params(loaded.params, bits, "official")
    checkpoints.save_model(tmp_path / "q", loaded.config, params)
    for ranks in (1, 2):
        out = export(tmp_path / "q", tmp_path / f"o{ranks}", format="codegeex",
                     model_parallel=ranks)  # fmt: skip
        back = convert(out, tmp_path / f"b{ranks}", num_heads=2)
        assert same_tree(params_of(back), params)
    clean = quantize_params(loaded.params, bits, "clean")
    checkpoints.save_model(tmp_path / "clean", loaded.config, clean)
    refused(tmp_path / "clean", "wants float16 scales", format="codegeex")
    words = {8: "no family of transformers", 4: "holds int8 weights of linears"}
    refused(tmp_path / "q", words[bits])
    again = convert(
        export(tmp_path / "clean", tmp_path / "st", format="safetensors"), tmp_path / "x"
    )
    assert same_tree(params_of(again), clean)


def refused(model: pathlib.Path, words: str, **flags) -> None:
    """Exporting is one line that holds the words, and leaves no trace."""
    before = sorted(model.parent.rglob("*"))
    with pytest.raises(GeexError) as error:
        export(model, model.parent / "new" / "refused", **flags)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert sorted(model.parent.rglob("*")) == before


@pytest.fixture
def llama(tmp_path):
    source = helpers.write_hf(tmp_path / "hf", "llama", LLAMA, tensors_for("safetensors"))
    return convert(source, tmp_path / "m")


@pytest.fixture
def codegeex(tmp_path):
    config = CODEGEEX.replace(num_heads=4, d_model=16, vocab_size=10)
    file = helpers.write_official(tmp_path / "cg", [helpers.official(config)])
    return convert(file, tmp_path / "m", num_heads=4)


def test_what_an_export_refuses(llama):
    refused(llama, "the official CodeGeeX code has no ", format="codegeex")
    refused(llama, "unknown format 'hg'; did you mean hf?", format="hg")
    refused(llama, "unknown family 'lama'; did you mean llama?", family="lama")
    refused(llama, "a qwen2 config cannot say qkv_bias = False", family="qwen2")
    refused(llama, "a glm config cannot say rotary_style = 'half'", family="glm")
    refused(
        llama, "a gpt_neox checkpoint has no place for layers/mlp/gate/kernel", family="gpt_neox"
    )
    refused(llama, "--model-parallel and --fused-qkv; are for", model_parallel=2)
    refused(llama, "--family; is for --format hf", format="codegeex", family="llama")
    refused(llama, "unknown dtype 'f8'", dtype="f8")
    refused(llama, "codegen with n_head = 2; its fused qkv needs", family="codegen")
    with pytest.raises(GeexError, match="exists; choose another folder"):
        export(llama, llama.parent / "hf")
    with pytest.raises(GeexError, match="is no geex model; geex convert"):
        export(llama.parent / "hf", llama.parent / "x")
    with pytest.raises(GeexError, match="no checkpoint at org/name; give a geex model"):
        export("org/name", llama.parent / "x")


def test_what_an_official_export_refuses(codegeex):
    refused(codegeex, "--model-parallel 3 does not divide 4 heads", format="codegeex",
            model_parallel=3)  # fmt: skip
    refused(codegeex, "--model-parallel 0 does not", format="codegeex", model_parallel=0)
    refused(codegeex, "--model-parallel 4 does not divide word_embeddings.weight [10, 16]",
            format="codegeex", model_parallel=4)  # fmt: skip
    refused(codegeex, "no family of transformers computes what m does")
    refused(codegeex, "a llama checkpoint has no place for ", family="llama")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_export_that_stops_leaves_nothing(llama, tmp_path, monkeypatch, error):
    tensors = read(llama)
    out = export(llama, tmp_path / "out")

    def stops(*args):
        raise error

    monkeypatch.setattr("geex_jax.checkpoints.exporting._beside", stops)
    before = sorted(tmp_path.rglob("*"))
    for dest, flags in (("new/deep", {}), ("out", {"overwrite": True})):
        with pytest.raises((KeyboardInterrupt, GeexError)) as raised:
            export(llama, tmp_path / dest, **flags)
        if isinstance(error, OSError):
            assert "No space left on device; nothing was written" in str(raised.value)
        assert sorted(tmp_path.rglob("*")) == before
    assert same(read(llama), tensors) and len(read(out)) == len(tensors_for("hf"))
    monkeypatch.undo()
    (tmp_path / ".out.tmp").mkdir()  # of an export that was killed
    export(llama, tmp_path / "out", overwrite=True, dtype="bf16")
    assert {a.dtype.name for a in read(out).values()} == {"bfloat16"}
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    refused(llama, "are needed; choose another disk")


def test_what_goes_along(llama, tmp_path):
    source = tmp_path / "hf"
    for name in ("generation_config.json", "LICENSE", "chat_template.jinja"):
        (source / name).write_bytes(b"{}\r\n")
    (source / "other.txt").write_text("x")
    config = json.loads((source / "config.json").read_text()) | {"bos_token_id": 3}
    (source / "config.json").write_text(json.dumps(config, indent=7))
    out = export(convert(source, tmp_path / "n"), tmp_path / "out")
    for name in ("generation_config.json", "LICENSE", "chat_template.jinja"):
        assert (out / name).read_bytes() == b"{}\r\n"
    assert not (out / "other.txt").exists()
    written = json.loads((out / "config.json").read_text())
    assert written == config | {"torch_dtype": "float32"}
    card = (out / "README.md").read_text()
    for words in ("# out", "format `hf` (`llama`)", "float32", "| d_model | 8 |", "family llama",
                  "AutoModelForCausalLM"):  # fmt: skip
        assert words in card
    assert f"{len(tensors_for('hf'))} tensors" in card and str(tmp_path) not in card


def test_a_training_workdir(tmp_path):
    """Its last step is taken, and a step of it by name; neither is an outside model."""
    params = checkpoints.load_model(llama_model(tmp_path)).params
    work = tmp_path / "run"

    class Words:
        def save(self, folder):
            folder.mkdir(parents=True)

    store.write_header(work / "model", LLAMA, params, Words(), {"data": "d"})
    (work / "model" / "tokenizer").rmdir()
    states = StateStore(work / "checkpoints", 3, 0)
    for step in (1, 20):
        scaled = {**params, "final_norm": {"scale": params["final_norm"]["scale"] * step}}
        states.save(step, scaled, {"step": np.array(step)}, {})
        states.wait()
    states.close()
    for path, step in ((work, 20), (work / "checkpoints" / "1", 1)):
        model = convert(path, tmp_path / f"m{step}", dtype="bf16")
        loaded = checkpoints.load_model(model)
        expected = (np.asarray(params["final_norm"]["scale"]) * step).astype(ml_dtypes.bfloat16)
        assert np.array_equal(loaded.params["final_norm"]["scale"], expected)
        assert loaded.provenance["step"] == step and loaded.provenance["data"] == "d"
        out = export(path, tmp_path / f"hf{step}")
        assert np.array_equal(read(out)["model.norm.weight"], params["final_norm"]["scale"] * step)
    with pytest.raises(GeexError, match="holds the source"):
        convert(work, work, overwrite=True)
    assert (work / "checkpoints" / "20").is_dir()


def llama_model(tmp_path) -> pathlib.Path:
    source = helpers.write_hf(tmp_path / "hf", "llama", LLAMA, tensors_for("safetensors"))
    return convert(source, tmp_path / "m")


def test_models_kept_in_a_folder_named_checkpoints(tmp_path):
    source = helpers.write_hf(
        tmp_path / "checkpoints" / "7", "llama", LLAMA, tensors_for("safetensors")
    )
    model = convert(source, tmp_path / "checkpoints" / "8")
    assert checkpoints.load_model(model).config.d_model == LLAMA.d_model
    assert same(read(export(model, tmp_path / "checkpoints" / "9")), tensors_for("safetensors"))


def test_safetensors_as_the_package_reads_and_writes_them(tmp_path):
    package = pytest.importorskip("safetensors.numpy")
    arrays = {
        "a.b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": np.ones((3,), np.float16),
        "scalar": np.array(2.5, np.float64),
        "empty": np.zeros((0, 4), np.int8),
        "ints": np.array([[1, -2]], np.int64),
        "flags": np.array([True, False]),
    }
    safetensors_file.write(tmp_path / "ours", {n: InMemory(a) for n, a in arrays.items()})
    assert same(package.load_file(tmp_path / "ours"), arrays)
    package.save_file(arrays, tmp_path / "theirs", {"note": "x"})
    found = {n: t.read() for n, t in safetensors_file.index(tmp_path / "theirs").items()}
    assert same(found, arrays)
    brain = np.arange(4).astype(ml_dtypes.bfloat16)
    safetensors_file.write(tmp_path / "bf16", {"x": InMemory(brain)})
    torch = pytest.importorskip("safetensors.torch")
    assert torch.load_file(tmp_path / "bf16")["x"].float().tolist() == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(GeexError, match="c has dtype complex64; safetensors cannot hold it"):
        safetensors_file.write(tmp_path / "c", {"c": InMemory(np.zeros(2, np.complex64))})


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"[1]", "no safetensors file"),
        (b"[" * 100_000, "unreadable header"),
        (b'{"x": 3}', "the header of x is damaged"),
        (b'{"x\\n": {"dtype": [], "shape": [], "data_offsets": [0, 4]}}', "x\\n is damaged"),
        (b'{"x": {"dtype": "F4", "shape": [1], "data_offsets": [0, 4]}}', "x has dtype F4; save"),
        (b'{"x": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}', "is damaged"),
        (b'{"x": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}', "is damaged"),
        (b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', "does not fit its 4"),
        (b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', "cut short inside x"),
    ],
)
def test_hostile_headers(tmp_path, header, words):
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(GeexError) as error:
        safetensors_file.index(tmp_path / "x")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_parts_of_a_model_config_that_no_family_says(tmp_path):
    config = ModelConfig(top_query_layer=False, position="learned", d_model=8, num_layers=1,
                         num_heads=2, d_ff=8, vocab_size=8, context_length=4)  # fmt: skip
    params: dict = {}
    for path, shape in expected_leaves(config).items():
        *inner, last = path.split("/")
        here = params
        for part in inner:
            here = here.setdefault(part, {})
        here[last] = np.zeros(shape, np.float32)
    checkpoints.save_model(tmp_path / "m", config, params)
    refused(tmp_path / "m", "no family of transformers computes what m does; use --format")
    refused(tmp_path / "m", "has no top_query_layer = False; use --format hf", format="codegeex")
