"""What the detokenizer knows of each language."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Syntax:
    """How tokens of one language become strings, directives and spaces.

    Attributes:
      name: as in `languages.LANGUAGES`.
      quotes: what opens and closes a string; longer ones first.
      multiline: quotes whose strings hold real line ends.
      prefixes: words and signs that belong to the string behind them.
      keywords: words after which no value has ended.
      tight: operators with no space on either side.
      directives: whether lines that begin with # end at NEW_LINE.
      regexes: whether there are /regular expressions/.
      angles: whether <types> in angles are to be found.
      semicolons: False where a line end can stand for one.
    """

    name: str
    quotes: tuple[str, ...]
    multiline: tuple[str, ...] = ()
    prefixes: frozenset[str] = frozenset()
    keywords: frozenset[str] = frozenset()
    tight: frozenset[str] = frozenset({"."})
    directives: bool = False
    regexes: bool = False
    angles: bool = False
    semicolons: bool = True


def words(text: str) -> frozenset[str]:
    """Returns the words of a text."""
    return frozenset(text.split())


_C = """return if else for while do switch case goto sizeof typedef struct union enum const static
    extern volatile unsigned signed inline register break continue"""
_CPP = (
    _C
    + """ new delete throw try catch class namespace template typename using public private
    protected virtual operator explicit friend constexpr co_return co_await co_yield noexcept
    and or not"""
)
_JAVA = """return if else for while do switch case new throw throws try catch finally class
    interface enum extends implements import package public private protected static final abstract
    synchronized instanceof assert default native transient volatile break continue yield"""
_CSHARP = (
    _JAVA
    + """ foreach in is as using namespace struct override virtual readonly ref out params
    internal sealed partial async await lock checked unchecked fixed when where get set event
    delegate operator const extern unsafe select from orderby"""
)
_JS = """return if else for while do switch case new delete typeof instanceof in of void throw try
    catch finally class extends function var let const import export default from async await
    yield static get set break continue"""
_PHP = """return if else elseif for foreach while do switch case new throw try catch finally class
    interface trait extends implements function fn use namespace public private protected static
    final abstract const var global echo print include include_once require require_once as
    instanceof insteadof clone yield and or xor break continue match goto"""
_PYTHON = """and as assert async await break class continue def del elif else except finally for
    from global if import in is lambda nonlocal not or pass raise return try while with yield"""

_PYTHON_PREFIXES = frozenset(
    "".join(case)
    for word in ("r", "u", "b", "f", "br", "rb", "fr", "rf")
    for case in ((word,), (word.upper(),), (word[0].upper(), word[1:]), (word[0], word[1:].upper()))
)

SYNTAXES = {
    s.name: s
    for s in (
        Syntax(
            "C", ('"', "'"), prefixes=words("L u8 u U"), keywords=words(_C),
            tight=words(". ->"), directives=True,
        ),
        Syntax(
            "C++", ('"', "'"), prefixes=words("L u8 u U R LR u8R uR UR"), keywords=words(_CPP),
            tight=words(". -> :: .* ->*"), directives=True, angles=True,
        ),
        Syntax(
            "Java", ('"""', '"', "'"), multiline=('"""',), keywords=words(_JAVA),
            tight=words(". ::"), angles=True,
        ),
        Syntax(
            "C#", ('"""', '"', "'"), multiline=('"""',), prefixes=words("@ $ $@ @$ $$"),
            keywords=words(_CSHARP), tight=words(". ?. :: ->"), directives=True, angles=True,
        ),
        Syntax(
            "JavaScript", ("`", '"', "'"), multiline=("`",), keywords=words(_JS),
            tight=words(". ?."), regexes=True, semicolons=False,
        ),
        Syntax(
            "PHP", ('"', "'", "`"), multiline=("'", "`"), prefixes=words("b"),
            keywords=words(_PHP), tight=words("-> ?-> :: \\"),
        ),
        Syntax(
            "Python", ('"""', "'''", '"', "'"), multiline=('"""', "'''"),
            prefixes=_PYTHON_PREFIXES, keywords=words(_PYTHON),
        ),
    )
}  # fmt: skip
