"""Greedy tokens from a folder that `geex export --to stablehlo` wrote. Needs jax only
(and flatbuffers, which jax.export reads its files with).

  python run.py --tokens 5,17,42 --tokens 8,9 --new 16

Prints one line of comma-separated new token ids for each prompt. What the two programs take and
give is in manifest.json; this file is the shortest thing that calls them.
"""

import argparse
import json
import pathlib

import jax
import jax.export
import jax.numpy as jnp
import ml_dtypes  # comes with jax
import numpy as np

TYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I8": np.int8,
         "U8": np.uint8, "I32": np.int32}  # fmt: skip


def read_weights(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name, mapped rather than read."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    data = np.memmap(path, np.uint8, "r", offset=8 + length)
    out = {}
    for name, about in header.items():
        if name != "__metadata__":
            begin, end = about["data_offsets"]
            out[name] = data[begin:end].view(TYPES[about["dtype"]]).reshape(about["shape"])
    return out


def generate(folder: pathlib.Path, prompts: list[list[int]], new: int) -> list[list[int]]:
    """The most likely continuation of each prompt, `new` tokens or up to the end token."""
    about = json.loads((folder / "manifest.json").read_text())
    programs = {}
    for name in ("prefill", "decode"):
        exported = jax.export.deserialize(bytearray((folder / f"{name}.bin").read_bytes()))
        donated = (2,) if name == "decode" else ()  # the cache is written in place
        programs[name] = jax.jit(exported.call, donate_argnums=donated)
    weights = {k: jnp.asarray(v) for k, v in read_weights(folder / about["weights"]).items()}
    lengths = np.array([len(p) for p in prompts], np.int32)
    if min(lengths) < 1 or max(lengths) + new > about["slots"]:
        raise SystemExit(f"prompts of 1 to {about['slots'] - new} tokens fit")
    tokens = np.zeros((len(prompts), max(lengths)), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt  # padding on the right
    logits, cache = programs["prefill"](weights, tokens, lengths)
    out: list[list[int]] = [[] for _ in prompts]
    running = [True] * len(prompts)
    for step in range(new):
        limit = about["tokens"] or logits.shape[-1]  # rows beyond it are padding
        last = np.asarray(jnp.argmax(logits[:, :limit], axis=-1), np.int32)
        for i, token in enumerate(last.tolist()):
            if running[i]:
                out[i].append(token)
                running[i] = token != about["eos"]
        if not any(running) or step == new - 1:
            return out
        logits, cache = programs["decode"](weights, last[:, None], cache)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", action="append", required=True, help="a prompt: 5,17,42")
    parser.add_argument("--new", type=int, default=16, help="tokens to draw")
    arguments = parser.parse_args()
    asked = [[int(word) for word in one.split(",")] for one in arguments.tokens]
    for row in generate(pathlib.Path(__file__).parent, asked, arguments.new):
        print(",".join(map(str, row)))
