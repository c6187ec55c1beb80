"""File names that tell that nobody wrote the file: generated, minified, locked, vendored."""

from __future__ import annotations

import re

# Written by package managers.
_LOCK_FILES = frozenset(
    b"package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock composer.lock "
    b"gemfile.lock poetry.lock pipfile.lock uv.lock pdm.lock cargo.lock go.sum mix.lock "
    b"pubspec.lock podfile.lock packages.lock.json flake.lock .pnp.cjs .pnp.loader.mjs "
    b"gradle.lockfile project.assets.json".split()
)
_MINIFIED = re.compile(r"[.\-_](?:min|minified|bundle|chunk|prod)\.(?:m?js|cjs|css|html?)\Z", re.I)
_GENERATED = re.compile(
    r"(?:_pb2(?:_grpc)?\.pyi?|\.pb\.(?:go|cc|h|swift)|\.pb-c\.[ch]|_grpc\.pb\.go|\.pb\.gw\.go"
    r"|\.twirp\.go|_generated\.(?:go|rs|h|ts|js)|\.generated\.(?:cs|ts|js|h|cpp)|\.g\.(?:cs|dart|i)"
    r"|\.designer\.cs|zz_generated\.[\w.]+\.go|\.g4\.(?:ts|js)|(?:^|_)moc_\w+\.cpp|\bmoc_\w+\.cpp"
    r"|\bqrc_\w+\.cpp|\bui_\w+\.h|\.tab\.[ch](?:pp)?|\blex\.yy\.c|\.yy\.cc?|_wrap\.cxx?"
    r"|\bparsetab\.py|\blextab\.py|_rc\.py|\bR\.java|BuildConfig\.java|_mock\.go|\bbindata\.go)\Z",
    re.I,
)
# Libraries that are copied by hand from project to project. Folders such as node_modules are not
# in the list: inside a package they hold the package's own files, and in a checkout .gitignore
# leaves them out.
_VENDORED = re.compile(
    r"(?:^|/)(?:jquery(?:[.-](?:ui|\d[\w.]*|slim|migrate|cookie|form|validate))*\.js"
    r"|(?:bootstrap|font-?awesome|normalize|animate|foundation|semantic)(?:[.-]\d[\w.]*)?\.(?:css|js)"
    r"|(?:modernizr|prototype|mootools|underscore|backbone|require|lodash|angular|react|vue|d3|three"
    r"|raphael|ckeditor|tinymce|html5shiv|respond|swfobject)[.-]v?\d[\w.]*\.js"
    r"|bower_components/.*|\.yarn/(?:releases|plugins|sdks|cache)/.*|gradlew(?:\.bat)?|mvnw(?:\.cmd)?"
    r"|ltmain\.sh|config\.(?:guess|sub)|install-sh|aclocal\.m4|depcomp|missing|compile|libtool"
    r"|(?:libtool|lt~obsolete|ltoptions|ltsugar|ltversion)\.m4)\Z",
    re.I,
)


def judge(path: str) -> str | None:
    """Returns why a file of this path is dropped unread, or None.

    One of "lock_file", "minified", "generated", "vendored".
    """
    name = path.rsplit("/", 1)[-1]
    if name.lower().encode("utf-8", "replace") in _LOCK_FILES:
        return "lock_file"
    if _MINIFIED.search(name):
        return "minified"
    if _GENERATED.search(name):
        return "generated"
    return "vendored" if _VENDORED.search(path) else None
