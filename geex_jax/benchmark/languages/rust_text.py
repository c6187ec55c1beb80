"""Reading Rust: which programs may share a crate, and where the proof goes into the tests."""

from __future__ import annotations

import dataclasses
import re

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    | (?P<comment>/\*)
    | (?P<raw>[bc]?r(?P<hashes>\#*)")
    | (?P<text>[bc]?"(?:\\.|[^"\\])*")
    | (?P<char>b?'(?:\\(?:u\{[^}']*\}|x[0-9a-fA-F]{2}|.)|[^\\'\n])')
    | (?P<life>'[^\W\d]\w*)
    | (?P<word>(?:r\#)?[^\W\d]\w*)
    | (?P<number>\d\w*)
    | (?P<sign>::|.)""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_PART = re.compile(r"/\*|\*/")

# Words that reach beyond a module, or mean something else in one than at the root of a crate.
_ALONE = frozenset((
    "crate", "extern", "macro_export", "macro_use", "asm", "llvm_asm", "global_allocator",
    "panic_handler", "alloc_error_handler", "module_path", "type_name", "type_name_of_val",
    "caller", "proc_macro", "macro",
))  # fmt: skip
# Words by which a program could copy its tests' source, or put itself in the runtime's place.
_FILES = frozenset(("include_str", "include_bytes"))
_SYMBOLS = frozenset(("no_mangle", "export_name", "link_section", "global_asm", "naked_asm"))
_ALONE_MACROS = frozenset(("env", "option_env", "file"))
_PLAIN_ATTRIBUTES = frozenset((
    "derive", "allow", "warn", "inline", "must_use", "doc", "rustfmt", "clippy",
    "non_exhaustive", "default", "repr", "cold", "track_caller", "deprecated",
))  # fmt: skip
# Attributes by which a build without tests may end in another way than one with tests.
_TWO_BUILDS = frozenset(("cfg", "test", "ignore", "deny", "forbid"))
_BEFORE_ITEM = frozenset(("", "}", ";", "{", "]", "unsafe", "default"))
_REAL = frozenset((
    "assert", "assert_eq", "assert_ne", "debug_assert", "debug_assert_eq", "debug_assert_ne",
    "panic", "unreachable", "unimplemented", "todo",
))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Traits:
    """What is to be known about a program before it is compiled.

    Attributes:
      alone: it must not share a crate with others.
      two_builds: it has to compile without its tests too, since that may end in another way.
      refused: what it asks of the compiler that no program may have, or "".
    """

    alone: bool = False
    two_builds: bool = False
    refused: str = ""


def tokens(text: str) -> list[tuple[str, int]]:
    """Returns (token, offset) of all but comments, strings, characters, lifetimes and numbers.

    Raises:
      ValueError: a comment or string does not end.
    """
    out: list[tuple[str, int]] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None
        kind, start, at = found.lastgroup, at, found.end()
        if found["comment"]:
            depth = 1
            while depth:
                part = _COMMENT_PART.search(text, at)
                if part is None:
                    raise ValueError("a comment does not end")
                depth += 1 if part[0] == "/*" else -1
                at = part.end()
        elif found["raw"]:
            end = text.find('"' + found["hashes"], at)
            if end < 0:
                raise ValueError("a string does not end")
            at = end + 1 + len(found["hashes"])
            out.append(("''", start))
        elif kind in ("word", "sign"):
            if found[0] in "\"'":
                raise ValueError("a string does not end")
            out.append((found[0].removeprefix("r#"), start))
        elif kind != "space":
            out.append(("''", start))
    return out


def traits_of(code: str) -> Traits:
    """Looks for all by which a program could touch its neighbours, or notice that it has some.

    Macros cannot make names, so a word that is nowhere in the text is nowhere in the program.
    In doubt a program goes alone: that is slower, and never wrong.
    """
    try:
        code.encode()
        words = [token for token, _ in tokens(code)]
    except ValueError:
        return Traits(alone=True, two_builds=True)
    every = frozenset(words)
    macros = "macro_rules" in every
    alone = bool(every & _ALONE) or (macros and bool(every & {"impl", "super", *_ALONE_MACROS}))
    two_builds = "cfg" in every
    reads = bool(every & _FILES) or (macros and "include" in every)
    in_modules = [False]  # for each open brace: whether it is a module's
    in_use = False
    previous = ""
    for i, word in enumerate(words):
        following = words[i + 1] if i + 1 < len(words) else ""
        if word == "{":
            in_modules.append(i >= 2 and words[i - 2] == "mod")
        elif word == "}" and len(in_modules) > 1:
            in_modules.pop()
        elif word == "super":
            nested = any(in_modules) and previous != "::" and words[i + 2 : i + 3] != ["super"]
            alone |= not nested
        elif word == "mod":
            alone |= words[i + 2 : i + 3] == [";"]
        elif word in _ALONE_MACROS:
            alone |= following == "!"
        elif word == "include":
            reads |= following == "!" or in_use
        elif word == "#" and following in ("[", "!"):
            name = words[i + 2 if following == "[" else i + 3 :][:1]
            two_builds |= bool(_TWO_BUILDS.intersection(name))
            alone |= not (_PLAIN_ATTRIBUTES | _TWO_BUILDS).intersection(name)
        in_use = word == "use" or (in_use and word != ";")
        previous = word
    refused = "has the compiler read files (include, include_str, include_bytes)" if reads else ""
    if every & _SYMBOLS:
        refused = f"names symbols of the whole process ({', '.join(sorted(every & _SYMBOLS))})"
    return Traits(alone or not _impls_stay_inside(words), two_builds, refused)


def _impls_stay_inside(words: list[str]) -> bool:
    """Whether each `impl A for B` has a trait or a type of the program's own.

    Others, as `impl PartialEq<Mine> for i32`, can make types of a neighbour ambiguous. Own is
    only what is declared outside of all braces: there a name has one meaning.
    """
    types: set[str] = set()
    interfaces: set[str] = set()
    impls: list[tuple[int, int]] = []
    depth = 0
    for i, word in enumerate(words):
        depth += (word == "{") - (word == "}")
        if word in ("struct", "enum", "union") and depth == 0:
            types.update(words[i + 1 : i + 2])
        elif word == "trait" and depth == 0:
            interfaces.update(words[i + 1 : i + 2])
        elif word == "impl" and (words[i - 1] if i else "") in _BEFORE_ITEM:
            impls.append((i, depth))
    for start, depth in impls:
        end = start
        while end < len(words) and words[end] not in ("{", ";"):
            end += 1
        split = next(
            (k for k in range(start, end) if words[k] == "for" and words[k + 1 : k + 2] != ["<"]),
            None,
        )
        if split is None:
            continue  # of a type itself
        first = _after_generics(words, start + 1)
        own_trait = words[first] in interfaces and words[first + 1] in ("<", "for")
        own_type = words[split + 1] in types and words[split + 2 : split + 3] != ["::"]
        if depth or not (own_trait or own_type):
            return False
    return True


def _after_generics(words: list[str], at: int) -> int:
    """Index of what follows `<...>` at `at`, or `at` if there is none."""
    depth = 0
    while at < len(words) - 1:
        if words[at] == "<":
            depth += 1
        elif words[at] == ">" and words[at - 1] != "-":
            depth -= 1
        elif depth == 0:
            break
        at += 1
    return at


def with_proof(test: str, descriptor: int, first: int, second: int) -> str:
    """The tests of the data set, which end by writing `first ^ second` to `descriptor`.

    Their assertions become the real ones, whatever macros the program defines.

    Raises:
      ValueError: they have a shape in which the place of the proof is not known.
    """
    found = tokens(test)
    words = [token for token, _ in found]
    if {"should_panic", "ignore"} & set(words):
        raise ValueError("a test that is to panic, or to be left out, cannot prove that it ran")
    edits: list[tuple[int, str]] = []
    starts = [i for i in range(len(words)) if words[i : i + 4] == ["#", "[", "test", "]"]]
    for start in starts:
        begin, end = _body(words, start)
        edits.append((found[begin][1] + 1, " fn geex_body() {"))
        edits.append((found[end][1], _epilogue(descriptor, first, second, len(starts))))
    if not starts:  # as Rust/32, whose test is a comment: in the reference what compiles passes
        body = "fn geex_body() {" + _epilogue(descriptor, first, second, 1)
        return f"{test}\n#[cfg(test)] mod geex_proof {{ #[test] fn none() {{ {body} }} }}"
    if len(starts) > 1:
        counter = "static GEEX_RAN: ::std::sync::atomic::AtomicUsize = " \
            "::std::sync::atomic::AtomicUsize::new(0); "  # fmt: skip
        edits.append((found[starts[0]][1], counter))
    for i, (word, at) in enumerate(found):
        if word in _REAL and words[i + 1 : i + 2] == ["!"] and words[i - 1] != "::":
            edits.append((at, "::std::"))
    for at, text in sorted(edits, reverse=True):
        test = test[:at] + text + test[at:]
    return test


def _body(words: list[str], start: int) -> tuple[int, int]:
    """Indices of the braces of the `fn name() {...}` after the `#[test]` at `start`."""
    at = start + 4
    while words[at : at + 1] == ["#"]:
        at = words.index("]", at) + 1
    if words[at : at + 1] != ["fn"] or words[at + 2 : at + 5] != ["(", ")", "{"]:
        raise ValueError("a test that is not of the form fn name() {...}")
    begin = end = at + 4
    depth = 1
    while depth:
        end += 1
        if end == len(words):
            raise ValueError("a test without an end")
        depth += (words[end] == "{") - (words[end] == "}")
    return begin, end


def _epilogue(descriptor: int, first: int, second: int, tests: int) -> str:
    """What ends a test. Only full names: the program may have given all others a new meaning.

    Volatile reads keep the proof itself out of the executable.
    """
    last = (
        f"GEEX_RAN.fetch_add(1, ::std::sync::atomic::Ordering::SeqCst) + 1 == {tests}usize"
        if tests > 1
        else "true"
    )
    return (
        f"}} geex_body(); if {last} {{ unsafe {{ let proof = "
        f"::std::ptr::read_volatile(&{first}u32) ^ ::std::ptr::read_volatile(&{second}u32); "
        "let mut file = "
        f"<::std::fs::File as ::std::os::unix::io::FromRawFd>::from_raw_fd({descriptor}); "
        "let _ = ::std::io::Write::write_all(&mut file, "
        "::std::string::ToString::to_string(&proof).as_bytes()); } } "
    )
