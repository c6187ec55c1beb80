"""lm-eval's `local-completions` against our server: a client that nobody here wrote.

Its ids come from our `/tokenize`; what it adds up is known, as is what the engine writes.
"""

import json

import pytest

from tests.serving.fakes import served
from tests.serving.servers import running

lm_eval = pytest.importorskip("lm_eval")

DOCS = [
    {"q": "def f(a):", "choices": [" return a", " é"], "gold": 1},
    {"q": "x", "choices": ["ab", "c"], "gold": 0},
]
COMMON = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
target_delimiter: ""
"""
TASKS = {
    "choose": "output_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_choice: '{{choices}}'\n"
    "doc_to_target: gold\nmetric_list: [{metric: acc}]\n",
    "write": "output_type: generate_until\ndoc_to_text: '{{q}}'\ndoc_to_target: 'mno'\n"
    "generation_kwargs: {until: ['p'], max_gen_toks: 20}\nmetric_list: [{metric: exact_match}]\n",
    "roll": "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{q}}'\n"
    "metric_list: [{metric: bits_per_byte}]\n",
}


def test_log_likelihoods_and_completions_arrive(tmp_path, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    file = tmp_path / "docs.jsonl"
    file.write_text("".join(json.dumps(d) + "\n" for d in DOCS))
    for name, text in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\n{COMMON.format(file=file)}{text}")
    with running([served()]) as client:
        found = lm_eval.simple_evaluate(
            model="local-completions",
            model_args={"model": "fake", "base_url": f"{client.base_url}/v1/completions",
                        "num_concurrent": 2},
            tasks=[*TASKS],
            task_manager=lm_eval.tasks.TaskManager(include_path=str(tmp_path)),
            batch_size=2,
            log_samples=True,
            bootstrap_iters=0,
        )  # fmt: skip
        ids = client.post("/tokenize", json={"prompt": " é"}).json()["tokens"]
    answers = [[float(x[0]) for x in s["filtered_resps"]] for s in found["samples"]["choose"]]
    # The fake's log-probability is -0.5 for every token, and a token is a byte.
    assert answers == [[-0.5 * len(" return a"), -0.5 * len(ids)], [-1.0, -0.5]]
    assert found["results"]["choose"]["acc,none"] == 0.5
    # lm-eval's seed is 1234, with which the fake begins at "m".
    assert [s["filtered_resps"][0] for s in found["samples"]["write"]] == ["mno"] * 2
    assert found["results"]["write"]["exact_match,none"] == 1.0
    assert found["results"]["roll"]["bits_per_byte,none"] == pytest.approx(0.5 / 0.6931472)
