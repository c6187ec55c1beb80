"""`geex verify`: PyTorch's side against the fixtures, ours against PyTorch, and the arithmetic."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest

from geex_jax import checkpoints, quantize
from geex_jax.checkpoints import verify as v
from geex_jax.checkpoints.peers import PeerOutput, peer_shape, run_peer, state_names
from geex_jax.cli import main
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer

# Folder -> the folder whose reference holds for it too.
FOLDERS = {
    "codegeex2_chatglm": "codegeex2_chatglm",
    "codegeex4_chatglm": "glm4",
    "codegen": "codegen",
    "glm4": "glm4",
    "gpt_neox": "gpt_neox",
    "gpt_neox_sharded_bin": "gpt_neox",
    "gptj": "gptj",
    "incoder": "incoder",
    "incoder_bin": "incoder",
    "llama_codellama": "llama_codellama",
    "llama_deepseek_coder": "llama_deepseek_coder",
    "qwen2_tied": "qwen2_tied",
    "qwen2_untied_sharded": "qwen2_untied_sharded",
    "starcoder2": "starcoder2",
}


@pytest.fixture
def torch():
    pytest.importorskip("transformers")
    return pytest.importorskip("torch")


@pytest.fixture
def codegeex(shared):
    return shared / "fixtures" / "codegeex"


def close(ours, theirs, atol=3e-4):
    np.testing.assert_allclose(ours, theirs, atol=atol, rtol=0)


# The peer


@pytest.mark.parametrize("name", FOLDERS)
def test_hugging_face_folders_give_the_reference(torch, shared, name):
    folder = shared / "fixtures" / "hf" / name
    data = np.load(folder.parent / FOLDERS[name] / "reference.npz")
    out = run_peer(folder, data["tokens_a"], batch_size=1)
    close(out.logits, data["logits_a"])
    shape = peer_shape(folder)
    assert out.names == state_names(shape.num_layers, False)
    assert [h.shape for h in out.hidden] == [(2, 24, shape.d_model)] * (shape.num_layers + 2)
    for key, i in (("embed", 0), ("layer0", 1), ("last", -1)):
        if f"hidden_{key}_a" in data:
            close(out.hidden[i], data[f"hidden_{key}_a"])
    # The last layer's output is the raw one, not yet normed.
    assert np.abs(out.hidden[-2] - out.hidden[-1]).max() > 0.1


@pytest.mark.parametrize("name", ["glm4", "gpt_neox", "llama_deepseek_coder", "starcoder2"])
def test_configs_written_by_transformers_5_mean_the_same(torch, shared, tmp_path, name):
    folder = shared / "fixtures" / "hf" / name
    shutil.copy(folder / "config.v5.json", tmp_path / "config.json")
    shutil.copy(folder / "model.safetensors", tmp_path)
    data = np.load(folder / "reference.npz")
    close(run_peer(tmp_path, data["tokens_a"]).logits, data["logits_a"])


@pytest.mark.parametrize("name", ["codegeex_tiny.pt", "codegeex_tiny_qkv.pt", "mp2"])
def test_official_codegeex_in_all_its_forms(torch, codegeex, name):
    data = np.load(codegeex / "forward.npz")
    out = run_peer(codegeex / name, data["tokens_b"], num_heads=4)
    close(out.logits, data["logits_b"], 2e-4)
    assert out.names[-2:] == ["final norm", "top query layer"]
    parts = ["emb", "layer0", "layer1", "layer2", "final_layernorm", "top"]
    for hidden, part in zip(out.hidden, parts, strict=True):
        close(hidden, data[f"hidden_b_{part}"], 2e-4)
    shape = peer_shape(codegeex / name, num_heads=4)
    assert (shape.vocab_size, shape.d_model, shape.num_layers) == (512, 64, 3)
    assert (shape.num_heads, shape.context_length) == (4, 128)


def test_heads_come_from_a_config_beside_the_file(torch, codegeex, tmp_path):
    assert peer_shape(codegeex / "codegeex_tiny.pt").num_heads == 4
    shutil.copy(codegeex / "codegeex_tiny.pt", tmp_path)
    assert peer_shape(tmp_path).num_heads == 1  # heads of 128, at least one


def test_what_is_no_peer_is_one_line(torch, codegeex, shared, tmp_path):
    with pytest.raises(GeexError, match="no checkpoint at"):
        run_peer(tmp_path / "nothing", np.zeros((1, 1)))
    with pytest.raises(GeexError, match=r"neither a config.json with model_type nor .pt files"):
        run_peer(tmp_path, np.zeros((1, 1)))
    shutil.copy(codegeex / "mp2" / "mp_rank_01_model_states.pt", tmp_path)
    with pytest.raises(GeexError, match="no part mp_rank_00"):
        run_peer(tmp_path, np.zeros((1, 1)))
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    with pytest.raises(GeexError, match=r"broken.pt is unreadable"):
        run_peer(tmp_path / "broken.pt", np.zeros((1, 1)))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(GeexError, match="model_type 'bert' is not supported"):
        run_peer(tmp_path, np.zeros((1, 1)))
    source = shared / "fixtures" / "hf" / "qwen2_untied_sharded"
    lacking = tmp_path / "lacking"
    shutil.copytree(source, lacking)
    (lacking / "model-00003-of-00006.safetensors").unlink()
    with pytest.raises(GeexError, match="transformers cannot load"):
        run_peer(lacking, np.zeros((1, 1)))


def test_a_tensor_that_is_missing_is_never_made_up(torch, shared, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    source = shared / "fixtures" / "hf" / "gptj"
    tensors = safetensors.load_file(source / "model.safetensors")
    del tensors["transformer.h.1.mlp.fc_in.weight"]
    safetensors.save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    shutil.copy(source / "config.json", tmp_path)
    with pytest.raises(GeexError, match=r"no tensor transformer.h.1.mlp.fc_in.weight"):
        run_peer(tmp_path, np.zeros((1, 1)))


def test_without_pytorch_the_remedy_is_named(codegeex, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(GeexError, match=r"needs torch; pip install \"geex-jax\[convert\]\""):
        run_peer(codegeex / "codegeex_tiny.pt", np.zeros((1, 1)))


# Ours against the peer


def codegeex_params(path, dtype=np.float16):
    """The official tensors as our tree, by hand."""
    from geex_jax.checkpoints import torch_codegeex

    state = {k: x.numpy().astype(dtype) for k, x in torch_codegeex.read_state(path).items()}

    def linear(pick, name):
        return {"kernel": pick(f"{name}.weight").swapaxes(-1, -2), "bias": pick(f"{name}.bias")}

    def norm(pick, name):
        return {"scale": pick(f"{name}.weight"), "bias": pick(f"{name}.bias")}

    def block(pick):
        attention = ("query", "key", "value", "output")
        return {
            "attention_norm": norm(pick, "input_layernorm"),
            "mlp_norm": norm(pick, "post_attention_layernorm"),
            "attention": {
                n: linear(pick, f"attention.{'dense' if n == 'output' else n}") for n in attention
            },
            "mlp": {
                "up": linear(pick, "mlp.dense_h_to_4h"),
                "down": linear(pick, "mlp.dense_4h_to_h"),
            },
        }

    return {
        "embedding": {
            "tokens": state["word_embeddings.weight"],
            "positions": state["position_embeddings.weight"],
        },
        "layers": block(lambda n: np.stack([state[f"layers.{i}.{n}"] for i in range(3)])),
        "final_norm": norm(state.get, "final_layernorm"),
        "top_query": {
            "positions": state["top_query_embeddings.weight"],
            "layer": block(lambda n: state[f"topQueryLayer.{n}"]),
        },
    }


CODEGEEX = ModelConfig(
    vocab_size=512, context_length=128, d_model=64, num_layers=3, num_heads=4, d_ff=256
)
TOKENS = np.random.default_rng(0).integers(0, 512, (3, 20), np.int32)


def loaded(config, params):
    return checkpoints.Loaded(Transformer(config), params, None, {})


def check(codegeex, config, params, **options):
    return v.verify(
        loaded(config, params), codegeex / "codegeex_tiny.pt", TOKENS, num_heads=4, **options
    )


@pytest.fixture
def params(torch, codegeex):
    return codegeex_params(codegeex / "codegeex_tiny.pt")


def test_a_saved_model_agrees_with_its_original(codegeex, params, tmp_path):
    checkpoints.save_model(tmp_path / "model", CODEGEEX, params)
    opened = checkpoints.load_model(tmp_path / "model")
    rows = [TOKENS[0], TOKENS[1][:7], TOKENS[2][:1]]
    report = v.verify(opened, codegeex / "mp2", rows, num_heads=4, batch_size=2, release=True)
    assert report.passed and report.first_apart is None
    assert report.verdict.startswith("agrees: max |dlogit| ") and "no layer parts" in report.verdict
    assert (report.weights, report.kind, report.rows) == ("float16", "codegeex", 3)
    found = report.comparison
    assert found.positions == 28 and 0 < found.max_abs_logit < 3e-5
    assert found.top1_agreement == 1 and found.kl_max < 1e-8 and found.rms_logit > 1
    assert [s.name for s in found.states] == [*state_names(3, True), "logits"]
    assert not opened.params  # released
    assert json.loads(json.dumps(report.to_dict()))["comparison"]["states"][0]["relative"] == 0
    table = v.render(report)
    assert "top query layer" in table and table.endswith(report.verdict)


def nudged(params, path, layer=None):
    """A copy with one weight of one layer moved a little."""
    copy = jax.tree.map(np.array, params)
    inner = copy
    for part in path.split("/"):
        inner = inner[part]
    if layer is not None:
        inner = inner[layer]
    inner[3, 5] += 0.1
    return copy


@pytest.mark.parametrize(
    ("path", "layer", "named"),
    [
        ("layers/attention/value/kernel", 1, "layer 1"),
        ("layers/mlp/down/kernel", 2, "layer 2"),
        ("top_query/layer/mlp/up/kernel", None, "top query layer"),
    ],
)
def test_a_changed_weight_is_found_in_its_layer(codegeex, params, path, layer, named):
    report = check(codegeex, CODEGEEX, nudged(params, path, layer))
    assert report.passed is False and report.first_apart == named
    assert report.verdict.startswith("DIFFERS") and report.verdict.endswith(f"at {named}")


def test_a_changed_position_is_found_in_the_embedding(codegeex, params):
    report = check(codegeex, CODEGEEX, nudged(params, "embedding/positions"))
    assert report.first_apart == "embedding"


def test_wrong_settings_are_found_where_they_act_first(codegeex, params):
    for change in ({"norm_eps": 1e-6}, {"activation": "gelu_tanh"}):
        report = check(codegeex, CODEGEEX.replace(**change), params)
        assert report.passed is False and report.first_apart == "layer 0"
    assert check(codegeex, CODEGEEX, params, tolerance=1e-9).passed is False
    assert check(codegeex, CODEGEEX.replace(norm_eps=1e-6), params, tolerance=1.0).passed


def test_dropped_rows_of_a_padded_vocabulary_are_left_out(codegeex, params):
    table = params["embedding"]["tokens"][:500]
    short = params | {"embedding": params["embedding"] | {"tokens": table}}
    report = v.verify(
        loaded(CODEGEEX.replace(vocab_size=500), short),
        codegeex / "codegeex_tiny.pt",
        TOKENS % 500,
        num_heads=4,
    )
    assert report.passed and report.comparison.kl_max < 1e-8


def test_unscanned_layers_are_read_too(codegeex, params):
    from geex_jax.models import unstack_layers

    report = check(codegeex, CODEGEEX.replace(scan_layers=False), unstack_layers(params))
    assert report.passed and report.first_apart is None


def test_quantized_weights_are_measured_without_a_verdict(codegeex, params):
    wide = jax.tree.map(lambda x: np.asarray(x, np.float32), params)
    report = check(codegeex, CODEGEEX, quantize.quantize_params(wide, 8))
    assert report.weights == "int8 (clean)" and report.tolerance is None
    assert report.passed is None and report.first_apart is None
    assert "measured: int8" in report.verdict and 0.01 < report.comparison.max_abs_logit < 1
    strict = check(codegeex, CODEGEEX, quantize.quantize_params(wide, 8), tolerance=1e-3)
    assert strict.passed is False and "widest apart at" in strict.verdict


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vocab_size": 600}, "vocabulary: the checkpoint has 600, the one to compare with 512"),
        ({"d_model": 32}, "d_model"),
        ({"num_layers": 2}, "number of layers"),
        ({"num_heads": 2}, "pass --num-heads"),
        ({"top_query_layer": False}, "top query layer"),
        ({"context_length": 16}, "20 tokens in a row, the context is 16"),
    ],
)
def test_other_sizes_are_refused_before_anything_runs(torch, codegeex, change, says):
    with pytest.raises(GeexError, match=says):
        check(codegeex, CODEGEEX.replace(**change), {})


def test_a_hugging_face_llama(torch, shared):
    folder = shared / "fixtures" / "hf" / "llama_codellama"
    safetensors = pytest.importorskip("safetensors.torch")
    state = safetensors.load_file(folder / "model.safetensors")
    state = {k: x.float().numpy() for k, x in state.items()}

    def stack(name):
        layers = [state[f"model.layers.{i}.{name}.weight"] for i in range(2)]
        return np.stack(layers).swapaxes(1, -1)

    def linears(room, names):
        return {ours: {"kernel": stack(f"{room}.{n}_proj")} for ours, n in names.items()}

    params = {
        "embedding": {"tokens": state["model.embed_tokens.weight"]},
        "layers": {
            "attention_norm": {"scale": stack("input_layernorm")},
            "mlp_norm": {"scale": stack("post_attention_layernorm")},
            "attention": linears(
                "self_attn", {"query": "q", "key": "k", "value": "v", "output": "o"}
            ),
            "mlp": linears("mlp", {"gate": "gate", "up": "up", "down": "down"}),
        },
        "final_norm": {"scale": state["model.norm.weight"]},
        "head": {"kernel": state["lm_head.weight"].T},
    }
    config = ModelConfig(
        vocab_size=272, context_length=128, d_model=64, num_layers=2, num_heads=4, d_ff=176,
        norm="rmsnorm", activation="silu", gated_mlp=True, position="rotary", rotary_theta=1e6,
        qkv_bias=False, output_bias=False, mlp_bias=False, tied_head=False, top_query_layer=False,
    )  # fmt: skip
    tokens = TOKENS % 272
    assert v.verify(loaded(config, params), folder, tokens).passed
    params["head"]["kernel"] = params["head"]["kernel"] * 1.01
    report = v.verify(loaded(config, params), folder, tokens)
    assert report.first_apart == "logits" and report.passed is False
    params["final_norm"]["scale"] = params["final_norm"]["scale"] * 1.01
    assert v.verify(loaded(config, params), folder, tokens).first_apart == "final norm"
    with pytest.raises(GeexError, match="token 272 is outside the vocabulary"):
        v.verify(loaded(config, params), folder, [[1, 272]])


def test_the_verb_says_it_in_its_exit_status(codegeex, params, tmp_path, capsys):
    checkpoints.save_model(tmp_path / "good", CODEGEEX, params)
    bad = nudged(params, "layers/mlp/up/kernel", 1)
    checkpoints.save_model(tmp_path / "bad", CODEGEEX, bad)
    against = ["--against", str(codegeex / "codegeex_tiny.pt"), "--length", "12", "--rows", "1"]
    assert main(["verify", str(tmp_path / "good"), *against]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("agrees: ")
    assert main(["verify", str(tmp_path / "bad"), *against, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["first_apart"] == "layer 1" and report["comparison"]["positions"] == 12
    assert main(["verify", str(tmp_path / "good"), *against, "--prompt", "x"]) == 2
    assert "has no tokenizer" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "good"), "--against", str(tmp_path / "good")]) == 2
    assert "is a geex model" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "good"), *against, "--tolerance", "0"]) == 2
    assert "--tolerance 0.0 must be positive" in capsys.readouterr().err


def test_the_verb_tokenizes_prompts(torch, codegeex, params, tmp_path, capsys):
    from geex_jax.tokenizers import train_sentencepiece

    texts = [f"def item_{i}(a, b):\n    return a * {i} + b\n" for i in range(200)]
    tokenizer = train_sentencepiece(texts, tmp_path / "spm", 400)
    checkpoints.save_model(tmp_path / "model", CODEGEEX, params, tokenizer)
    (tmp_path / "p.py").write_text("return a * 3 + b")
    prompts = ["--prompt", "def item", "--prompt-file", str(tmp_path / "p.py")]
    against = ["--against", str(codegeex / "codegeex_tiny.pt"), "--json"]
    assert main(["verify", str(tmp_path / "model"), *against, *prompts]) == 0
    expected = sum(len(tokenizer.encode(t)) for t in ("def item", "return a * 3 + b"))
    report = json.loads(capsys.readouterr().out)
    assert report["comparison"]["positions"] == expected and report["rows"] == 2


# The arithmetic, without PyTorch


def output(logits, *hidden):
    layers = len(hidden) - 2
    return PeerOutput(
        np.asarray(logits, np.float32),
        [np.asarray(h, np.float32) for h in hidden],
        state_names(layers, False),
    )


def test_kl_is_that_of_the_definition():
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])
    expected = 0.5 * np.log(2) + 0.25 * np.log(0.5)
    got = v.kl_divergence(np.log(p) + 7, np.log(q)[None] - 1000)
    assert got == pytest.approx([expected])
    assert v.kl_divergence(np.log(p), np.log(p) + 3) == pytest.approx(0, abs=1e-15)


def test_figures_of_a_comparison():
    ours = output([[[0, 2.0], [1, 0], [9, 9]]], np.ones((1, 3, 2)), np.ones((1, 3, 2)))
    theirs = output([[[0, 1.0], [0, 1], [0, 0]]], np.ones((1, 3, 2)), np.full((1, 3, 2), 2.0))
    found = v.compare(ours, theirs, np.array([[True, True, False]]))
    assert (found.positions, found.max_abs_logit, found.mean_abs_logit) == (2, 1, 0.75)
    assert found.rms_logit == pytest.approx(0.5**0.5)
    assert found.top1_agreement == 0.5
    p = 1 / (1 + np.exp(-1))
    assert found.kl_max == pytest.approx(2 * p - 1)
    assert [s.name for s in found.states] == ["embedding", "final norm", "logits"]
    assert [s.relative for s in found.states] == pytest.approx([0, 0.5, 2**0.5])
    assert found.first_apart(0.1) == "final norm" and found.first_apart(0.6) == "logits"
    assert found.first_apart(2.0) is None and found.widest().name == "logits"


def test_what_is_not_a_number_has_parted():
    good = output(np.ones((1, 1, 2)), *np.ones((3, 1, 1, 2)))
    bad = output(np.full((1, 1, 2), np.nan), *np.array([1, np.nan, np.nan]).reshape(3, 1, 1, 1))
    found = v.compare(bad, good)
    assert found.first_apart(1e-4) == "layer 0" and found.widest().name == "layer 0"
    assert not found.max_abs_logit <= 1
    report = v.Report("x", "gptj", "float32", 1, 1.0, 1e-4, found, "layer 0", False, "no")
    assert report.to_dict()["comparison"]["max_abs_logit"] is None
    with pytest.raises(GeexError, match="same parts"):
        v.compare(good, output(np.ones((1, 1, 2)), *np.ones((4, 1, 1, 2))))


def test_rows_are_padded_on_the_right():
    tokens, mask = v.pad_rows([[5, 6, 7], [8]])
    assert tokens.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[True] * 3, [True, False, False]]
    for rows in ([], [[]], [[1], []]):
        with pytest.raises(GeexError, match="no tokens"):
            v.pad_rows(rows)
