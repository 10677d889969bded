"""What starts the service on other machines; its linters run where they are installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

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
