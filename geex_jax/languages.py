"""The 23 programming languages of the paper's corpus: names, tag lines, extensions, shares.

Tag lines are exactly the official ones: `!language: Fortran` and `<!--language: HTML-->` have
no space after the comment sign.
"""

from __future__ import annotations

import dataclasses
import functools

from geex_jax.errors import GeexError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Language:
    """One programming language.

    Attributes:
      name: the paper's name, e.g. "C++".
      tag: the line at the head of each segment, e.g. "// language: C++".
      comment: the sign (or pair of signs) that opens a comment line.
      extensions: file extensions in lower case, with the dot; the first is the usual one.
      corpus_tokens: billions of tokens in the paper's corpus of 158.7.
      aliases: other names that users write, in lower case.
      interpreters: programs that a shebang line names, in lower case without a version.
      filenames: whole file names that tell the language, in lower case.
    """

    name: str
    tag: str
    comment: tuple[str, ...]
    extensions: tuple[str, ...]
    corpus_tokens: float
    aliases: tuple[str, ...] = ()
    interpreters: tuple[str, ...] = ()
    filenames: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """A name for files: lower-case letters, digits and underscores."""
        return self.name.lower().replace("+", "p").replace("#", "sharp").replace("-", "_")


def _slashes(name: str) -> tuple[str, tuple[str, ...]]:
    return f"// language: {name}", ("//",)


def _hashes(name: str) -> tuple[str, tuple[str, ...]]:
    return f"# language: {name}", ("#",)


LANGUAGES: tuple[Language, ...] = (
    Language("C++", *_slashes("C++"), (".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx", ".ipp",
             ".tcc", ".c++", ".h++", ".inl"), 45.2283, ("cpp", "cxx", "cc"), ("cling",)),
    Language("Python", *_hashes("Python"), (".py", ".pyi", ".pyw"), 42.3250, ("py", "python3"),
             ("python", "pypy"), ("sconstruct", "sconscript", "wscript")),
    Language("Java", *_slashes("Java"), (".java",), 25.3667, (), ("java",)),
    Language("JavaScript", *_slashes("JavaScript"), (".js", ".mjs", ".cjs", ".jsx"), 11.3165,
             ("js", "node"), ("node", "nodejs")),
    Language("C", *_slashes("C"), (".c", ".h"), 10.6590, ("h",), ("tcc",)),
    Language("Go", *_slashes("Go"), (".go",), 7.4774, ("golang",), ("gorun",)),
    Language("HTML", "<!--language: HTML-->", ("<!--", "-->"), (".html", ".htm", ".xhtml"),
             4.9355),
    Language("Shell", *_hashes("Shell"), (".sh", ".bash", ".zsh", ".ksh"), 2.7498,
             ("sh", "bash", "zsh"), ("sh", "bash", "dash", "ksh", "zsh"),
             (".bashrc", ".bash_profile", ".bash_aliases", ".profile", ".zshrc", ".zprofile")),
    Language("PHP", *_slashes("PHP"), (".php", ".phtml", ".php5"), 2.1698, (), ("php",)),
    Language("CSS", "/* language: CSS */", ("/*", "*/"), (".css",), 1.5674),
    Language("TypeScript", *_slashes("TypeScript"), (".ts", ".tsx", ".mts", ".cts"), 1.1667,
             ("ts",), ("ts-node", "deno", "tsx")),
    Language("SQL", "-- language: SQL", ("--",), (".sql",), 1.1533),
    Language("TeX", "% language: TeX", ("%",), (".tex", ".sty", ".cls", ".ltx", ".dtx"), 0.8257,
             ("latex",)),
    Language("Rust", *_slashes("Rust"), (".rs",), 0.5228, ("rs",), ("rust-script",)),
    Language("Objective-C", *_slashes("Objective-C"), (".m",), 0.4526, ("objc", "objectivec")),
    Language("Scala", *_slashes("Scala"), (".scala", ".sc"), 0.3786, (), ("scala", "amm")),
    Language("Kotlin", *_slashes("Kotlin"), (".kt", ".kts"), 0.1707, ("kt",),
             ("kotlin", "kotlinc", "kscript")),
    Language("Pascal", *_slashes("Pascal"), (".pas", ".dpr", ".lpr", ".pp"), 0.0839, ("delphi",),
             ("instantfpc",)),
    Language("Fortran", "!language: Fortran", ("!",), (".f90", ".f", ".f95", ".f03", ".f08",
             ".for", ".ftn", ".f77"), 0.0770),
    Language("R", *_hashes("R"), (".r",), 0.0447, (), ("rscript",)),
    Language("Cuda", *_slashes("Cuda"), (".cu", ".cuh"), 0.0223),
    Language("C#", *_slashes("C#"), (".cs", ".csx"), 0.0218, ("csharp", "cs"),
             ("dotnet-script", "csharp")),
    Language("Objective-C++", *_slashes("Objective-C++"), (".mm",), 0.0014, ("objcpp", "objc++")),
)  # fmt: skip


@functools.cache
def _by_name() -> dict[str, Language]:
    return {
        word.lower(): language
        for language in LANGUAGES
        for word in (language.name, language.slug, *language.aliases)
    }


def get(name: str) -> Language:
    """Returns the language of that name or alias, in any case.

    Raises:
      GeexError: no such language; the message names the closest one.
    """
    try:
        return _by_name()[name.strip().lower()]
    except KeyError:
        raise GeexError(
            f"unknown language {name!r}", did_you_mean(name, [x.name for x in LANGUAGES])
        ) from None


class EndRule:
    """Where a completion ends (CodeGeeX, `is_code_generation_finished`), a character at a time.

    Python: where a line begins without a space or tab. Others: where one more brace is closed
    than was opened. Rust has no rule there; CodeGeeX2's also ends at "\\nfn main()".

    Attributes:
      held: how many of the last characters may still turn out not to belong to the completion.
      cut: after the end, how many of the last characters do not belong to it.
    """

    def __init__(self, kind: str):
        self._python, self._main = kind == "python", "\nfn main()" if kind == "rust" else ""
        self._depth = 0
        self._line = "new"  # or "odd": begun with a blank that is no indentation; or "inside"
        self._tail = ""
        self.held = self.cut = 0

    def feed(self, sign: str) -> bool:
        """Takes the next character; True: it ends the completion."""
        return self._feed_python(sign) if self._python else self._feed_braces(sign)

    def _feed_python(self, sign: str) -> bool:
        if sign == "\n":
            self._line, self.held = "new", 0
        elif self._line == "inside":
            pass
        elif self._line == "new" and sign in " \t":
            self._line = "inside"
        elif sign.isspace():
            self._line, self.held = "odd", self.held + 1
        else:
            self.cut = self.held + 1
            return True
        return False

    def _feed_braces(self, sign: str) -> bool:
        self._depth += (sign == "{") - (sign == "}")
        if self._depth < 0:
            return True
        if self._main:
            self._tail = (self._tail + sign)[-len(self._main) :]
            if self._tail == self._main:
                self.cut = len(self._main)
                return True
            self.held = next(
                (n for n in range(len(self._main) - 1, 0, -1)
                 if self._tail.endswith(self._main[:n])), 0,
            )  # fmt: skip
        return False


WITH_END_RULE = ("python", "cpp", "java", "javascript", "go", "rust")


def end_rule(name: str) -> EndRule:
    """A fresh end rule of the language of that name or alias.

    Raises:
      GeexError: no such language, or one that the paper has no rule for.
    """
    slug = get(name).slug
    if slug not in WITH_END_RULE:
        raise GeexError(f"{name} has no end rule", "choose one of: " + ", ".join(WITH_END_RULE))
    return EndRule(slug)
