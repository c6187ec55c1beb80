"""What the six languages call things: keywords, and the syntax nodes that bind variables."""

from __future__ import annotations

import dataclasses

from geex_jax.errors import GeexError, did_you_mean

Fields = tuple[str, ...]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


@dataclasses.dataclass(frozen=True)
class Grammar:
    """A language as the walk over its data flow sees it, in tree-sitter's names of nodes."""

    name: str
    keywords: frozenset[str]
    binders: dict[str, tuple[Fields, Fields]]  # node: fields of targets, of sources ("": no field)
    labels: frozenset[tuple[str, str]]  # (parent, field) where an identifier is no variable
    lists: frozenset[str]  # `a, b` on either side, matched one by one
    places: frozenset[str]  # `a[i]`, `a.b`
    functions: frozenset[str]  # values whose inside is no source of the value
    updates: frozenset[str] = frozenset()  # bindings that read their target, such as Go's `i++`
    variables: frozenset[str] = frozenset({"identifier"})
    not_bound: frozenset[str] = frozenset({"type", "size", "parameters", "key", "default_value"})
    constants: bool = False  # in patterns, capitalised names are constants


PYTHON = Grammar(
    name="python",
    keywords=_words(
        "False None True and as assert async await break class continue def del elif else except "
        "finally for from global if import in is lambda nonlocal not or pass raise return try "
        "while with yield match case"
    ),
    binders={
        "assignment": (("left",), ("right",)),
        "augmented_assignment": (("left",), ("right",)),
        "named_expression": (("name",), ("value",)),
        "for_statement": (("left",), ("right",)),
        "for_in_clause": (("left",), ("right",)),
        "as_pattern": (("alias",), ("",)),
        "parameters": (("",), ()),
        "lambda_parameters": (("",), ()),
        "typed_parameter": (("",), ()),
        "default_parameter": (("name",), ("value",)),
        "typed_default_parameter": (("name",), ("value",)),
    },
    labels=frozenset({("attribute", "attribute"), ("keyword_argument", "name")}),
    lists=_words("pattern_list expression_list tuple_pattern list_pattern tuple list"),
    places=_words("attribute subscript"),
    functions=_words("lambda function_definition"),
)

CPP = Grammar(
    name="cpp",
    keywords=_words(
        "alignas alignof asm auto bool break case catch char class const constexpr const_cast "
        "continue decltype default delete do double dynamic_cast else enum explicit export extern "
        "false float for friend goto if inline int long mutable namespace new noexcept nullptr "
        "operator private protected public register reinterpret_cast return short signed sizeof "
        "static static_assert static_cast struct switch template this thread_local throw true try "
        "typedef typeid typename union unsigned using virtual void volatile wchar_t while"
    ),
    binders={
        "init_declarator": (("declarator",), ("value",)),
        "declaration": (("declarator",), ("default_value", "value")),
        "assignment_expression": (("left",), ("right",)),
        "update_expression": (("argument",), ()),
        "for_range_loop": (("declarator",), ("right",)),
        "parameter_declaration": (("declarator",), ()),
        "optional_parameter_declaration": (("declarator",), ("default_value",)),
        "lambda_capture_initializer": (("left",), ("right",)),
    },
    labels=frozenset({("qualified_identifier", "name")}),
    lists=frozenset(),
    places=_words("field_expression subscript_expression pointer_expression"),
    functions=_words("lambda_expression"),
)

JAVA = Grammar(
    name="java",
    keywords=_words(
        "abstract assert boolean break byte case catch char class const continue default do double "
        "else enum extends final finally float for goto if implements import instanceof int "
        "interface long native new package private protected public return short static strictfp "
        "super switch synchronized this throw throws transient try void volatile while true false "
        "null var record yield"
    ),
    binders={
        "variable_declarator": (("name",), ("value",)),
        "assignment_expression": (("left",), ("right",)),
        "update_expression": (("",), ()),
        "enhanced_for_statement": (("name",), ("value",)),
        "formal_parameter": (("name",), ()),
        "catch_formal_parameter": (("name",), ()),
        "resource": (("name",), ("value",)),
        "instanceof_expression": (("name",), ("left",)),
        "lambda_expression": (("parameters",), ()),
    },
    labels=frozenset({("method_invocation", "name"), ("field_access", "field")}),
    lists=frozenset(),
    places=_words("field_access array_access"),
    functions=_words("lambda_expression class_body"),
    updates=_words("update_expression"),
)

JAVASCRIPT = Grammar(
    name="javascript",
    keywords=_words(
        "async await break case catch class const continue debugger default delete do else export "
        "extends false finally for function if import in instanceof let new null of return static "
        "super switch this throw true try typeof undefined var void while with yield"
    ),
    binders={
        "variable_declarator": (("name",), ("value",)),
        "assignment_expression": (("left",), ("right",)),
        "augmented_assignment_expression": (("left",), ("right",)),
        "update_expression": (("argument",), ()),
        "for_in_statement": (("left",), ("right",)),
        "formal_parameters": (("",), ()),
        "arrow_function": (("parameter",), ()),
        "catch_clause": (("parameter",), ()),
        "assignment_pattern": (("left",), ("right",)),
        "object_assignment_pattern": (("left",), ("right",)),
    },
    labels=frozenset(),
    lists=_words("array_pattern array"),
    places=_words("member_expression subscript_expression"),
    functions=_words("arrow_function function_expression generator_function class_body"),
    variables=_words(
        "identifier shorthand_property_identifier shorthand_property_identifier_pattern"
    ),
)

GO = Grammar(
    name="go",
    keywords=_words(
        "break case chan const continue default defer else fallthrough for func go goto if import "
        "interface map package range return select struct switch type var true false nil"
    ),
    binders={
        "short_var_declaration": (("left",), ("right",)),
        "assignment_statement": (("left",), ("right",)),
        "var_spec": (("name",), ("value",)),
        "const_spec": (("name",), ("value",)),
        "range_clause": (("left",), ("right",)),
        "inc_statement": (("",), ()),
        "dec_statement": (("",), ()),
        "parameter_declaration": (("name",), ()),
        "variadic_parameter_declaration": (("name",), ()),
        "type_switch_statement": (("alias",), ("value",)),
    },
    labels=frozenset(),
    lists=_words("expression_list"),
    places=_words("selector_expression index_expression slice_expression unary_expression"),
    functions=_words("func_literal"),
    updates=_words("inc_statement dec_statement"),
)

RUST = Grammar(
    name="rust",
    keywords=_words(
        "as async await break const continue crate dyn else enum extern false fn for if impl in "
        "let loop match mod move mut pub ref return self Self static struct super trait true type "
        "unsafe use where while"
    ),
    binders={
        "let_declaration": (("pattern",), ("value",)),
        "let_condition": (("pattern",), ("value",)),
        "assignment_expression": (("left",), ("right",)),
        "compound_assignment_expr": (("left",), ("right",)),
        "for_expression": (("pattern",), ("value",)),
        "match_arm": (("pattern",), ()),
        "parameter": (("pattern",), ()),
        "closure_parameters": (("",), ()),
        "const_item": (("name",), ("value",)),
        "static_item": (("name",), ("value",)),
    },
    labels=frozenset({("scoped_identifier", "name"), ("scoped_identifier", "path")}),
    lists=_words("tuple_pattern tuple_expression"),
    places=_words("field_expression index_expression unary_expression"),
    functions=_words("closure_expression"),
    variables=_words("identifier shorthand_field_identifier self"),
    not_bound=frozenset({"type", "path", "condition"}),
    constants=True,
)

GRAMMARS = {g.name: g for g in (PYTHON, CPP, JAVA, JAVASCRIPT, GO, RUST)}
_ALIASES = {"c++": "cpp", "js": "javascript", "py": "python", "golang": "go", "rs": "rust"}


def grammar(language: str) -> Grammar:
    """Finds the tables of a language.

    Raises:
      GeexError: it is not one of the six.
    """
    name = _ALIASES.get(language.lower(), language.lower())
    if name not in GRAMMARS:
        raise GeexError(f"no CodeBLEU for {language!r}", did_you_mean(language, GRAMMARS))
    return GRAMMARS[name]
