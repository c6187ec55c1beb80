"""Parses code with tree-sitter into flat lists, which no nesting can overflow."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util

from geex_jax.benchmark.metrics.grammars import GRAMMARS
from geex_jax.errors import GeexError

# Five times the longest solution of HumanEval-X. Some grammars take memory with the square of the
# nesting: Java's 0.3 GB for 10,000 bytes of `a<a<a<`, 0.9 GB for 20,000.
MAX_BYTES = 12_000
MAX_NODES = 50_000


@dataclasses.dataclass
class Tree:
    """The named nodes of a syntax tree, in preorder: node i's subtree is i to end[i] - 1.

    Comments and Python's docstrings are left out; so is what follows the first MAX_NODES nodes.
    """

    kind: list[str]
    field: list[str]  # the role in the parent, "" for none
    parent: list[int]  # -1 for the root
    end: list[int]
    text: list[str]  # of leaves, else ""
    begin: list[int]  # bytes from the start of the text
    stop: list[int]
    inner: list[bool]  # whether it has any children, signs such as `;` among them
    operator: dict[int, str]  # the sign of an assignment or expression, such as "+="

    def children(self, node: int) -> list[int]:
        """The named children of a node."""
        found, child = [], node + 1
        while child < self.end[node]:
            found.append(child)
            child = self.end[child]
        return found


def available() -> bool:
    """Whether tree-sitter and the six grammars are installed."""
    names = ["tree_sitter", *(f"tree_sitter_{language}" for language in GRAMMARS)]
    return all(importlib.util.find_spec(name) for name in names)


def clip(code: str) -> str:
    """The part of a program that is looked at: its first MAX_BYTES bytes."""
    return code[:MAX_BYTES].encode("utf-8", "replace")[:MAX_BYTES].decode("utf-8", "ignore")


@functools.cache
def _parser(language: str):
    try:
        sitter = importlib.import_module("tree_sitter")
        module = importlib.import_module(f"tree_sitter_{language}")
    except ImportError as error:
        raise GeexError(
            f"CodeBLEU needs tree-sitter ({error})", 'pip install "geex-jax[metrics]"'
        ) from None
    return sitter.Parser(sitter.Language(module.language()))


def parse(language: str, code: str) -> Tree:
    """Parses a program; syntax errors become nodes as any other.

    Args:
      language: one of the six names.
      code: at most MAX_BYTES of it, see `clip`.

    Raises:
      GeexError: tree-sitter is not installed.
    """
    source = code.encode("utf-8", "replace")
    tree = Tree([], [], [], [], [], [], [], [], {})
    cursor = _parser(language).parse(source).walk()
    ancestors: list[int] = []  # of the cursor; -1 where a node was left out
    while len(tree.kind) < MAX_NODES:
        node = cursor.node
        mine = -1
        silent = "comment" in node.type or _docstring(node)
        if ancestors and not silent:
            tree.inner[ancestors[-1]] = True
        if node.is_named and not silent:
            mine = len(tree.kind)
            tree.kind.append(node.type)
            tree.field.append(cursor.field_name or "")
            tree.parent.append(ancestors[-1] if ancestors else -1)
            tree.end.append(mine + 1)
            tree.begin.append(node.start_byte)
            tree.stop.append(node.end_byte)
            tree.inner.append(False)
            leaf = not node.child_count
            text = source[node.start_byte : node.end_byte] if leaf else b""
            tree.text.append(text.decode("utf-8", "replace"))
        elif ancestors and cursor.field_name == "operator":
            tree.operator[ancestors[-1]] = node.type
        if mine >= 0 and cursor.goto_first_child():
            ancestors.append(mine)
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return _closed(tree)
            ancestors.pop()
    return _closed(tree)


def _docstring(node) -> bool:
    if node.type != "expression_statement" or node.child_count != 1:
        return False
    return node.child(0).type == "string"  # so called by the grammars of Python and JavaScript


def _closed(tree: Tree) -> Tree:
    for node in range(len(tree.kind) - 1, 0, -1):
        parent = tree.parent[node]
        tree.end[parent] = max(tree.end[parent], tree.end[node])
    return tree
