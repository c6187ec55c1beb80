"""Slices made, waited for, installed and deleted, against the recording stand-in."""

import tarfile

import pytest

WHERE = "--project=my-project --zone=us-west4-a"
ABSENT = ["", "ERROR: NOT_FOUND: Resource was not found", 1]


def test_on_demand_is_a_plain_creation(cloud):
    cloud.answer("describe", "CREATING\n", "READY\n")
    done = cloud.run("create", "--poll", "0")
    assert done.returncode == 0, done.stderr
    assert cloud.calls() == [
        f"compute tpus tpu-vm create geex {WHERE} --accelerator-type=v5litepod-16 "
        "--version=v2-alpha-tpuv5-lite --async",
        f"compute tpus tpu-vm describe geex {WHERE} --format=value(state)",
        f"compute tpus tpu-vm describe geex {WHERE} --format=value(state)",
    ]
    assert "geex: CREATING" in done.stderr and "geex: READY" in done.stderr


def test_several_spot_slices_are_a_queued_resource(cloud):
    cloud.answer("describe", "ACCEPTED\n", "WAITING_FOR_RESOURCES\n", "PROVISIONING\n", "ACTIVE\n")
    flags = ["--slices", "2", "--spot", "--valid-until=6h", "--poll=0", "--network", "net"]
    flags += ["--service-account", "a@b.c", "--tags=geex", "--internal-ips"]
    flags += ["--data-disk", "projects/p/zones/z/disks/d"]
    done = cloud.run("create", *flags)
    assert done.returncode == 0, done.stderr
    assert cloud.calls()[0] == (
        f"compute tpus queued-resources create geex {WHERE} --accelerator-type=v5litepod-16 "
        "--runtime-version=v2-alpha-tpuv5-lite --node-count=2 --node-prefix=geex "
        "--valid-until-duration=6h --async --spot --network=net --tags=geex --internal-ips "
        "--data-disk=source=projects/p/zones/z/disks/d,mode=read-only --service-account=a@b.c "
        "--scopes=https://www.googleapis.com/auth/cloud-platform"
    )
    assert done.stderr.index("WAITING_FOR_RESOURCES") < done.stderr.index("ACTIVE")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("Quota limit 'TPUV5sLitepodPerProjectPerZone' exceeded", "quota of v5litepod chips in us"),
        ("There is no more capacity in the zone", "us-west4-a has no free v5litepod-16 now; wait"),
        ("PERMISSION_DENIED: nope", "this account may not; grant it roles/tpu.admin"),
        ("Cloud TPU API has not been used in project", "gcloud services enable tpu.googleapis.com"),
        ("ALREADY_EXISTS: geex", "geex exists already; tpu_setup/tpu wait"),
        ("a riddle", "creating geex failed; gcloud's own words stand above"),
    ],
)
def test_why_a_creation_fails(cloud, words, message):
    cloud.answer("create", ["", f"ERROR: {words}\n", 1])
    done = cloud.run("create", "--poll", "0")
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert len(cloud.calls()) == 1  # nobody waits for what was refused


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("FAILED", "the request FAILED (no such type); tpu_setup/tpu delete"),
        ("SUSPENDED", "the request is SUSPENDED: its time ran out or it was preempted"),
    ],
)
def test_waiting_ends_when_it_is_in_vain(cloud, state, message):
    cloud.answer("failedData", "no such type\n")
    cloud.answer("describe", "ACCEPTED\n", f"{state}\n")
    done = cloud.run("wait", "--queued", "--poll", "0")
    assert done.returncode == 2 and message in done.stderr


def test_waiting_for_nothing_ends(cloud):
    cloud.answer("describe", ABSENT)
    done = cloud.run("wait", "--poll", "0")
    assert done.returncode == 2 and "nothing known of it; tpu_setup/tpu create" in done.stderr


def test_install_reaches_all_workers_of_all_slices(cloud):
    flags = ["--slices", "2", "--bucket", "my-bucket", "--share", "10.0.0.2:/vol1"]
    done = cloud.run("install", *flags, "--package", "geex-jax==1.2.3")
    assert done.returncode == 0, done.stderr
    calls = cloud.calls()
    assert all("--worker=all" in c for c in calls)
    command = (
        "--command=bash .geex/install.sh --python 3.11 --package geex-jax==1.2.3 "
        "--bucket my-bucket --share 10.0.0.2:/vol1"
    )
    check = "--command=.geex/venv/bin/python .geex/check.py --devices 32"
    for text in (command, check):
        assert {c.split()[4] for c in calls if c.endswith(text)} == {"geex-0", "geex-1"}
    copied = [c for c in calls if " scp " in c]
    assert sum("remote/job.sh geex-0:.geex/job.sh" in c for c in copied) == 1
    # The order holds: folders, files, installation, devices.
    assert [calls.index(c) for c in calls if "mkdir" in c] == [0, 1]
    assert max(i for i, c in enumerate(calls) if "install.sh --python" in c) < min(
        i for i, c in enumerate(calls) if "check.py --devices" in c
    )


def test_without_a_package_the_working_tree_goes(cloud):
    cloud.answer(".geex/source.tar.gz", "")
    done = cloud.run("install")
    assert done.returncode == 0, done.stderr
    call = next(c for c in cloud.calls() if "source.tar.gz" in c)
    archive = call.split()[4]
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert "setup.py" in names and "geex_jax/cli/__init__.py" in names
    assert not [n for n in names if n.startswith((".git/", ".venv"))]
    assert "--package" not in " ".join(c for c in cloud.calls() if "install.sh --python" in c)


def test_too_few_devices_are_told(cloud):
    cloud.answer("check.py --devices", ["", "expected 16 devices\n", 1])
    done = cloud.run("install", "--package", "geex-jax==1.2.3")
    assert done.returncode == 2
    assert "do not see 16 devices together; look at the lines above; is TCP" in done.stderr


def test_copy_to_all_and_a_shell_on_one(cloud):
    assert cloud.run("copy", str(cloud.folder / "bin"), "tools").returncode == 0
    assert cloud.run("ssh", "--worker", "3", "--", "echo", "a b").returncode == 0
    copy, shell = cloud.calls()
    assert copy.startswith("compute tpus tpu-vm scp --recurse ") and "geex:tools" in copy
    assert shell.endswith("--worker=3 --command=echo 'a b'")


def test_delete_asks_and_shows(cloud):
    cloud.answer("describe", "ACTIVE\n")
    done = cloud.run("delete", "--slices", "2", text="no\n")
    assert done.returncode == 2 and "not deleted" in done.stderr
    assert "queued resource geex" in done.stdout and "slice geex-1 (v5litepod-16)" in done.stdout
    assert "kept: buckets" in done.stdout
    assert not [c for c in cloud.calls() if " delete " in c]
    done = cloud.run("delete", "--slices", "2", text="geex\n")
    assert done.returncode == 0
    assert cloud.calls()[-1] == (
        f"compute tpus queued-resources delete geex {WHERE} --force --quiet"
    )


def test_delete_of_nothing_deletes_nothing(cloud):
    cloud.answer("describe", ABSENT)
    done = cloud.run("delete", "--yes")
    assert done.returncode == 0 and "nothing to delete" in done.stderr
    assert not [c for c in cloud.calls() if " delete " in c]


def test_yes_asks_nothing(cloud):
    cloud.answer("describe", "READY\n")
    assert cloud.run("delete", "--yes").returncode == 0
    assert cloud.calls()[-1] == f"compute tpus tpu-vm delete geex {WHERE} --quiet"
