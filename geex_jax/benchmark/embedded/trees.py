"""Compositions as trees: evaluation, canonical form, the split by composition."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from geex_jax.benchmark.embedded.draw import Draw
from geex_jax.benchmark.embedded.functions import FUNCTIONS, Arg, Constant, Lambda, value
from geex_jax.benchmark.embedded.operations import OPERATIONS, Operation

HELD_OUT_SHARE = 0.12  # of the compositions
SALT = "111"  # of the split: with this one every primitive and every function is seen in training
PROBES = 24  # inputs that tell compositions apart
PART_NODES = 3  # largest part of a composition that the split looks at
# What constants are in the canonical form of a composition: their values do not count.
CANONICAL = {"digit": 4, "factor": 3, "size": 4, "few": 2, "letter": "a", "separator": " "}


@dataclasses.dataclass(frozen=True)
class Node:
    """A primitive with its values, or one of the task's inputs.

    Attributes:
      key: of OPERATIONS, or "input".
      args: where its values come from.
      function: its function of one element.
      constants: its constants; an input's number.
      kind: of its result.
    """

    key: str
    args: tuple[Node, ...] = ()
    function: Lambda | None = None
    constants: tuple[Constant, ...] = ()
    kind: str = ""

    @property
    def operation(self) -> Operation:
        """Its primitive."""
        return OPERATIONS[self.key]

    @property
    def is_input(self) -> bool:
        """Whether it is one of the task's inputs."""
        return self.key == "input"

    def nodes(self) -> Iterator[Node]:
        """Its primitives, values before what is made of them."""
        for arg in self.args:
            yield from arg.nodes()
        if not self.is_input:
            yield self

    def lambdas(self) -> list[Lambda]:
        """The functions of one element below, combinations taken apart."""
        found = [n.function for n in self.nodes() if n.function]
        return [leaf for f in found for leaf in f.leaves()]


def make(key: str, args: Sequence[Node], function: Lambda | None = None,
         constants: Sequence[Constant] = ()) -> Node:  # fmt: skip
    """A node of a primitive."""
    return Node(key, tuple(args), function, tuple(constants), OPERATIONS[key].target)


def leaf(index: int, kind: str) -> Node:
    """A node of the task's input of that number."""
    return Node("input", constants=(index,), kind=kind)


def evaluate(node: Node, inputs: Sequence[Any]) -> Any:
    """The value of a composition."""
    return Columns([inputs]).of(node)[0]


class Columns:
    """Values of compositions for many inputs at once; parts that they share are computed once.

    Args:
      rows: the inputs; values are not to be changed.
    """

    def __init__(self, rows: Sequence[Sequence[Any]]):
        self.rows = rows
        self._known: dict[int, tuple[Node, list[Any]]] = {}  # by identity: hashing costs more

    def of(self, node: Node) -> list[Any]:
        """The value for each row."""
        found = self._known.get(id(node))
        if found is None:
            found = self._known[id(node)] = (node, self._compute(node))
        return found[1]

    def _compute(self, node: Node) -> list[Any]:
        if node.is_input:
            index: Any = node.constants[0]
            return [row[index] for row in self.rows]
        args = zip(*(self.of(arg) for arg in node.args), strict=True)
        function, constants = node.function, node.constants
        run = node.operation.run
        if any(isinstance(k, Arg) for k in constants) or (function and function.asks):
            return [
                run(
                    values,
                    function.bind(row) if function else None,
                    [value(k, row) for k in constants],
                )
                for values, row in zip(args, self.rows, strict=True)
            ]
        bound = function.bind(()) if function else None
        return [run(values, bound, constants) for values in args]


def spell(node: Node) -> str:
    """A text that tells the composition, with its constants."""
    if node.is_input:
        return f"${node.constants[0]}:{node.kind}"
    extra = [_spell_lambda(node.function)] if node.function else []
    extra += [_spell_constant(k) for k in node.constants]
    return f"{node.key}({', '.join([*map(spell, node.args), *extra])})"


def _spell_lambda(function: Lambda) -> str:
    inner = [*map(_spell_lambda, function.parts), *map(_spell_constant, function.constants)]
    return f"{function.name}[{', '.join(inner)}]" if inner else function.name


def _spell_constant(constant: Constant) -> str:
    return f"${constant.index}" if isinstance(constant, Arg) else repr(constant)


def canonical(node: Node) -> Node:
    """The same composition, each constant replaced by the canonical one of its kind.

    Inputs are numbered from the left; one that is used twice becomes two.
    """
    numbers = itertools.count()

    def rebuild(n: Node) -> Node:
        if n.is_input:
            return leaf(next(numbers), n.kind)
        constants = tuple(CANONICAL[c] for c in n.operation.constants)
        if len(constants) == 2:
            constants = (constants[0], "o")
        function = _canonical_lambda(n.function) if n.function else None
        return dataclasses.replace(
            n, args=tuple(map(rebuild, n.args)), constants=constants, function=function
        )

    return rebuild(node)


def _canonical_lambda(function: Lambda) -> Lambda:
    if function.parts:
        return dataclasses.replace(
            function, parts=tuple(_canonical_lambda(p) for p in function.parts)
        )
    constants = tuple(CANONICAL[c] for c in FUNCTIONS[function.name].constants)
    return dataclasses.replace(function, constants=constants)


def _input_kinds(node: Node) -> list[str]:
    if node.is_input:
        return [node.kind]
    return [kind for arg in node.args for kind in _input_kinds(arg)]


@functools.lru_cache(maxsize=200_000)
def signature(node: Node) -> str:
    """What a canonical composition does to fixed inputs, as a hash.

    Two spellings of the same function (a filter before or after sorting) have one signature, so
    that they fall on the same side of the split.
    """
    kinds = _input_kinds(node)
    rows: list[Any] = [[node.kind, *kinds]]
    for out in Columns(probe_rows(kinds)).of(node):
        rows.append(sorted(out.items()) if isinstance(out, dict) else out)
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def probe_rows(kinds: Sequence[str]) -> list[list[Any]]:
    """PROBES fixed inputs for a composition with inputs of these kinds."""
    return [
        [_probes(kind)[(i * (5 * j + 1) + 7 * j) % PROBES] for j, kind in enumerate(kinds)]
        for i in range(PROBES)
    ]


@functools.cache
def _probes(kind: str) -> list[Any]:
    from geex_jax.benchmark.embedded.inputs import Domain, sample

    draw = Draw("probes", kind)
    return [sample(draw, Domain(kind, small=True), (), i) for i in range(PROBES)]


def parts(node: Node, limit: int = PART_NODES) -> list[Node]:
    """The connected parts of up to `limit` primitives, and the whole; cut ends become inputs."""
    found = {spell(p): p for n in node.nodes() for p in _rooted(n, limit)}
    found[spell(node)] = node
    return list(found.values())


def _rooted(node: Node, limit: int) -> Iterator[Node]:
    # Each child is cut off, or taken with up to the nodes that are left.
    choices = []
    for arg in node.args:
        kept = [] if arg.is_input or limit <= 1 else list(_rooted(arg, limit - 1))
        choices.append([leaf(0, arg.kind), *kept])
    for args in itertools.product(*choices):
        part = dataclasses.replace(node, args=args)
        if sum(1 for _ in part.nodes()) <= limit:
            yield part


def _held_out(node: Node) -> bool:
    found = signature(canonical(node))
    if found in _alone():
        return False
    digest = hashlib.sha256(f"{SALT}/{found}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < HELD_OUT_SHARE


@functools.cache
def _alone() -> frozenset[str]:
    """Signatures of primitives alone: no compositions, and a model has to see them once."""
    nodes = [
        make(key, [leaf(i, kind) for i, kind in enumerate(o.sources)], None, o.constants)
        for key, o in OPERATIONS.items()
        if o.takes is None
    ]
    return frozenset(signature(canonical(node)) for node in nodes)


@functools.lru_cache(maxsize=200_000)
def _part_held_out(node: Node) -> bool:
    return _held_out(node)


def split_of(node: Node) -> str | None:
    """ "held-out", "train", or None for what neither may have.

    A composition is held out by the hash of its signature. A task of the train split has no
    held-out composition as a part, of up to PART_NODES primitives, or as the whole.
    """
    if _held_out(node):
        return "held-out"
    if any(_part_held_out(canonical(part)) for part in parts(node)):
        return None
    return "train"
