"""What transformers' beam search finds where logits depend on the last token and its place.

`python tests/inference/beam_peer.py > tests/fixtures/beam.json`, with transformers and PyTorch;
the file in the repository is of transformers 5.23.0.
"""

import json

import numpy as np

VOCAB, EOS, PLACES = 24, 5, 4
PROMPTS = ([3, 7, 1], [9], [1, 2, 3, 4, 6, 7])
EARLY = {"heuristic": False, "full": True, "never": "never"}


def table():
    """Logits float32 [PLACES, VOCAB, VOCAB] behind a token at place % PLACES."""
    return np.random.RandomState(0).normal(size=(PLACES, VOCAB, VOCAB)).astype(np.float32) * 2


def cases():
    """(name of early stopping, length penalty, prompt, new tokens)."""
    return [
        (early, penalty, prompt, count)
        for early in EARLY
        for penalty in (-0.5, 0.5, 1.0, 2.0)
        for prompt in PROMPTS
        for count in (4, 12)
    ]


def main():
    import torch
    import transformers
    from transformers.modeling_outputs import CausalLMOutput

    class Peer(transformers.GPT2LMHeadModel):
        def forward(self, input_ids=None, **_):
            place = (torch.arange(input_ids.shape[1]) % PLACES).expand_as(input_ids)
            return CausalLMOutput(logits=torch.tensor(table())[place, input_ids])

    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_embd=8, n_layer=1, n_head=1, n_positions=64,
        eos_token_id=EOS, bos_token_id=EOS, pad_token_id=EOS, use_cache=False,
    )  # fmt: skip
    peer = Peer(config).eval()
    rows = []
    for early, penalty, prompt, count in cases():
        out = peer.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            num_beams=4, num_return_sequences=4, max_new_tokens=count, do_sample=False,
            length_penalty=penalty, early_stopping=EARLY[early], use_cache=False,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        found = zip(out.sequences.tolist(), out.sequences_scores.tolist(), strict=True)
        rows.append([[row[len(prompt) :], score] for row, score in found])
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
