"""Where a completion ends, and what is cut off it: the reference's rules at generation time.

The reference (CodeGeeX, `is_code_generation_finished` and `cleanup_code`) asks after each token
whether the text so far is finished, and cleans finished texts up. Its evaluator does neither.
Rust has no rule there; the one here is CodeGeeX2's. Where they end is `languages.EndRule`.
"""

from __future__ import annotations

from collections.abc import Callable

from geex_jax import languages

PYTHON_STOPS = ("\ndef", "\nclass", "\nif", "\n#", "\nprint")
PYTHON_ENDS = (*PYTHON_STOPS, "\nassert")


def python_finished(code: str) -> bool:
    """Whether a line that is not blank begins without a space or tab, the first one included."""
    return end("python", code) is not None


def python_clean(code: str) -> str:
    """Cuts at the last "\\ndef", then at the last "\\nclass", and so on."""
    for end in PYTHON_ENDS:
        if end in code:
            code = code[: code.rfind(end)]
    return code


def braces_finished(code: str) -> bool:
    """Whether one more brace is closed than opened, wherever they stand."""
    return code.count("{") + 1 == code.count("}")


def braces_clean(code: str) -> str:
    """Cuts after the last closing brace, if there is one."""
    return code[: code.rfind("}") + 1] if "}" in code else code


def java_clean(code: str) -> str:
    """Cuts a main method and what follows it, and closes the class."""
    main = code.find("public static void main")
    if main != -1:
        code = code[:main] + "}"
    code = braces_clean(code)
    return code + "\n}" if braces_finished(code) else code


def go_clean(code: str) -> str:
    """Cuts at the last comment line, then at the last main function, then after the last brace."""
    for end in ("\n//", "\nfunc main("):
        if end in code:
            code = code[: code.rfind(end)]
    return braces_clean(code)


def rust_finished(code: str) -> bool:
    """CodeGeeX2's rule; CodeGeeX has none."""
    return "\nfn main()" in code or braces_finished(code)


FINISHED: dict[str, Callable[[str], bool]] = {
    "python": python_finished,
    "cpp": braces_finished,
    "java": braces_finished,
    "javascript": braces_finished,
    "go": braces_finished,
    "rust": rust_finished,
}
CLEAN: dict[str, Callable[[str], str]] = {
    "python": python_clean,
    "cpp": braces_clean,
    "java": java_clean,
    "javascript": braces_clean,
    "go": go_clean,
    "rust": braces_clean,
}
# Strings that no answer goes on after; for servers, which know no rules. At most four are allowed.
STOPS: dict[str, tuple[str, ...]] = {
    "python": ("\ndef ", "\nclass ", "\nif ", "\nprint("),
    "cpp": ("\nint main(",),
    "java": ("public static void main",),
    "javascript": ("\nconsole.log(",),
    "go": ("\nfunc main(",),
    "rust": ("\nfn main()",),
}


def end(language: str, code: str) -> int | None:
    """Length of the shortest beginning of `code` that is finished; None: not finished.

    Args:
      language: "python", "cpp", ...; one without a rule never finishes.
      code: what the model wrote after the prompt.
    """
    if language not in FINISHED:
        return None
    rule = languages.end_rule(language)
    return next((i + 1 for i, sign in enumerate(code) if rule.feed(sign)), None)


def shorten(language: str, code: str) -> tuple[str, bool]:
    """Cuts a completion where the reference would have stopped it, and cleans it up.

    The reference looks after each token, so where it stops depends on the tokenizer; this looks
    after each character. What differs, the reference's clean-up or its evaluator cuts as well.

    Returns:
      The code, and whether it was finished. An unfinished one is returned as it is.
    """
    length = end(language, code)
    if length is None:
        return code, False
    code = code[:length]
    if language == "python":  # without the beginning of the line that ended it
        cut = code.rfind("\n")
        code = code[: cut + 1] if cut >= 0 else ""
    return CLEAN[language](code), True
