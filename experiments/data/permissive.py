"""Permissively licensed code of Debian and npm packages: about 60M tokens, nothing to set up.

Command:
  geex tokenizer train --recipe permissive --output vocabulary --vocab-size 32000
  geex prepare --recipe permissive --output data --tokenizer vocabulary

Packages are fetched once into $GEEX_CACHE (default ~/.cache/geex); permissive.lock.json beside
this file pins versions and SHA-256. Each package's licence stands below. Ruby is left out: it is
not one of the 23 languages. OpenJDK is GPL-2.0 with the Classpath exception, so it has a recipe
of its own, permissive_openjdk.py.
"""

import pathlib

from geex_jax.data.recipe import Recipe, SourceSpec
from geex_jax.data.stages.spdx import PERMISSIVE

_TESTS = ("*/test/*", "*/tests/*")

# (package, licence, options: patterns of paths that are read ("only") and that are not ("without"))
PACKAGES = (
    # Python (and C)
    ("debian-source:python3.11", "PSF-2.0", {"without": [*_TESTS, "*/idlelib/*"]}),
    ("debian:python3-sqlalchemy", "MIT", {}),
    ("debian:python3-django", "BSD-3-Clause", {}),
    ("debian-source:nltk", "Apache-2.0", {}),
    ("debian:python3-pytest", "MIT", {}),
    ("debian:python3-scrapy", "BSD-3-Clause", {}),
    # C++
    (
        "debian:libboost1.74-dev",
        "BSL-1.0",
        {"without": ["*/preprocessed/*", "*/boost/spirit/*", "*/boost/fusion/*",
                     "*/boost/typeof/*", "*/boost/phoenix/*", "*/boost/numeric/*",
                     "*/boost/math/*", "*/boost/compute/*", "*/boost/geometry/*",
                     "*/boost/metaparse/*", "*/boost/vmd/*", "*/boost/preprocessor/*",
                     "*/boost/hana/*", "*/boost/mpl/*", "*/boost/proto/*", "*/boost/units/*",
                     "*/boost/xpressive/*", "*/boost/log/*", "*/boost/gil/*",
                     "*/boost/accumulators/*", "*/boost/test/*", "*/boost/python/*",
                     "*/boost/asio/*", "*/boost/graph/*", "*/boost/beast/*", "*/boost/polygon/*",
                     "*/boost/wave/*", "*/boost/qvm/*", "*/boost/icl/*", "*/boost/outcome/*",
                     "*/boost/multiprecision/*", "*/boost/parameter/*", "*/boost/sort/*"]},
    ),
    ("debian-source:abseil", "Apache-2.0", {}),
    ("debian-source:protobuf", "BSD-3-Clause", {}),  # in many languages
    ("debian-source:range-v3", "BSL-1.0", {}),
    ("debian-source:googletest", "BSD-3-Clause", {}),
    ("debian-source:catch2", "BSL-1.0", {}),
    ("debian-source:box2d", "MIT", {}),
    ("debian-source:rapidjson", "MIT", {}),
    ("debian-source:fmtlib", "MIT", {}),
    ("debian-source:leveldb", "BSD-3-Clause", {}),
    ("debian-source:re2", "BSD-3-Clause", {}),
    # C, and some Objective-C and Objective-C++
    ("debian-source:nginx", "BSD-2-Clause", {}),
    ("debian-source:libuv1", "MIT", {}),
    ("debian-source:musl", "MIT", {}),
    ("debian-source:lua5.4", "MIT", {}),
    ("debian-source:glfw3", "Zlib", {}),
    ("debian-source:imgui", "MIT", {}),
    # Java
    ("debian-source:guava-libraries", "Apache-2.0",
     {"without": ["*/android/*", "*/guava-tests/*"]}),
    ("debian-source:libcommons-lang3-java", "Apache-2.0", {}),
    ("debian-source:libcommons-collections4-java", "Apache-2.0", {}),
    ("debian-source:commons-io", "Apache-2.0", {}),
    ("debian-source:commons-pool2", "Apache-2.0", {}),
    ("debian-source:maven", "Apache-2.0", {}),
    # Go
    ("debian-source:golang-1.19", "BSD-3-Clause",
     {"only": ["*/src/*"], "without": ["*/src/cmd/*", "*/testdata/*", "*/vendor/*", "*_test.go"]}),
    # Rust
    ("debian:rust-src", "MIT OR Apache-2.0",
     {"only": ["*/library/*"], "without": ["*/stdarch/*", "*/vendor/*"]}),
    # JavaScript, TypeScript, CSS
    ("npm:three@0.160.0", "MIT", {"without": ["*/build/*"]}),
    ("npm:rxjs@7.8.1", "Apache-2.0", {"without": ["*/dist/*"]}),
    ("npm:vue@2.7.14", "MIT", {"without": ["*/dist/*"]}),
    ("npm:zod@3.25.76", "MIT", {}),
    ("npm:effect@3.10.0", "MIT", {"without": ["*/dist/*"]}),
    ("npm:fp-ts@2.16.1", "MIT", {}),
    ("npm:date-fns@2.30.0", "MIT", {"without": ["*/esm/*"]}),
    ("npm:eslint@8.56.0", "MIT", {}),
    ("npm:preact@10.19.3", "MIT", {"without": ["*/dist/*"]}),
    ("npm:ol@8.2.0", "BSD-2-Clause", {"without": ["*/dist/*"]}),
    ("npm:bootstrap@5.3.2", "MIT", {}),
    ("npm:semantic-ui-css@2.5.0", "MIT", {}),
    ("npm:foundation-sites@6.8.1", "MIT", {}),
    # PHP
    ("debian-source:php-laravel-framework", "MIT", {}),
    ("debian-source:php-twig", "BSD-3-Clause", {}),
    # Shell; more of it lies in the packages above
    ("debian:zsh-syntax-highlighting", "BSD-3-Clause", {}),
    ("debian:zsh-autosuggestions", "MIT", {}),
    ("debian:shunit2", "Apache-2.0", {}),
    ("debian:dehydrated", "MIT", {}),
    ("debian:bats", "MIT", {}),
    ("debian:kubectx", "Apache-2.0", {}),
    ("debian-source:fzf", "MIT", {}),
    # SQL, Scala, Kotlin, C#, Fortran, Cuda, R
    ("debian:postgresql-15-pgtap", "PostgreSQL", {}),
    ("debian:postgresql-15-partman", "PostgreSQL", {}),
    ("debian:postgresql-15-orafce", "0BSD", {}),
    ("debian-source:scala", "BSD-3-Clause", {"only": ["*/src/library/*"]}),
    ("debian-source:kotlin", "Apache-2.0", {"only": ["*/libraries/stdlib/*"]}),
    ("debian-source:newtonsoft-json", "MIT", {}),
    ("debian-source:lapack", "BSD-3-Clause", {"only": ["*/SRC/d[a-h]*"]}),
    ("debian:libthrust-dev", "Apache-2.0", {"only": ["*.cu", "*.cuh"]}),
    ("debian-source:r-cran-ggplot2", "MIT", {}),
    ("debian-source:r-cran-tidyr", "MIT", {}),
)  # fmt: skip

OPENJDK = (
    "debian-source:openjdk-17",
    "GPL-2.0-only WITH Classpath-exception-2.0",
    {"only": ["*/src/*"]},
)

LOCK = str(pathlib.Path(__file__).with_name("permissive.lock.json"))


def get_recipe(openjdk: bool = False) -> Recipe:
    """Returns the recipe.

    Args:
      openjdk: add the library of OpenJDK, which is not permissively licensed.
    """
    sources = tuple(
        SourceSpec(
            package,
            kind="packages",
            name=package.partition(":")[2],
            options={"lock": LOCK, "licence": licence, **options},
        )
        for package, licence, options in (*PACKAGES, *([OPENJDK] if openjdk else []))
    )
    # A file whose own header says otherwise (a GPL test in an Apache package) is dropped.
    allow = [*PERMISSIVE, "GPL-2.0-only"] if openjdk else list(PERMISSIVE)
    return Recipe(sources, name="permissive", stages={"licences": {"allow": allow}})
