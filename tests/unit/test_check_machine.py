"""`scripts/check_machine.sh` on machines that lack something.

The script sees nothing but a folder of stand-ins, so it can neither find nor install real packages.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_machine.sh"
BASICS = ("sh", "sed", "head")
JAVA_17 = "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2"
JAVA_8 = "echo 'openjdk version \"1.8.0_412\"' >&2"


class Machine:
    def __init__(self, folder: Path):
        self.bin = folder
        for name in BASICS:
            (folder / name).symlink_to(shutil.which(name))
        self.add("python3", f'exec "{sys.executable}" "$@"')
        self.add("c++", "exit 0")
        self.add("java", JAVA_17)
        self.add("id", "echo 1000")

    def add(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.bin / name).chmod(0o755)

    def remove(self, name: str) -> None:
        (self.bin / name).unlink()

    def add_apt(self, on_install: str = "exit 0") -> None:
        self.add("apt-cache", "exit 0")
        self.add(
            "apt-get",
            f'echo "apt-get $*" >>"{self.bin}/apt.log"\ncase $1 in install) {on_install};; esac',
        )

    @property
    def apt_calls(self) -> list[str]:
        log = self.bin / "apt.log"
        return log.read_text().splitlines() if log.exists() else []

    def check(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [shutil.which("sh"), str(SCRIPT)],
            env={"PATH": str(self.bin), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def _only_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_a_fit_machine_prints_its_python_and_installs_nothing(machine):
    machine.add_apt()
    result = machine.check()
    assert (result.returncode, result.stdout.strip()) == (0, str(machine.bin / "python3"))
    assert machine.apt_calls == []


@pytest.mark.parametrize(("java", "found"), [(None, "none"), (JAVA_8, "1")])
def test_missing_or_old_java_is_one_line_with_the_command(machine, java, found):
    machine.add("java", java) if java else machine.remove("java")
    machine.add_apt()
    line = _only_line(machine.check())
    assert f"missing Java 17+ (found: {found})" in line
    assert "sudo apt-get install -y --no-install-recommends openjdk-17-jre-headless" in line
    assert machine.apt_calls == []


def test_everything_missing_is_still_one_line(machine):
    for name in ("java", "c++", "python3"):
        machine.remove(name)
    line = _only_line(machine.check())
    for what in ("Python 3.11+", "Java 17+", "a C++ compiler", "brew"):
        assert what in line


def test_an_old_python_does_not_count(machine):
    machine.add("python3", "exit 1")
    assert "Python 3.11+" in _only_line(machine.check())


def test_root_with_apt_installs_what_is_missing(machine):
    machine.remove("java")
    machine.add("id", "echo 0")
    late_java = f"{{ echo '#!/bin/sh'; echo 'echo openjdk version \\\"21.0.1\\\" >&2'; }} >'{machine.bin}/java'"
    machine.add("chmod", f'exec {shutil.which("chmod")} "$@"')
    machine.add_apt(on_install=f"{late_java}; chmod 755 '{machine.bin}/java'")
    result = machine.check()
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(machine.bin / "python3")
    assert machine.apt_calls == [
        "apt-get update -qq",
        "apt-get install -qq -y --no-install-recommends openjdk-17-jre-headless",
    ]


def test_an_install_that_does_not_help_is_said(machine):
    machine.remove("c++")
    machine.add("id", "echo 0")
    machine.add_apt()
    result = machine.check()
    assert result.returncode == 1
    assert "still not found after installing g++" in result.stderr


def test_a_wrong_java_home_is_named_and_nothing_is_installed(machine):
    machine.add("id", "echo 0")
    machine.add_apt()
    line = _only_line(machine.check(JAVA_HOME="/nowhere"))
    assert "JAVA_HOME=/nowhere" in line and "unset it" in line
    assert machine.apt_calls == []


def test_java_home_wins_over_path(machine, tmp_path):
    machine.remove("java")
    home = tmp_path / "jdk"
    (home / "bin").mkdir(parents=True)
    machine.add("java", JAVA_17)
    os.replace(machine.bin / "java", home / "bin" / "java")
    assert machine.check(JAVA_HOME=str(home)).returncode == 0
