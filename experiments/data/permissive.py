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

# package, licence, what is left out of it (patterns of paths)
PACKAGES = (
    # Python (and C)
    ("debian-source:python3.11", "PSF-2.0", ()),
    ("debian:python3-numpy", "BSD-3-Clause", ()),
    ("debian:python3-pandas", "BSD-3-Clause", ()),
    ("debian-source:sympy", "BSD-3-Clause", ()),
    ("debian:python3-sklearn", "BSD-3-Clause", ()),
    ("debian:python3-networkx", "BSD-3-Clause", ()),
    ("debian:python3-twisted", "MIT", ()),
    ("debian:python3-sqlalchemy", "MIT", ()),
    ("debian:python3-astropy", "BSD-3-Clause", ()),
    ("debian:python3-nova", "Apache-2.0", ()),
    ("debian:python3-numba", "BSD-2-Clause", ()),
    ("debian-source:nltk", "Apache-2.0", ()),
    ("debian:python3-scrapy", "BSD-3-Clause", ()),
    ("debian:python3-pytest", "MIT", ()),
    ("debian:python3-neutron", "Apache-2.0", ()),
    ("debian:python3-django", "BSD-3-Clause", ()),
    ("debian:python3-dask", "BSD-3-Clause", ()),
    # C++
    ("debian:libboost1.74-dev", "BSL-1.0", ()),
    ("debian-source:pytorch", "BSD-3-Clause", ()),
    ("debian-source:abseil", "Apache-2.0", ()),
    ("debian-source:protobuf", "BSD-3-Clause", ()),
    ("debian-source:grpc", "Apache-2.0", ()),
    ("debian-source:rocksdb", "Apache-2.0", ()),  # or GPL-2.0, as the user chooses
    ("debian-source:poco", "BSL-1.0", ()),
    ("debian-source:bullet", "Zlib", ()),
    ("debian-source:box2d", "MIT", ()),
    ("debian-source:onetbb", "Apache-2.0", ()),
    ("debian:libasio-dev", "BSL-1.0", ()),
    ("debian-source:range-v3", "BSL-1.0", ()),
    ("debian-source:catch2", "BSL-1.0", ()),
    ("debian-source:googletest", "BSD-3-Clause", ()),
    ("debian-source:rapidjson", "MIT", ()),
    ("debian-source:fmtlib", "MIT", ()),
    ("debian-source:spdlog", "MIT", ()),
    ("debian-source:leveldb", "BSD-3-Clause", ()),
    ("debian-source:re2", "BSD-3-Clause", ()),
    ("debian-source:thrift", "Apache-2.0", ()),  # in many languages
    # C, Objective-C
    ("debian-source:redis", "BSD-3-Clause", ()),
    ("debian-source:nginx", "BSD-2-Clause", ()),
    ("debian-source:libuv1", "MIT", ()),
    ("debian-source:mbedtls", "Apache-2.0", ()),
    ("debian-source:musl", "MIT", ()),
    ("debian-source:lua5.4", "MIT", ()),
    ("debian-source:curl", "curl", ()),
    ("debian-source:libevent", "BSD-3-Clause", ()),
    ("debian-source:libsdl2", "Zlib", ()),
    ("debian-source:glfw3", "Zlib", ()),
    ("debian-source:imgui", "MIT", ()),
    # Java
    ("debian-source:guava-libraries", "Apache-2.0", ()),
    ("debian-source:libcommons-lang3-java", "Apache-2.0", ()),
    ("debian-source:commons-math3", "Apache-2.0", ()),
    ("debian-source:libcommons-collections4-java", "Apache-2.0", ()),
    ("debian-source:commons-io", "Apache-2.0", ()),
    ("debian-source:commons-pool2", "Apache-2.0", ()),
    ("debian-source:httpcomponents-client", "Apache-2.0", ()),
    ("debian-source:httpcomponents-core", "Apache-2.0", ()),
    ("debian-source:netty", "Apache-2.0", ()),
    ("debian-source:tomcat9", "Apache-2.0", ()),
    ("debian-source:ant", "Apache-2.0", ()),
    ("debian-source:maven", "Apache-2.0", ()),
    ("debian-source:apache-log4j2", "Apache-2.0", ()),
    ("debian-source:jackson-databind", "Apache-2.0", ()),
    ("debian-source:libspring-java", "Apache-2.0", ()),
    ("debian-source:bouncycastle", "MIT", ()),
    ("debian-source:libxalan2-java", "Apache-2.0", ()),
    ("debian-source:zookeeper", "Apache-2.0", ()),
    ("debian-source:derby", "Apache-2.0", ()),  # and SQL
    ("debian-source:error-prone-java", "Apache-2.0", ()),
    ("debian-source:groovy", "Apache-2.0", ()),
    # Go
    ("debian-source:golang-1.19", "BSD-3-Clause", ()),
    ("debian-source:prometheus", "Apache-2.0", ()),
    ("debian-source:docker.io", "Apache-2.0", ()),
    ("debian-source:etcd", "Apache-2.0", ()),
    ("debian-source:golang-google-grpc", "Apache-2.0", ()),
    # Rust
    ("debian:rust-src", "MIT OR Apache-2.0", ()),
    # JavaScript, TypeScript, CSS
    ("npm:three@0.160.0", "MIT", ("*/build/*",)),
    ("npm:rxjs@7.8.1", "Apache-2.0", ("*/dist/*",)),
    ("npm:@angular/core@15.2.9", "MIT", ("*/fesm*", "*/esm*")),
    ("npm:vue@2.7.14", "MIT", ("*/dist/*",)),
    ("npm:zod@3.25.76", "MIT", ()),
    ("npm:effect@3.10.0", "MIT", ("*/dist/*",)),
    ("npm:fp-ts@2.16.1", "MIT", ()),
    ("npm:typeorm@0.3.17", "MIT", ("*/browser/*",)),
    ("npm:typescript@5.3.3", "Apache-2.0", ()),
    ("npm:date-fns@2.30.0", "MIT", ("*/esm/*",)),
    ("npm:mathjs@12.2.1", "Apache-2.0", ("*/lib/*",)),
    ("npm:d3@7.8.5", "ISC", ("*/dist/*",)),
    ("npm:eslint@8.56.0", "MIT", ()),
    ("npm:webpack@5.89.0", "MIT", ()),
    ("npm:preact@10.19.3", "MIT", ("*/dist/*",)),
    ("npm:ol@8.2.0", "BSD-2-Clause", ("*/dist/*",)),
    ("npm:antd@5.12.2", "MIT", ("*/dist/*", "*/es/*")),
    ("npm:playwright-core@1.40.1", "Apache-2.0", ()),
    ("npm:bootstrap@5.3.2", "MIT", ()),
    ("npm:bulma@0.9.4", "MIT", ()),
    ("npm:@primer/css@21.1.1", "MIT", ()),
    ("npm:semantic-ui-css@2.5.0", "MIT", ()),
    ("npm:foundation-sites@6.8.1", "MIT", ()),
    # PHP
    ("debian-source:php-laravel-framework", "MIT", ()),
    ("debian-source:phpunit", "BSD-3-Clause", ()),
    ("debian-source:php-twig", "BSD-3-Clause", ()),
    ("debian-source:composer", "MIT", ()),
    ("debian-source:doctrine", "MIT", ()),
    ("debian:php-phpseclib", "MIT", ()),
    ("debian-source:php-league-commonmark", "BSD-3-Clause", ()),
    ("debian-source:php-parser", "BSD-3-Clause", ()),
    # Shell
    ("debian-source:zsh", "MIT-Modern-Variant", ()),
    ("debian:zsh-syntax-highlighting", "BSD-3-Clause", ()),
    ("debian:zsh-autosuggestions", "MIT", ()),
    ("debian:shunit2", "Apache-2.0", ()),
    ("debian:dehydrated", "MIT", ()),
    ("debian:bats", "MIT", ()),
    ("debian:kubectx", "Apache-2.0", ()),
    ("debian-source:fzf", "MIT", ()),
    # SQL, Scala, Kotlin, C#, Fortran, Cuda, R
    ("debian-source:hsqldb", "BSD-3-Clause", ()),
    ("debian:postgresql-15-pgtap", "PostgreSQL", ()),
    ("debian:postgresql-15-partman", "PostgreSQL", ()),
    ("debian:postgresql-15-orafce", "0BSD", ()),
    ("debian-source:scala", "BSD-3-Clause", ()),
    ("debian-source:kotlin", "Apache-2.0", ()),
    ("debian-source:newtonsoft-json", "MIT", ()),
    ("debian-source:lapack", "BSD-3-Clause", ()),
    ("debian:libthrust-dev", "Apache-2.0", ()),
    ("debian-source:r-cran-ggplot2", "MIT", ()),
    ("debian-source:r-cran-dplyr", "MIT", ()),
    ("debian-source:r-cran-tidyr", "MIT", ()),
)

OPENJDK = ("debian-source:openjdk-17", "GPL-2.0-only WITH Classpath-exception-2.0", ())

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
            options={"lock": LOCK, "licence": licence, "without": list(without)},
        )
        for package, licence, without in (*PACKAGES, *([OPENJDK] if openjdk else []))
    )
    return Recipe(sources, name="permissive")
