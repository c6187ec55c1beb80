"""Licences known by their texts, whole or as the notice at the head of a source file."""

from __future__ import annotations

import re

from geex_jax.data.stages import spdx

_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n\r]{1,200})")
_END_OF_COMMENT = re.compile(r"\s*(?:\*/|-->|\*\)|#\}|\"\"\"|').*")
# Words of notices; a head without one of these holds no licence, and is not looked at further.
_HINTS = ("icense", "ICENSE", "icence", "ermission", "edistribution", "ublic domain", "PSF", "GPL")
# What stands between words of a wrapped and commented text.
_BREAKS = re.compile(r"[\s*#/;%!\"'|>`“”‘’-]+")

# Each: licence, phrases that must all be there, phrases that must not. Texts are compared in lower
# case with everything between words as one space. The first that fits is the answer.
_RULES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("AGPL-3.0", ("gnu affero general public license", "version 3"), ()),
    ("LGPL-3.0", ("gnu lesser general public license", "version 3"), ("gnu general public license version 3, 29",)),  # noqa: E501
    ("LGPL-2.1", ("gnu lesser general public license", "version 2"), ()),
    ("LGPL-2.0", ("gnu library general public license", "version 2"), ()),
    ("GPL-3.0", ("gnu general public license", "version 3"), ()),
    ("GPL-2.0", ("gnu general public license", "version 2"), ()),
    ("GPL-1.0", ("gnu general public license", "version 1"), ()),
    ("GPL-2.0-or-later", ("gnu general public license", "any later version"), ()),
    ("MPL-2.0", ("mozilla public license", "2.0"), ()),
    ("MPL-1.1", ("mozilla public license", "1.1"), ()),
    ("EPL-2.0", ("eclipse public license", "2.0"), ()),
    ("EPL-1.0", ("eclipse public license", "1.0"), ()),
    ("CDDL-1.0", ("common development and distribution license",), ()),
    ("Apache-2.0", ("apache license", "version 2.0"), ()),
    ("Apache-2.0", ("apache.org licenses license 2.0",), ()),
    ("Apache-1.1", ("apache software license", "version 1.1"), ()),
    ("BSL-1.0", ("boost software license", "1.0"), ()),
    ("BSL-1.0", ("permission is hereby granted, free of charge, to any person or organization obtaining",), ()),  # noqa: E501
    ("PSF-2.0", ("python software foundation license version 2",), ()),
    ("PSF-2.0", ("licensed to psf under a contributor agreement",), ()),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",), ()),
    ("CC0-1.0", ("cc0 1.0 universal",), ()),
    ("CC0-1.0", ("creativecommons.org publicdomain zero 1.0",), ()),
    ("Unicode-3.0", ("unicode license v3",), ()),
    ("ICU", ("icu license",), ()),
    ("NCSA", ("university of illinois ncsa open source license",), ()),
    ("PHP-3.01", ("php license", "3.01"), ()),
    ("Artistic-2.0", ("artistic license 2.0",), ()),
    ("UPL-1.0", ("universal permissive license", "1.0"), ()),
    ("WTFPL", ("do what the fuck you want to public license",), ()),
    ("MS-PL", ("microsoft public license",), ()),
    ("PostgreSQL", ("postgresql license",), ()),
    ("BlueOak-1.0.0", ("blue oak model license",), ()),
    ("Ruby", ("ruby is copyrighted free software by yukihiro matsumoto",), ()),
    ("Zlib", ("the origin of this software must not be misrepresented", "altered source versions must be plainly marked"), ()),  # noqa: E501
    ("BSD-4-Clause", ("redistribution and use in source and binary forms", "all advertising materials"), ()),  # noqa: E501
    ("BSD-3-Clause-Clear", ("redistribution and use in source and binary forms", "no express or implied licenses to any party s patent rights"), ()),  # noqa: E501
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "to endorse or promote"), ()),  # noqa: E501
    ("BSD-2-Clause", ("redistribution and use in source and binary forms", "binary form must reproduce the above copyright"), ()),  # noqa: E501
    ("BSD-2-Clause", ("redistribution and use in source and binary forms", "binary forms, with or without modification, are permitted provided that"), ("neither",)),  # noqa: E501
    ("BSD-1-Clause", ("redistribution and use in source and binary forms",), ()),
    ("MIT-0", ("permission is hereby granted, free of charge, to any person obtaining a copy",), ("above copyright notice and this permission notice",)),  # noqa: E501
    ("X11", ("permission is hereby granted, free of charge, to any person obtaining a copy", "shall not be used in advertising"), ()),  # noqa: E501
    ("MIT", ("permission is hereby granted, free of charge, to any person obtaining a copy",), ()),
    ("0BSD", ("permission to use, copy, modify, and or distribute this software for any purpose",), ("copyright notice and this permission notice appear", "provided that the above copyright")),  # noqa: E501
    ("ISC", ("permission to use, copy, modify, and or distribute this software for any purpose",), ()),  # noqa: E501
    ("ISC", ("permission to use, copy, modify, and distribute this software for any purpose with or without fee is hereby granted, provided that",), ()),  # noqa: E501
    ("HPND", ("permission to use, copy, modify, and distribute this software", "without fee"), ()),
    ("W3C", ("w3c software notice and license",), ()),
    ("BSD-2-Clause", ("under the terms of the simplified bsd license",), ()),
    ("BSD-3-Clause", ("bsd 3 clause license",), ()),
    ("BSD-3-Clause", ("3 clause bsd license",), ()),
    ("BSD-2-Clause", ("bsd 2 clause license",), ()),
    ("MIT", ("under the mit license",), ()),
    ("MIT", ("under the terms of the mit license",), ()),
    ("MIT", ("under an mit style license",), ()),
    ("MIT", ("mit licensed",), ()),
    ("MIT", ("@license mit",), ()),
    ("MIT", ("license: mit",), ()),
    ("BSD-3-Clause", ("license: bsd",), ()),
    ("ISC", ("license: isc",), ()),
    ("Apache-2.0", ("license: apache",), ()),
    ("LicenseRef-public-domain", ("is hereby placed in the public domain",), ()),
    ("LicenseRef-public-domain", ("placed into the public domain",), ()),
    ("LicenseRef-public-domain", ("is in the public domain",), ()),
    ("LicenseRef-public-domain", ("the author disclaims copyright",), ()),
)  # fmt: skip
_COPYLEFT = ("AGPL-3.0", "LGPL-3.0", "LGPL-2.1", "LGPL-2.0", "GPL-3.0", "GPL-2.0", "GPL-1.0")
_LATER = re.compile(
    r"or \(?at (?:your|the) (?:option|user s option)\)? any later|any later version|or later\b"
)
_EXCEPTIONS = (
    ("Classpath-exception-2.0", "linking this library statically or dynamically with other modules"),  # noqa: E501
    ("Classpath-exception-2.0", "\"classpath\" exception"),
    ("Classpath-exception-2.0", "subject to the classpath exception"),
    ("GCC-exception-3.1", "gcc runtime library exception"),
    ("LLVM-exception", "llvm exceptions"),
    ("Linux-syscall-note", "linux syscall note"),
)  # fmt: skip


def detect(text: str) -> str:
    """Returns the SPDX expression of a licence's text (LICENSE, COPYING) or notice, or ""."""
    return _judge(text[:60_000], whole=True)


def in_header(head: str) -> str:
    """Returns the licence stated at the head of a source file, or ""."""
    if not any(hint in head for hint in _HINTS):
        return ""
    return _judge(head, whole=False)


def _judge(text: str, *, whole: bool) -> str:
    expressions = [_END_OF_COMMENT.sub("", found).strip() for found in _SPDX.findall(text)]
    for expression in expressions:
        if found := spdx.normalize(expression):
            return found
    plain = _BREAKS.sub(" ", text.lower())
    licence = next((x for x, needed, absent in _RULES if _fits(plain, needed, absent)), "")
    if licence in _COPYLEFT:
        # The full text of the GPL explains "any later version" to everybody.
        full = "terms and conditions for copying" in plain or "0. definitions" in plain
        title = whole and full
        licence += "-or-later" if _LATER.search(plain) and not title else "-only"
        if _dual_mit(plain):
            return f"{licence} OR MIT"
    for exception, phrase in _EXCEPTIONS:
        if licence and phrase in plain:
            return f"{licence} WITH {exception}"
    return licence


def _fits(plain: str, needed: tuple[str, ...], absent: tuple[str, ...]) -> bool:
    return all(p in plain for p in needed) and not any(p in plain for p in absent)


def _dual_mit(plain: str) -> bool:
    return "dual licensed under the mit" in plain or "licensed under the mit or gpl" in plain
