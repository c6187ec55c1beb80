"""A composition in plain English: one sentence a step, the last one says what is returned."""

from __future__ import annotations

from geex_jax.benchmark.embedded import phrases
from geex_jax.benchmark.embedded.draw import Draw
from geex_jax.benchmark.embedded.functions import FUNCTIONS, Arg, Constant, Lambda
from geex_jax.benchmark.embedded.operations import (
    COUNTS,
    INT,
    NUMBERS,
    TEXT,
    WORDS,
)
from geex_jax.benchmark.embedded.trees import Node

NOUNS = {INT: "number", TEXT: "text", NUMBERS: "numbers", WORDS: "words", COUNTS: "map"}
_SINGULAR = {"are": "is", "have": "has", "start": "starts", "begin": "begins", "end": "ends",
             "contain": "contains", "read": "reads"}  # fmt: skip
_BRANCHES = ("first", "second")
LINE = 88


class English:
    """Writes one task's description.

    Args:
      names: of the inputs, as in the declaration.
      draw: picks among phrases; None: always the plain one.
    """

    def __init__(self, names: tuple[str, ...], draw: Draw | None = None):
        self.names, self.draw = names, draw

    def describe(self, root: Node) -> list[str]:
        """Sentences."""
        return [s[0].upper() + s[1:] + "." for s in [*self._steps(root), self._last(root)]]

    def _steps(self, node: Node) -> list[str]:
        """What comes before the primitive at the top."""
        if node.is_input:
            return []
        if len(node.args) == 1:
            child = node.args[0]
            if child.is_input:
                return []
            before = self._steps(child)
            return [*before, self._do(child)]
        sentences = []
        for name, arg in zip(_BRANCHES, node.args, strict=True):
            if arg.is_input:
                continue
            sentences += [f"start with {self.names[_source(arg)]}", *self._steps(arg)]
            if phrases.says(arg.key):
                sentences.append(f"let {name} be {self._give(arg)}")
            else:
                sentences += [self._do(arg), f"let {name} be the {NOUNS[arg.kind]}"]
        return sentences

    def _last(self, node: Node) -> str:
        if self.draw is None:  # the same words wherever a primitive stands: quicker to learn
            done = self._do(node)
            return f"{done}{',' if ', ' in done else ''} and return the result"
        if phrases.says(node.key):
            return f"return {self._give(node)}"
        return f"{self._do(node)} and return the {NOUNS[node.kind]}"

    def _do(self, node: Node) -> str:
        return self._fill(node, self._pick(phrases.do(node.key)))

    def _give(self, node: Node) -> str:
        return self._fill(node, self._pick(phrases.give(node.key)))

    def _fill(self, node: Node, phrase: str) -> str:
        words = {}
        if node.function and node.function.target == "bool":
            plural = self._predicate(node.function)
            words = {"p": plural, "p1": _singular(plural)}
        for letter, constant in zip("kj", node.constants, strict=False):
            words[letter] = self._constant(constant)
        if len(node.args) == 2:
            for letter, name, arg in zip("ab", _BRANCHES, node.args, strict=True):
                words[letter] = self._name(arg) if arg.is_input else name
        if phrase.startswith("{it: "):
            assert node.function is not None
            return self._imperative(node.function, phrase[5:-1])
        return phrase.format(**words)

    def _predicate(self, function: Lambda) -> str:
        parts = [self._predicate(p) for p in function.parts]
        if function.name in ("and", "or"):
            return f"{parts[0]} {function.name} {parts[1]}"
        if function.name == "not":
            head, _, rest = parts[0].partition(" ")
            return f"are not {rest}" if head == "are" else f"do not {parts[0]}"
        phrase = self._pick(FUNCTIONS[function.name].phrases)
        return phrase.format(k=self._constant(function.constants[0]) if function.constants else "")

    def _imperative(self, function: Lambda, it: str) -> str:
        if function.name == "then":
            first, second = (self._imperative(p, it) for p in function.parts)
            return f"{first} and then {second.replace(it, 'it')}"
        if function.name == "if":
            condition, then, other = function.parts
            noun = it.removeprefix("each ").removeprefix("the ")
            test = _singular(self._predicate(condition))
            lead = "for each" if it.startswith("each") else "take the"
            yes = self._imperative(then, "it")
            no = "leave it unchanged" if other.name == "identity" else self._imperative(other, "it")
            return f"{lead} {noun}: if it {test}, {yes}, otherwise {no}"
        phrase = self._pick(FUNCTIONS[function.name].phrases)
        constant = self._constant(function.constants[0]) if function.constants else ""
        return phrase.format(it=it, k=constant)

    def _constant(self, constant: Constant) -> str:
        if isinstance(constant, Arg):
            return self.names[constant.index]
        return f"'{constant}'" if isinstance(constant, str) else str(constant)

    def _name(self, node: Node) -> str:
        index = node.constants[0]
        assert isinstance(index, int)
        return self.names[index]

    def _pick(self, choices: tuple[str, ...]) -> str:
        return self.draw.pick(choices) if self.draw else choices[0]


def _singular(predicate: str) -> str:
    """ "are even or start with x" to "is even or starts with x"."""
    predicate = predicate.replace("do not", "does not")
    if predicate.startswith("does not"):
        return predicate
    words = predicate.split(" ")
    words[0] = _SINGULAR.get(words[0], words[0])
    for i, word in enumerate(words[:-1]):
        if word in ("and", "or") and words[i + 1] in _SINGULAR:
            words[i + 1] = _SINGULAR[words[i + 1]]
    return " ".join(words)


def _source(node: Node) -> int:
    while not node.is_input:
        node = node.args[0]
    index = node.constants[0]
    assert isinstance(index, int)
    return index


def lines(sentences: list[str]) -> list[str]:
    """One line if it is short enough, else one for each sentence."""
    joined = " ".join(sentences)
    return [joined] if len(joined) <= LINE else sentences
