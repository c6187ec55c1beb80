"""Which parameter gets which format: one table, as for shardings.

A policy is a list of rules (pattern, format), read from the top; the first whose pattern matches
the end of a path decides. Paths are those of the linears ("layers/mlp/up", "top_query/layer/
attention/query", "head") and of the token table ("embedding/tokens"). A linear that no rule
matches is an error, never a catch-all; a token table that none matches stays float.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from typing import Any, NamedTuple

from geex_jax.errors import GeexError, did_you_mean

GROUPS = (32, 64, 128)
TABLE = "embedding/tokens"
LINEARS = r"(query|key|value|output|gate|up|down)"


class Format(NamedTuple):
    """What a weight is stored as.

    Attributes:
      bits: 8, 4, or None for float as it is.
      group: inputs that share a scale; None for all of an output channel.
    """

    bits: int | None
    group: int | None = None

    @property
    def name(self) -> str:
        """As in policies: "float", "int8", "int4", "int4-g64"."""
        if self.bits is None:
            return "float"
        return f"int{self.bits}" + (f"-g{self.group}" if self.group else "")


FORMATS = {f.name: f for f in (Format(None), Format(8), Format(4), *(Format(4, g) for g in GROUPS))}


@dataclasses.dataclass(frozen=True)
class Policy:
    """A table from paths to formats.

    Attributes:
      name: what it was asked for by.
      rules: (regular expression for the end of a path, name of a format), the first match decides.
      strict: a rule that matches nothing is an error; named policies serve many models.

    Raises:
      GeexError: a pattern that is no regular expression, an unknown format.
    """

    name: str
    rules: tuple[tuple[str, str], ...]
    strict: bool = True

    def __post_init__(self):
        for pattern, name in self.rules:
            if name not in FORMATS:
                raise GeexError(
                    f"policy {self.name}: unknown format {name!r}", did_you_mean(name, FORMATS)
                )
            try:
                re.compile(pattern)
            except re.error as error:
                raise GeexError(
                    f"policy {self.name}: {pattern!r} is no pattern ({error})",
                    "give a regular expression such as mlp/.*",
                ) from None

    def rule(self, path: str) -> int | None:
        """The number of the rule that decides about a path; None if none matches."""
        # Of an unrolled model, layers_3/mlp/up is one of layers/mlp/up.
        path = re.sub(r"^layers_\d+/", "layers/", path)
        for i, (pattern, _) in enumerate(self.rules):
            if re.search(rf"(^|/)({pattern})$", path):
                return i
        return None

    def format(self, path: str) -> Format:
        """The format of a linear or of the token table.

        Raises:
          GeexError: no rule matches a linear; a token table would be int4.
        """
        i = self.rule(path)
        if i is None:
            if path == TABLE:
                return FORMATS["float"]
            raise GeexError(
                f"{path} holds a kernel and no rule of policy {self.name} matches it",
                f"add one, for example {path}=float",
            )
        found = FORMATS[self.rules[i][1]]
        if path == TABLE and found.name not in ("float", "int8"):
            raise GeexError(
                f"policy {self.name}: {TABLE} in {found.name}", f"put {TABLE}=int8 before that rule"
            )
        return found

    def check_used(self, paths: list[str]) -> None:
        """Raises GeexError for a rule that decides about none of a model's weights."""
        used = {self.rule(path) for path in paths}
        for i, (pattern, name) in enumerate(self.rules):
            if self.strict and i not in used:
                raise GeexError(
                    f"policy {self.name}: {pattern}={name} decides about no weight of this model",
                    f"its weights: {', '.join(_brief(paths))}",
                )


def _brief(paths: list[str]) -> list[str]:
    return list(dict.fromkeys(re.sub(r"^layers_\d+/", "layers/", path) for path in paths))


def _uniform(name: str) -> tuple[tuple[str, str], ...]:
    return ((LINEARS, name), ("head", "float"), (TABLE, "float"))


# Embeddings and heads stay float unless "+embedding" is added: they are the paper's formats.
NAMED: dict[str, tuple[tuple[str, str], ...]] = {
    name: _uniform(name) for name in FORMATS if name != "float"
}
# What costs most when it loses bits (values, and what is added to the residual stream) keeps 8.
NAMED["mixed"] = (
    (r"(value|output|down)", "int8"),
    (r"(query|key|gate|up)", "int4-g64"),
    ("head", "float"),
    (TABLE, "float"),
)
WITH_EMBEDDING = "+embedding"


def parse(text: Any) -> Policy:
    """A policy from what a user gives.

    Args:
      text: a Policy; bits (8, 4); a name ("int8", "int4-g128", "mixed", "int8+embedding": the
        token table and an untied head in int8 too); rules "pattern=format,pattern=format"; a JSON
        object {pattern: format}; or the path of a file with one.

    Raises:
      GeexError: none of these.
    """
    if isinstance(text, Policy):
        return text
    if isinstance(text, int):
        if text not in (8, 4):
            raise GeexError(f"cannot quantize to {text} bits", "choose 8 or 4")
        return parse(f"int{text}")
    text = str(text).strip()
    base = text.removesuffix(WITH_EMBEDDING)
    if base in NAMED:
        rules = NAMED[base]
        if base != text:
            rules = (*rules[:-2], ("head", "int8"), (TABLE, "int8"))
        return Policy(text, rules, strict=False)
    if text.startswith("{") or text.endswith(".json"):
        return _from_json(text)
    if "=" in text:
        rules = []
        for part in text.split(","):
            pattern, found, name = part.strip().rpartition("=")
            if not found:
                raise GeexError(f"policy rule {part.strip()!r}", "write pattern=format")
            rules.append((pattern.strip(), name.strip()))
        return Policy(text, tuple(rules))
    known = [*NAMED, *(name + WITH_EMBEDDING for name in NAMED)]
    raise GeexError(
        f"unknown policy {text!r}", f"{did_you_mean(text, known)}; or rules pattern=format,..."
    )


def _from_json(text: str) -> Policy:
    name, source = text, text
    try:
        if not text.startswith("{"):
            source, name = pathlib.Path(text).read_text(), pathlib.Path(text).name
        values = json.loads(source)
    except (OSError, ValueError) as error:
        raise GeexError(f"policy {name}: {error}", 'give {"pattern": "format", ...}') from None
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        raise GeexError(f"policy {name} is no table", 'give {"pattern": "format", ...}')
    return Policy(name, tuple(values.items()))
