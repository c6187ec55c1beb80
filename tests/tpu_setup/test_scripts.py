"""The scripts: their form, the recipes, and settings that do not fit."""

import pathlib
import re
import shutil
import subprocess

import pytest

from geex_jax.cli import Parser
from geex_jax.cli import train as train_verb

FOLDER = pathlib.Path(__file__).parent.parent.parent / "tpu_setup"
SCRIPTS = [FOLDER / "tpu", *sorted(FOLDER.glob("lib/*.sh")), *sorted(FOLDER.glob("remote/*.sh"))]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_every_script_parses(script):
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_shellcheck_finds_nothing():
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck here: apt-get install shellcheck")
    done = subprocess.run(["shellcheck", "-x", *map(str, SCRIPTS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def geex_commands(text):
    joined = text.replace("\\\n", " ")
    return re.findall(r"geex (train[^`'\n|&;]*)", joined)


@pytest.mark.parametrize("name", ["README.md", "recipes/xpk.md", "recipes/skypilot.yaml"])
def test_documented_geex_train_commands_are_taken(name):
    found = [c.split() for c in geex_commands((FOLDER / name).read_text()) if "--config" in c]
    assert found, f"{name} trains nothing"
    parser = Parser(prog="geex train", allow_abbrev=False)
    train_verb.add_arguments(parser)
    for words in found:
        args, extra = parser.parse_known_args(words[1:])
        assert args.config and args.workdir
        assert all(word.startswith("--config.") for word in extra), extra


def test_the_skypilot_recipe_is_yaml():
    yaml = pytest.importorskip("yaml", reason="no PyYAML here")
    task = yaml.safe_load((FOLDER / "recipes/skypilot.yaml").read_text())
    assert task["resources"]["accelerators"].startswith("tpu-v5litepod-")
    assert task["resources"]["accelerator_args"]["runtime_version"] == "v2-alpha-tpuv5-lite"
    assert "geex train" in task["run"] and "[tpu]" in task["setup"]
    versions = re.findall(r"uv==([\d.]+)", task["setup"])
    assert versions and versions[0] in (FOLDER / "remote/install.sh").read_text()


def test_documented_tpu_commands_are_taken(cloud):
    env = (FOLDER / "example.env").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines = [line.split(" # ")[0] for line in lines if line.startswith("tpu_setup/tpu ")]
    assert len(lines) > 8
    for line in lines:
        words = [w.strip("'\"") for w in line.split()[1:]]
        if words[0] == "copy":
            words[1] = __file__
        done = cloud.run(words[0], "--dry-run", *words[1:], env=env)
        assert done.returncode == 0, (line, done.stderr)
    assert cloud.calls() == []  # --dry-run runs nothing


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("create --zone us-west4", "ZONE=us-west4; zones look like us-west4-a"),
        ("create --type v5e-16", "the API's name of a v5e slice is v5litepod-16"),
        ("create --type v5litepod-12", "sizes are 1, 4, 8, 16"),
        ("create --type v4-12", "multiples of 8 cores"),
        ("create --type tpu7x-64", "does not create tpu7x slices; use GKE: tpu_setup/recipes/xpk"),
        ("create --type h100-8", "unknown generation h100; known: v4"),
        ("create --spot --reserved", "both --spot and --reserved; choose one"),
        ("create --valid-until 6", "VALID_UNTIL=6; write a duration such as 90m or 6h"),
        ("create --slices 0", "SLICES=0 is not a number of at least 1"),
        ("create --slices x", "SLICES=x is not a number"),
        ("create --bucket gs://b", "BUCKET=gs://b; give the bare name"),
        ("create --colour red", "unknown flag --colour; see tpu_setup/tpu help"),
        ("create --name", "--name needs a value"),
        ("create --name --spot", "--name needs a value"),
        ("log --worker 4", "--worker 4 of 4 hosts in a v5litepod-16"),
        ("log --slice 1", "--slice 1 of 1; slices are counted from 0"),
        ("install --package geex-jax", "PACKAGE=geex-jax is not pinned"),
        ("launch", "launch needs a command"),
        ("copy a", "copy takes SOURCE and TARGET"),
        ("copy nothing there", "no file 'nothing'"),
        ("create --env nowhere.env", "--env: no file 'nowhere.env'; copy tpu_setup/example.env"),
        ("fly", "unknown verb fly"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_asked(cloud, words, message):
    done = cloud.run(*words.split())
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert cloud.calls() == []


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("ZONE=us-west4-a\n", "no PROJECT; give --project, or a line PROJECT=... in tpu.env"),
        ("PROJECT=p\nCOLOUR=red\n", "tpu.env:2: unknown setting COLOUR; known: PROJECT ZONE"),
        ("PROJECT my-project\n", "tpu.env:1: 'PROJECT my-project' is not KEY=VALUE"),
        ("SPOT=maybe\n", "SPOT=maybe; write 1 or 0"),
    ],
)
def test_mistakes_of_the_file_name_its_line(cloud, env, message):
    done = cloud.run("config", env=env)
    assert done.returncode == 2 and message in done.stderr


def test_a_settings_file_is_not_executed(cloud):
    env = "PROJECT=my-project # ours\nZONE='us-west4-a'\nNAME=\"geex\"\nTYPE=v4-128\n"
    env += "TAGS=$(touch X)\n"
    done = cloud.run("config", env=env)
    assert done.returncode == 0 and "TAGS=$(touch X)" in done.stdout
    assert "PROJECT=my-project\nZONE=us-west4-a\nNAME=geex\n" in done.stdout
    assert not (cloud.folder / "work" / "X").exists()


@pytest.mark.parametrize(
    ("kind", "version", "devices", "hosts"),
    [
        ("v4-128", "tpu-ubuntu2204-base", 64, 16),
        ("v5p-256", "v2-alpha-tpuv5", 128, 32),
        ("v5litepod-8", "v2-alpha-tpuv5-lite", 8, 1),
        ("v5litepod-256", "v2-alpha-tpuv5-lite", 256, 64),
        ("v6e-64", "v2-alpha-tpuv6e", 64, 16),
    ],
)
def test_what_a_type_means(cloud, kind, version, devices, hosts):
    out = cloud.run("config", "--type", kind, "--slices", "2").stdout
    assert f"VERSION={version}\n" in out
    assert f"# 2 slice(s) of {devices} chips on {hosts} host(s)" in out
    assert f"jax.device_count() will be {2 * devices}" in out
