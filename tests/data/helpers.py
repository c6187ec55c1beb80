"""A byte tokenizer, small source trees, and a process to kill."""

import hashlib
import json
import pathlib
import sys

import numpy as np

TEXT = "value of the counter and the name of the thing\n"


class ByteTokenizer:
    """Byte b is id b; 256 ends a text, 257 pads."""

    kind = "bytes"
    vocab_size, eos_id, pad_id = 258, 256, 257

    def encode(self, text, *, allow_special=False):
        return list(text.encode())

    def encode_batch(self, texts, *, allow_special=False, num_workers=None):
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids):
        return bytes(i for i in ids if i < 256)

    def decode(self, ids):
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def token_byte_lengths(self):
        return np.array([1] * 256 + [0, 0], np.int32)

    def fingerprint(self):
        return "0123456789abcdef"

    def save(self, folder):
        path = pathlib.Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / "tokenizer.json").write_text(json.dumps({"kind": self.kind}))


def source(seed: int, size: int = 1500, comment: str = "#") -> str:
    """A text that passes all filters and differs from those of other seeds."""
    lines = [f"{comment} file number {seed} holds the {TEXT}"]
    while sum(map(len, lines)) < size:
        lines.append(f"{comment} line {len(lines)} of {seed} says the {TEXT}")
    return "".join(lines)


def write(path: pathlib.Path, content: str | bytes) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def make_tree(folder: pathlib.Path, counts: dict[str, int], size: int = 1500) -> pathlib.Path:
    """Makes `counts[extension]` files of each extension, in two folders, of growing sizes."""
    for extension, count in counts.items():
        for i in range(count):
            text = source(hash_int(extension) + i, size + 37 * i)
            write(folder / f"part{i % 2}" / f"file{i}{extension}", text)
    return folder


def hash_int(word: str) -> int:
    return int(hashlib.sha256(word.encode()).hexdigest()[:8], 16)


def digests(folder: pathlib.Path) -> dict[str, str]:
    """Relative path to SHA-256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


if __name__ == "__main__":  # prepare in a process that a test kills
    from geex_jax.data import PrepareConfig, prepare
    from geex_jax.data.sources import tree
    from tests.data.helpers import ByteTokenizer as Importable

    tree.PART_FILES = 8  # so that there is work for all workers
    config = PrepareConfig(
        seq_len=256,
        rows_per_shard=20,
        validation_fraction=0.2,
        workers=int(sys.argv[3]),
        packing="concat",
    )
    prepare(sys.argv[1], sys.argv[2], Importable(), config)
