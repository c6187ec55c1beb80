"""The inputs that a problem's own tests give, read from the Python tests without running them."""

from __future__ import annotations

import ast
import dataclasses
import operator
from collections.abc import Iterator
from typing import Any

from geex_jax.benchmark.languages.types import Problem

Arguments = tuple[Any, ...]  # of one call; Python literals


@dataclasses.dataclass(frozen=True)
class Given:
    """What the tests of a problem call.

    Attributes:
      function: its name in Python.
      tests: arguments of each call in the tests, each once.
      examples: of those in the tests and in the examples of the prompt.
    """

    function: str
    tests: list[Arguments]
    examples: list[Arguments]


class NotReadable(Exception):
    """The tests are not calls with literals; says what they are."""


def read(problem: Problem) -> Given:
    """Reads the calls in a Python problem's tests.

    Raises:
      NotReadable: no call with literal arguments only is there.
    """
    name = _checked(problem["test"])
    tests = _distinct(_calls(problem["test"], name))
    if not tests:
        raise NotReadable("its tests hold no calls with literal arguments")
    if len({len(arguments) for arguments in tests}) > 1:
        raise NotReadable("its tests call with different numbers of arguments")
    more = [a for a in _calls(problem.get("example_test", ""), name) if len(a) == len(tests[0])]
    return Given(name, tests, _distinct([*tests, *more]))


def _tree(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except SyntaxError:
        return None


def _checked(test: str) -> str:
    """The function that the last `check(name)` of the tests takes."""
    found = ""
    for node in (_tree(test) or ast.Module([], [])).body:
        if isinstance(node, ast.Expr) and isinstance(call := node.value, ast.Call):
            target = call.args[0] if len(call.args) == 1 else None
            if isinstance(call.func, ast.Name) and isinstance(target, ast.Name):
                found = target.id
    if not found:
        raise NotReadable("its tests do not end with check(function)")
    return found


def _calls(test: str, name: str) -> Iterator[Arguments]:
    """Arguments of the calls in asserts, where they are literals.

    Inside `check` the function goes by the name of the parameter.
    """
    for function in ast.walk(_tree(test) or ast.Module([], [])):
        if not isinstance(function, ast.FunctionDef):
            continue
        names = {name, *(a.arg for a in function.args.args[:1])}
        for statement in function.body:
            if not isinstance(statement, ast.Assert):
                continue
            for node in ast.walk(statement.test):
                if isinstance(node, ast.Call) and getattr(node.func, "id", None) in names:
                    try:
                        if not node.keywords:
                            yield tuple(_value(a) for a in node.args)
                    except ValueError:
                        pass


_OPERATORS: dict[type[ast.operator], Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Pow: operator.pow,
    ast.Div: operator.truediv,
}  # fmt: skip


def _value(node: ast.expr) -> Any:
    """The value of a literal, or of sums and products of literals as `3 * 19`.

    Raises:
      ValueError: it is anything else.
    """
    if isinstance(node, ast.BinOp) and (apply := _OPERATORS.get(type(node.op))):
        left, right = _value(node.left), _value(node.right)
        small = isinstance(node.op, ast.Add) or all(
            type(x) in (int, float) and abs(x) < 1e6 for x in (left, right)
        )
        if small and not (isinstance(node.op, ast.Pow) and (abs(left) > 100 or abs(right) > 9)):
            try:
                return apply(left, right)
            except (TypeError, ArithmeticError):
                pass
        raise ValueError("no plain arithmetic")
    if isinstance(node, ast.List):
        return [_value(x) for x in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(x) for x in node.elts)
    value = ast.literal_eval(node)
    if not plain(value):
        raise ValueError("no plain value")
    return value


def plain(value: Any) -> bool:
    """Whether a value is made of None, bool, int, float, str, list, tuple and dict alone."""
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    if isinstance(value, dict):
        return all(map(plain, value)) and all(map(plain, value.values()))
    if isinstance(value, float):
        return value == value and abs(value) != float("inf")
    return value is None or isinstance(value, bool | int | str)


def _distinct(calls: Iterator[Arguments] | list[Arguments]) -> list[Arguments]:
    return list({repr(arguments): arguments for arguments in calls}.values())
