"""What starts the service on other machines; its linters run where they are installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from opendelg.cli.app import app

DEPLOY = Path(__file__).parents[1] / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
UNIT = (DEPLOY / "delg.service").read_text()


@pytest.mark.parametrize("text", [DOCKERFILE, UNIT], ids=["container", "unit"])
def test_only_options_of_the_command_are_used(text: str) -> None:
    (started,) = re.findall(r"^(?:ENTRYPOINT|ExecStart=).*$", text, re.MULTILINE)
    command = typer.main.get_command(app).commands["serve"]
    known = {option for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", started)) <= known
    assert "--token-file" in started


def test_the_container_copies_what_its_ignore_file_lets_in() -> None:
    allowed = set(re.findall(r"^!(\S+)", (DEPLOY.parent / ".dockerignore").read_text(), re.M))
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    assert {name for names in copied for name in names.split()} == allowed


def pinned(file: Path) -> set[str]:
    """Versions that a file fixes."""
    return set(re.findall(r"^[\w.\[\]-]+==\S+", file.read_text(), re.MULTILINE))


def test_ray_nodes_have_the_versions_that_were_tested() -> None:
    image = (DEPLOY / "cluster" / "Dockerfile").read_text()
    installed = set(re.findall(r"\S+==\S+", image))
    assert installed
    assert installed <= pinned(DEPLOY.parent / "requirements-cluster.txt")
    (ray,) = re.findall(r"^FROM rayproject/ray:([\d.]+)-", image, re.MULTILINE)
    assert f"ray=={ray}" in pinned(DEPLOY.parent / "requirements-cluster.txt")
    cluster = yaml.safe_load((DEPLOY / "cluster" / "ray.yaml").read_text())["spec"]
    assert cluster["rayVersion"] == ray


def test_all_ray_pods_find_the_photos_at_one_path() -> None:
    cluster = yaml.safe_load((DEPLOY / "cluster" / "ray.yaml").read_text())["spec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups]
    assert len(pods) == 2
    containers = [container for pod in pods for container in pod["containers"]]
    mounts = [container["volumeMounts"] for container in containers]
    assert mounts[0] == mounts[1]
    assert len({container["image"] for container in containers}) == 1
    assert pods[0]["volumes"] == pods[1]["volumes"]


def test_the_milvus_file_names_what_the_documents_name() -> None:
    milvus = yaml.safe_load((DEPLOY / "cluster" / "milvus.yaml").read_text())
    assert (milvus["kind"], milvus["apiVersion"]) == ("Milvus", "milvus.io/v1beta1")
    page = (DEPLOY.parent / "docs" / "cluster.md").read_text()
    assert f"milvus://{milvus['metadata']['name']}-milvus:19530/" in page


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    here = UNIT.replace("/opt/delg/bin/delg", "/bin/true").replace("User=delg", "User=root")
    (tmp_path / "delg.service").write_text(here)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "delg.service")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    subprocess.run(["hadolint", str(DEPLOY / "Dockerfile")], check=True)
