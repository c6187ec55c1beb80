"""Look-ups, with clients that answer from a file: what apt-get and npm printed one day."""

import json
import os
import stat

import pytest

from geex_jax.data.packages import registries
from geex_jax.data.packages.lock import File, Pinned
from geex_jax.errors import GeexError

SHA = "2dfa82fe4f08f4e0193c532e561af4c91871f5235608f04f2bb8d57bb288df5a"


@pytest.fixture
def client(tmp_path, monkeypatch):
    """client(name, script): a program of that name, alone on the PATH beside sh."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    registries._repositories.cache_clear()
    registries.npm_address.cache_clear()

    def add(name, script):
        path = folder / name
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    yield add
    registries._repositories.cache_clear()
    registries.npm_address.cache_clear()


def test_a_binary_package(client, tmp_path):
    url = "http://mirror.example/some/debian/pool/main/b/b/b-dev_1.74.0%2bds1-21_amd64.deb"
    client("apt-get", f"""echo "'{url}' b-dev_1.74.0+ds1-21_amd64.deb 9507888 SHA256:{SHA}"\n""")
    assert registries.look_up("debian:b-dev", tmp_path) == Pinned(
        "1.74.0+ds1-21",
        (
            File(
                "b-dev_1.74.0+ds1-21_amd64.deb",
                "debian/pool/main/b/b/b-dev_1.74.0+ds1-21_amd64.deb",
                9507888,
                SHA,
            ),
        ),
    )


def test_a_source_package_is_its_upstream_tarball(client, tmp_path):
    base = "http://deb.debian.org/debian/pool/main/s/scipy/"
    lines = "".join(
        f"echo \"'{base}{name}' {name} 5 SHA256:{SHA}\"\n"
        for name in (
            "scipy_1.10.1-2.dsc",
            "scipy_1.10.1.orig-submodules.tar.gz",
            "scipy_1.10.1.orig.tar.gz",
            "scipy_1.10.1.orig.tar.gz.asc",
            "scipy_1.10.1-2.debian.tar.xz",
        )
    )
    client("apt-get", "echo Reading package lists...\n" + lines)
    found = registries.look_up("debian-source:scipy", tmp_path)
    assert found.version == "1.10.1"
    assert [file.name for file in found.files] == ["scipy_1.10.1.orig.tar.gz"]


def test_source_packages_are_looked_up_in_an_index_of_our_own(client, tmp_path):
    """apt-get without deb-src lines refuses; with our list and after an update, it answers."""
    client("mkdir", 'exec /bin/mkdir "$@"\n')
    client(
        "apt-get",
        f"""case "$*" in
*indextargets*) echo http://mirror.example/debian ;;
*Dir::State::lists=*update) : > {tmp_path}/apt/lists/mirror_Sources ;;
*Dir::State::lists=*source*)
  echo "'http://m/debian/pool/main/z/z/z_1.orig.tar.gz' z_1.orig.tar.gz 5 SHA256:{SHA}" ;;
*) echo "E: You must put some 'deb-src' URIs in your sources.list" >&2; exit 100 ;;
esac
""",
    )
    assert registries.look_up("debian-source:z", tmp_path).version == "1"
    listed = (tmp_path / "apt" / "sources.list").read_text()
    assert listed.startswith("deb-src ") and " http://mirror.example/debian " in listed


def test_npm_packages_keep_their_scope_apart(client, tmp_path):
    for place, name in (
        ("three/-/three-0.160.0.tgz", "three-0.160.0.tgz"),
        ("@angular/core/-/core-15.2.9.tgz", "angular-core-15.2.9.tgz"),
    ):
        answer = {
            "version": "1",
            "dist.tarball": "https://registry.example/npm/" + place,
            "dist.integrity": "sha512-abc",
        }
        client("npm", f"echo '{json.dumps([answer | {'version': '0'}, answer])}'\n")
        assert registries.look_up("npm:x@1", tmp_path) == Pinned(
            "1", (File(name, place, integrity="sha512-abc"),)
        )


@pytest.mark.parametrize(
    ("spec", "script", "said"),
    [
        ("debian:x", "echo 'E: Unable to locate package x' >&2; exit 100\n",
         "apt-get does not know x: Unable to locate package x; correct the name"),
        ("debian:x", "exit 0\n", "apt-get names no archive of x"),
        ("npm:x@9", "echo 'npm error code E404' >&2; exit 1\n", "npm does not know x@9: code E404"),
        ("npm:x@9", "exit 0\n", "npm does not know x@9"),
        ("npm:x@9", "echo '{\"version\": \"9\"}'\n", "npm does not know x@9"),
    ],
)  # fmt: skip
def test_what_a_client_does_not_know_is_one_line(client, tmp_path, spec, script, said):
    client("apt-get" if spec.startswith("debian") else "npm", script)
    with pytest.raises(GeexError) as error:
        registries.look_up(spec, tmp_path)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("spec", ["debian:x", "debian-source:x", "npm:x"])
def test_no_client_is_one_line(client, tmp_path, spec):
    with pytest.raises(GeexError, match=r"there is no (apt-get|npm) here; "):
        registries.look_up(spec, tmp_path)


@pytest.mark.parametrize("spec", ["x", "pip:x", "debian:", "npm:--help"])
def test_a_spec_of_another_form_is_refused(spec, tmp_path):
    with pytest.raises(GeexError, match="names no package; write debian:NAME"):
        registries.look_up(spec, tmp_path)


def test_addresses_without_clients_are_the_public_ones(client):
    assert registries.debian_addresses() == ("http://deb.debian.org/",)
    assert registries.npm_address() == "https://registry.npmjs.org/"


def test_addresses_are_those_the_clients_are_configured_with(client):
    client("apt-get", "echo http://mirror.example/a/debian\necho http://x.example/ubuntu\n")
    client("npm", "echo https://npm.example/x\n")
    assert registries.debian_addresses() == (
        "http://mirror.example/a/",
        "http://deb.debian.org/",
    )
    assert registries.npm_address() == "https://npm.example/x/"
    assert os.environ["PATH"]
