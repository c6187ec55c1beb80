"""The two parts of CodeBLEU (Ren et al., 2020) that look at syntax: subtrees and data flow."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter

from geex_jax.benchmark.metrics.grammars import Grammar, grammar
from geex_jax.benchmark.metrics.tree import MAX_NODES, Tree, parse

Edge = tuple[str, str, tuple[str, ...]]  # variable, "comes from" or "computed from", variables

MAX_SOURCES = 64  # variables in one edge


@dataclasses.dataclass(frozen=True)
class Features:
    """What is compared of a program."""

    subtrees: Counter
    edges: Counter


@functools.lru_cache(maxsize=256)
def features(language: str, code: str, context: str = "") -> Features:
    """Parses a program and counts its subtrees and edges of data flow.

    Args:
      language: one of the six.
      code: the program, or what follows `context`.
      context: its beginning, which is parsed with it but not counted.
    """
    tree = parse(language, context + code)
    begin = len(context.encode("utf-8", "replace"))
    edges = normalised(data_flow(tree, grammar(language), begin))
    return Features(subtrees(tree, begin), Counter(edges))


def found_again(candidate: Counter, reference: Counter) -> float:
    """The share of the reference's subtrees whose shape the candidate has anywhere.

    Repeats are not held against each other: CodeBLEU's own code does so, though the paper's
    formula has them clipped.
    """
    total = reference.total()
    return sum(n for shape, n in reference.items() if shape in candidate) / total if total else 1.0


def overlap(candidate: Counter, reference: Counter) -> float:
    """The share of the reference's items that the candidate has too, counted with repeats.

    A reference without items is matched by anything (1.0): CodeBLEU's own code does so for a
    reference without data flow.
    """
    total = reference.total()
    return (candidate & reference).total() / total if total else 1.0


def subtrees(tree: Tree, begin: int = 0) -> Counter[int]:
    """Counts the subtrees of more than one node by their shape: kinds, not names or values.

    The root counts always; else a node has to have children, if only signs, and to end behind
    byte `begin`.
    """
    shapes: list[list[int]] = [[] for _ in tree.kind]
    found: Counter[int] = Counter()
    for node in range(len(tree.kind) - 1, -1, -1):
        inner = shapes[node]
        # Python's own hash of nested hashes: within one process equal shapes are equal numbers.
        shape = hash((tree.kind[node], *inner))
        if not node or (tree.inner[node] and tree.stop[node] > begin):
            found[shape] += 1
        shapes[node] = []
        if node:
            shapes[tree.parent[node]].append(hash((tree.field[node], shape)))
    return found


def normalised(edges: list[Edge]) -> list[Edge]:
    """Renames the variables by the order in which the edges name them."""
    names: dict[str, str] = {}

    def name(variable: str) -> str:
        return names.setdefault(variable, f"var{len(names)}")

    return [(name(v), how, tuple(name(s) for s in sources)) for v, how, sources in edges]


def data_flow(tree: Tree, table: Grammar, begin: int = 0) -> list[Edge]:
    """Finds where the values of variables come from, in the program from byte `begin` on.

    A variable is a name that the program binds somewhere (assignment, declaration, parameter,
    loop). Each binding with variables on its right is an edge "computed from"; each other
    mention of a variable is an edge "comes from" itself, that is from its last binding. Names
    are told apart by spelling alone: a variable that shadows another counts as the same.
    """
    return _Walk(tree, table).edges(begin)


class _Walk:
    """One program's pass for bindings, then one for edges."""

    def __init__(self, tree: Tree, table: Grammar):
        self.tree = tree
        self.table = table
        self.steps = 10 * MAX_NODES  # bindings within bindings are scanned again: a bound on it
        self.bound: dict[int, list[tuple[list[int], list[int]]]] = {}
        for node, kind in enumerate(tree.kind):
            if kind in table.binders:
                self.bound[node] = self._pairs(node)
        self.defined = {t for pairs in self.bound.values() for ts, _ in pairs for t in ts}
        self.names = {tree.text[leaf] for leaf in self.defined}

    def edges(self, begin: int) -> list[Edge]:
        found: list[Edge] = []
        text = self.tree.text
        for node in range(len(self.tree.kind)):
            for targets, roots in self.bound.get(node, ()):
                sources = [text[leaf] for root in roots for leaf in self._sources(root)]
                if self._updates(node):
                    sources = [text[leaf] for leaf in targets] + sources
                sources = list(dict.fromkeys(sources))[:MAX_SOURCES]
                if sources:
                    found += [
                        (text[leaf], "computed from", tuple(sources))
                        for leaf in targets
                        if self.tree.begin[leaf] >= begin
                    ]
            here = self.tree.begin[node] >= begin and node not in self.defined
            if here and self._is_use(node):
                found.append((text[node], "comes from", (text[node],)))
        return found

    def _updates(self, node: int) -> bool:
        sign = self.tree.operator.get(node, "")  # JavaScript's loops have the sign `of`
        compound = sign in ("++", "--") or (sign.endswith("=") and sign not in ("=", ":="))
        return compound or self.tree.kind[node] in self.table.updates

    def _is_use(self, node: int) -> bool:
        tree = self.tree
        if tree.kind[node] not in self.table.variables or tree.text[node] not in self.names:
            return False
        return (tree.kind[tree.parent[node]], tree.field[node]) not in self.table.labels

    def _pairs(self, node: int) -> list[tuple[list[int], list[int]]]:
        """(target leaves, roots of sources) of a binding; `a, b = c, d` is two pairs."""
        left, right = self.table.binders[self.tree.kind[node]]
        children = self.tree.children(node)
        targets = self._unpacked([c for c in children if self.tree.field[c] in left])
        sources = self._unpacked([c for c in children if right and self.tree.field[c] in right])
        if len(targets) == len(sources):
            return [(self._targets(t), [s]) for t, s in zip(targets, sources, strict=True)]
        return [([leaf for t in targets for leaf in self._targets(t)], sources)]

    def _unpacked(self, nodes: list[int]) -> list[int]:
        if len(nodes) == 1 and self.tree.kind[nodes[0]] in self.table.lists:
            return self.tree.children(nodes[0])
        return nodes

    def _targets(self, root: int) -> list[int]:
        """The variables that a pattern binds; of `a[i]` and `a.b` that is `a`."""
        tree, table, found, node = self.tree, self.table, [], root
        place_end = -1  # end of the `a[i]` that we are in, whose first variable is taken
        while node < tree.end[root] and self.steps > 0:
            self.steps -= 1
            kind = tree.kind[node]
            inner = node != root
            if kind in table.binders or (inner and tree.field[node] in table.not_bound):
                node = tree.end[node]
                continue
            if kind in table.places and node >= place_end:
                place_end = tree.end[node]
            if kind in table.variables:
                if not (table.constants and tree.text[node][:1].isupper()):
                    found.append(node)
                if node < place_end:
                    node = place_end
                    continue
            node += 1
        return found

    def _sources(self, root: int) -> list[int]:
        """The variables that a value mentions, less those inside functions that it defines."""
        tree, found, node = self.tree, [], root
        while node < tree.end[root] and self.steps > 0 and len(found) < MAX_SOURCES:
            self.steps -= 1
            if tree.kind[node] in self.table.functions:
                node = tree.end[node]
                continue
            if self._is_use(node):
                found.append(node)
            node += 1
        return found
