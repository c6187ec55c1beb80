"""Languages by name and content, and the paper's filters as a stage."""

import pytest

from geex_jax.data.document import Document
from geex_jax.data.filters import Filters
from geex_jax.data.stages import DEFAULTS, STAGES, LanguageOf, PaperFilters, build
from geex_jax.data.stages.language import by_shebang, language_of
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES
from tests.data.helpers import source

SAMPLES = {
    "C++": "a/x.cpp",
    "Python": "x.py",
    "Java": "Main.java",
    "JavaScript": "x.mjs",
    "C": "x.c",
    "Go": "x.go",
    "HTML": "x.HTM",
    "Shell": "x.sh",
    "PHP": "x.php",
    "CSS": "x.css",
    "TypeScript": "x.tsx",
    "SQL": "x.sql",
    "TeX": "x.tex",
    "Rust": "x.rs",
    "Objective-C": ("x.m", b"#import <Foundation/Foundation.h>\n"),
    "Scala": "x.scala",
    "Kotlin": "x.kt",
    "Pascal": "x.pas",
    "Fortran": "x.F90",
    "R": "x.R",
    "Cuda": "x.cu",
    "C#": "x.cs",
    "Objective-C++": "x.mm",
}


def settle(path, text="", stage=None, **fields):
    document = Document("s", path, text=text, **fields)
    decision = (stage or LanguageOf())(document)
    return decision.reason or LANGUAGES[document.language].name


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda x: x.slug)
def test_every_language_is_known_by_its_extension(language):
    sample = SAMPLES[language.name]
    name, data = sample if isinstance(sample, tuple) else (sample, b"")
    assert language_of(name, data) is language
    for extension in language.extensions:
        if extension not in (".m", ".pp"):
            assert language_of("file" + extension, b"") is language


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("#!/bin/sh", "Shell"),
        ("#! /usr/bin/env bash", "Shell"),
        ("#!/usr/bin/python3.11 -u", "Python"),
        ("#!/usr/bin/env -S PYTHONPATH=. python3", "Python"),
        ("#!/usr/bin/env node", "JavaScript"),
        ("#!/usr/bin/php8.2", "PHP"),
        ("#!/usr/bin/env Rscript", "R"),
        ("#!/usr/bin/env ts-node", "TypeScript"),
        ("#!/usr/bin/scala", "Scala"),
        ("#!/usr/bin/env kotlin", "Kotlin"),
        ("#!/usr/bin/instantfpc", "Pascal"),
        ("#!/usr/bin/env rust-script", "Rust"),
    ],
)
def test_shebangs(line, name):
    assert LANGUAGES[by_shebang(line.encode() + b"\ncode") or 0].name == name
    assert language_of("tool", line.encode() + b"\r\n").name == name


def test_no_shebang_no_language():
    for data in (b"", b"#!", b"#!/usr/bin/perl\n", b"#!/usr/bin/env\n", b"text"):
        assert by_shebang(data) is None
    assert language_of("README", b"words") is None
    assert language_of("x.unknown", b"#!/bin/sh\n") is None
    assert language_of(".hidden", b"#!/bin/sh\n") is None
    assert language_of(".bashrc").name == "Shell"
    assert language_of("SConstruct").name == "Python"


@pytest.mark.parametrize(
    ("name", "data", "language"),
    [
        ("x.h", b"int f(int a);\n/* this class of functions */\nstruct s;\n", "C"),
        ("x.h", b"namespace a {\n", "C++"),
        ("x.h", b"\n\n  class A : public B {", "C++"),
        ("x.h", b"  template <class T>\nT f();", "C++"),
        ("x.h", b"class A : public B {", "C++"),
        ("x.C", b"", "C++"),
        ("x.ts", b"const a: number = 1", "TypeScript"),
        ("x.h", b"void f(std::string s);", "C++"),
        ("x.h", b"@interface A : NSObject\n@end", "Objective-C"),
        ("x.m", b"function y = f(x)\n", None),
        ("x.m", b"  #import <A.h>\n", "Objective-C"),
        ("x.pp", b"class apache {\n}\n", None),
        ("x.pp", b"unit a;\ninterface\n", "Pascal"),
        ("x.ts", b'<?xml version="1.0"?>\n<!DOCTYPE TS>', None),
        ("x.mm", b'<map version="1.0">', None),
        ("x.r", b'; a comment\nREBOL [Title: "x"]', None),
        ("x.R", b"f <- function(x) x", "R"),
        ("x.cls", b"VERSION 1.0 CLASS\nBEGIN\n", None),
        ("x.cls", b"public with sharing class Foo {", None),
        ("x.cls", b"\\NeedsTeXFormat{LaTeX2e}", "TeX"),
        ("x.f", b": square dup * ;\n", None),
        ("x.f", b"C     COMMENT\n      SUBROUTINE F(X)\n", "Fortran"),
        ("x.rs", b"#pragma version(1)\n#pragma rs java_package_name(a)\n", None),
        ("x.sc", b"SynthDef(\\a, { Out.ar(0) })", None),
        ("x.sql", b"select 1;", "SQL"),
        ("x.sql", b"\x89 nothing of the kind 1 2 3", None),
        ("x.cu", b"__global__ void f() {}", "Cuda"),
        ("x.inc", b"<?php echo 1;", "PHP"),
        ("x.inc", b"#define A 1\n", "C"),
        ("x.inc", b"mov ax, bx\n", None),
        ("x.pl", b"use strict;", None),
        ("x.ipynb", b"{}", None),
    ],
)
def test_extensions_that_several_languages_share(name, data, language):
    found = language_of(name, data)
    assert (found.name if found else None) == language
    assert settle("a/" + name, data.decode("latin-1")) == (language or "unknown_language")


def test_the_stage_keeps_what_is_given_and_asked_for():
    assert settle("row 7", "x", language=3) == LANGUAGES[3].name
    assert settle("tool", "#!/bin/sh\n") == "Shell"
    only = LanguageOf(["golang", "Rust"])
    assert only.settings() == {"languages": ["Go", "Rust"]}
    assert settle("a.go", "", only) == "Go"
    assert settle("a.py", "", only) == "other_language"
    with pytest.raises(GeexError, match="did you mean"):
        LanguageOf(["Pyton"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (source(1), ""),
        ("x = 1\n", "too_small"),
        (source(1, 110_000), "too_large"),
        (("word " * 50 + "\n") * 20, "long_lines"),
        ("1234567890\n" * 200, "few_letters"),
        ("# auto-generated\n" + source(1), "generated"),
        ("# DO NOT EDIT\n" + source(1), "generated"),
    ],
)
def test_the_papers_filters(text, reason):
    decision = PaperFilters()(Document("s", "x.py", text=text))
    assert (decision.reason, decision.keep) == (reason, not reason)
    size = Filters().judge_size(len(text.encode()))
    assert (size or Filters().judge_text(text) or "") == reason
    assert decision.note
    assert PaperFilters()(Document("s", "x.py", text=text, prompt="say")).keep


def test_stages_are_built_in_order_and_mistakes_are_one_line():
    assert [s.name for s in build()] == list(DEFAULTS) == list(STAGES)[:-1]
    chosen = build({"secrets": None, "filters": {"min_bytes": 0}})
    assert [s.name for s in chosen] == ["decode", "language", "filters", "licences"]
    assert chosen[2].settings()["min_bytes"] == 0
    for bad in ({"secret": {}}, {"filters": {"min_byte": 0}}, {"decode": {"x": 1}}):
        with pytest.raises(GeexError) as error:
            build(bad)
        assert "\n" not in str(error.value)
        assert "did you mean" in str(error.value) or "choose one of" in str(error.value)
