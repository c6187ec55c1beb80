"""The pickle inside a PyTorch checkpoint, run without Python's unpickler.

Such a pickle is a program that may call any function. Here it runs on a small machine of our own
on which no Python function can be reached: a name that the pickle asks for stays a name, calling
one of the few names that tensors need runs a method of this file, and any other is refused.
"""

from __future__ import annotations

import dataclasses
import pathlib
import pickletools
import struct
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from geex_jax.errors import GeexError

DTYPES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
}
STORAGES = {f"torch.{name}": np.dtype(dtype) for name, dtype in DTYPES.items()}
UNTYPED = {"torch.UntypedStorage", "torch.storage.UntypedStorage"}  # their size is in bytes
_NEW_DTYPES = "uint16 uint32 uint64 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz"
DTYPE_NAMES = {f"torch.{dtype.name}": dtype for dtype in STORAGES.values()} | {
    f"torch.{name}": np.dtype(getattr(ml_dtypes, name, name)) for name in _NEW_DTYPES.split()
}
_TENSOR_CLASSES = {"torch.Tensor", "torch.nn.parameter.Parameter"}
_PLAIN = ("list", "dict", "int", "float", "str", "bool", "tuple", "set")
_CLASSES = _TENSOR_CLASSES | {"numpy.ndarray"}
_CLASSES |= {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _PLAIN}
_NEW_RECORDS = {"argparse.Namespace"}
_CALLED_RECORDS = {"torch.device", "numpy.dtype"} | {
    f"numpy.{core}.multiarray.{name}"
    for core in ("core", "_core")
    for name in ("_reconstruct", "scalar")
}
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_SCALARS = (str, int, float, bool, bytes, type(None))  # a nested tuple may hash for ever
REFUSED = "refused; save plain tensors only (state_dict), or as safetensors"


@dataclasses.dataclass(frozen=True)
class Record:
    """An object of a class that is not plain data, kept as inert data.

    Attributes:
      kind: the class or function that the pickle names, as "argparse.Namespace".
      args: what it was made from.
      fields: its attributes; {"state": ...} if they were not saved as a dictionary.
    """

    kind: str
    args: tuple[Any, ...]
    fields: dict[Any, Any]


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function that the pickle names; nothing of Python stands behind it."""

    dotted: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """The bytes that tensors share: `size` elements, or bytes where `dtype` is None."""

    dtype: np.dtype | None
    key: str
    size: int


@dataclasses.dataclass(frozen=True)
class Raw:
    """A tensor as the pickle tells it, not yet compared with the file."""

    storage: Storage
    offset: Any
    shape: tuple[Any, ...]
    strides: tuple[Any, ...]
    dtype: np.dtype


def one_line(text: object) -> str:
    """Text from a file, safe to print: it may hold line ends or commands to the terminal."""
    text = str(text).encode("unicode_escape").decode()
    return text if len(text) <= 200 else text[:200] + "..."


class Machine:
    """Runs a pickle without Python's unpickler: see the top of this file."""

    def __init__(self, path: pathlib.Path, data: bytes):
        self.path, self.data = path, data
        self.left = 10_000_000 + 64 * len(data)  # a few bytes can unfold to a memory full
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.calls: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": self._dict,
            "collections.defaultdict": lambda _factory=None, items=(): self._dict(items),
            "builtins.set": self._set,
            "__builtin__.set": self._set,
            "_codecs.encode": self._bytes,
            "torch.Size": self._tuple,
            "torch.nn.parameter.Parameter": self._parameter,
            "torch._utils._rebuild_parameter": self._parameter,
            "torch._utils._rebuild_parameter_with_state": self._parameter,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_tensor_v3": self._tensor_v3,
            "torch._tensor._rebuild_from_type_v2": self._from_type,
        }
        self.known = self.calls.keys() | _CLASSES | _NEW_RECORDS | _CALLED_RECORDS
        self.known |= STORAGES.keys() | UNTYPED | DTYPE_NAMES.keys()

    def run(self) -> Any:
        """Returns what the pickle leaves, its tensors as `Raw`."""
        try:
            for opcode, value, _ in pickletools.genops(self.data):
                if opcode.name in _LITERALS:
                    self.stack.append(value)
                elif opcode.name == "STOP":
                    return self.stack.pop()
                else:
                    self._step(opcode.name, value)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error) as error:
            raise GeexError(
                f"{self.path}: unreadable pickle ({one_line(error)})", "fetch the file again"
            ) from None

    def spend(self, amount: int) -> None:
        """Counts work that a pickle asks for; too much of it for its length is refused."""
        self.left -= amount
        if self.left < 0:
            raise GeexError(f"{self.path}: its pickle unfolds without end", REFUSED)

    def _refuse(self, what: str) -> GeexError:
        return GeexError(f"{self.path}: its pickle {one_line(what)}", REFUSED)

    def _step(self, op: str, value: Any) -> None:
        stack = self.stack
        match op:
            case "PROTO" | "FRAME":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[op])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                stack.append({"T": tuple, "L": list, "D": dict, "S": set}[op[6]]())
            case "MARK":
                self.marks.append(stack)
                self.stack = []
            case "POP" if stack:
                stack.pop()
            case "POP" | "POP_MARK":
                self._marked()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[value] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[value])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(op[-1]))]
                stack.append(tuple(reversed(items)))
            case "APPEND" | "SETITEM":
                items = [stack.pop() for _ in range(1 if op == "APPEND" else 2)]
                self._fill(op, items[::-1])
            case "TUPLE" | "LIST" | "DICT" | "FROZENSET" | "APPENDS" | "SETITEMS" | "ADDITEMS":
                self._fill(op, self._marked())
            case "GLOBAL":
                stack.append(self._name(*value.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(self._name(module, name))
            case "REDUCE" | "NEWOBJ":
                args, function = stack.pop(), stack.pop()
                stack.append(self._call(op, function, args))
            case "BUILD":
                self._build(stack.pop(), stack[-1])
            case "BINPERSID":
                stack.append(self._storage(*stack.pop()))
            case _:
                raise self._refuse(f"uses {op} {value or ''}")

    def _marked(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _fill(self, op: str, items: list[Any]) -> None:
        """Makes a container of `items`, or adds them to the one on top of the stack."""
        if op in ("TUPLE", "LIST"):
            self.stack.append({"TUPLE": tuple, "LIST": list}[op](items))
        elif op == "DICT":
            self.stack.append(self._dict(zip(items[::2], items[1::2], strict=True)))
        elif op == "FROZENSET":
            self.stack.append(self._set(items))
        else:
            target = self.stack[-1]
            kind = {"APPEND": list, "SETITEM": dict, "ADDITEM": set}[op.removesuffix("S")]
            if type(target) is not kind:
                raise self._refuse(f"uses {op} on {_kind(target)}")
            if kind is list:
                target.extend(items)
            elif kind is set:
                target.update(self._set(items))
            else:
                target.update(self._dict(zip(items[::2], items[1::2], strict=True)))

    def _name(self, module: Any, name: Any) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise self._refuse("asks for something without a name")
        if f"{module}.{name}" not in self.known:
            raise self._refuse(f"asks for {module}.{name}, which is not a tensor")
        return Name(f"{module}.{name}")

    def _storage(self, tag: Any, kind: Any, key: Any, _device: Any, size: Any) -> Storage:
        known = isinstance(kind, Name) and (kind.dotted in STORAGES or kind.dotted in UNTYPED)
        if tag != "storage" or not known or not isinstance(key, str):
            raise self._refuse(f"has an unknown storage {_kind(kind)}")
        return Storage(STORAGES.get(kind.dotted), key, size)

    def _call(self, op: str, function: Any, args: Any) -> Any:
        if not isinstance(function, Name) or type(args) is not tuple:
            raise self._refuse(f"calls {_kind(function)}")
        name = function.dotted
        self.spend(len(args))
        if op == "REDUCE" and name in self.calls:
            try:
                return self.calls[name](*args)
            except (TypeError, IndexError):
                raise self._refuse(f"calls {name} with other arguments than PyTorch") from None
        if name in (_CALLED_RECORDS if op == "REDUCE" else _NEW_RECORDS):
            return Record(name, args, {})
        raise self._refuse(f"calls {name}, which is not a tensor")

    def _build(self, state: Any, target: Any) -> None:
        if isinstance(target, Record):
            target.fields.update(self._dict(state if isinstance(state, dict) else {"state": state}))
        elif type(target) is not dict:  # an OrderedDict's attributes are torch's _metadata
            raise self._refuse(f"sets attributes of {_kind(target)}")

    def _dict(self, items: Any = ()) -> dict[Any, Any]:
        pairs = list(items.items() if isinstance(items, dict) else items)
        self.spend(len(pairs))
        for key, _ in pairs:
            if type(key) not in _SCALARS:
                raise self._refuse(f"has {_kind(key)} as a key")
        return dict(pairs)

    def _set(self, items: Any = ()) -> set[Any]:
        return set(self._dict((item, None) for item in items))

    def _tuple(self, items: Any = ()) -> tuple[Any, ...]:
        self.spend(len(items))
        return tuple(items)

    def _bytes(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise self._refuse("calls _codecs.encode, but not for bytes")
        self.spend(len(text))
        return text.encode("latin-1")

    def _tensor(
        self, storage: Any, offset: Any, shape: Any, strides: Any,
        _grad: Any = False, _hooks: Any = None, metadata: Any = None, dtype: Any = None,
    ) -> Raw:  # fmt: skip
        if not isinstance(storage, Storage) or not type(shape) is type(strides) is tuple:
            raise self._refuse("makes a tensor of something else")
        if metadata:
            raise self._refuse("has a conjugate or negated tensor")
        dtype = dtype or storage.dtype
        if dtype is None:
            raise self._refuse("has a tensor without dtype")
        return Raw(storage, offset, shape, strides, dtype)

    def _tensor_v3(self, *args: Any) -> Raw:
        dtype = DTYPE_NAMES.get(args[6].dotted) if isinstance(args[6], Name) else None
        return self._tensor(*args[:6], *args[7:8], dtype=dtype)

    def _parameter(self, data: Any, *_: Any) -> Raw:
        if not isinstance(data, Raw):
            raise self._refuse(f"makes a parameter of {_kind(data)}")
        return data

    def _from_type(self, function: Any, kind: Any, args: Any, _state: Any) -> Raw:
        named = isinstance(function, Name) and isinstance(kind, Name) and type(args) is tuple
        if (
            not named
            or not function.dotted.startswith("torch._utils._rebuild_")
            or kind.dotted not in _TENSOR_CLASSES
        ):
            raise self._refuse(f"makes {_kind(kind)} with {_kind(function)}")
        return self.calls[function.dotted](*args)


def _kind(value: Any) -> str:
    return value.dotted if isinstance(value, Name) else f"a {type(value).__name__}"
