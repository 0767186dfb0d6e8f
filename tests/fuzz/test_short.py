"""A short run of every target with a fixed seed; `make fuzz` has the long ones."""

import json

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz import harness
from tests.fuzz.targets import NAMES, make_case, open_target

SEED = 20
CASES = {"photos": 3000, "uris": 20_000, "catalogs": 2000, "decisions": 2000}
# How many of them must come through, lest a run that only feeds rubbish counts as a test.
LEAST_OK = {"photos": 300, "uris": 50, "catalogs": 500, "decisions": 500}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found(name):
    options = {"foreign": False} if name == "photos" else {}
    result = harness.run(harness.Job(name, SEED, CASES[name], options=options))
    assert result.findings == []
    assert result.outcomes.total() == CASES[name]
    assert result.outcomes["ok"] >= LEAST_OK[name]
    assert len(result.outcomes) > 1
    assert 0 < result.idle_mib <= result.peak_mib < result.idle_mib + 512


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_made_of_its_number_alone(name):
    first, second = open_target(name), open_target(name)
    cases = [make_case(first, name, 1, number) for number in range(50)]
    assert [make_case(second, name, 1, number) for number in reversed(range(50))] == cases[::-1]
    assert len(set(cases)) > 25
    assert [make_case(first, name, 2, number) for number in range(50)] != cases


# Does the harness notice?


@pytest.mark.parametrize("workers", [1, 2])
def test_crash_hang_memory_and_broken_promises_are_found(workers):
    job = harness.Job("wrong", 1, 30, workers, memory_mib=512, timeout_s=1)
    result = harness.run(job)
    found = [(finding.number, finding.kind) for finding in result.findings]
    assert found == [
        (5, "crash"),
        (7, "hang"),
        (11, "untyped"),
        (13, "property"),
        (17, "memory"),
    ]
    assert result.outcomes == {"ok": 25, "finding": 5}
    assert "exit code -11" in result.findings[0].what
    assert "IndexError" in result.findings[2].what


def test_growth_is_found():
    result = harness.run(harness.Job("wrong", 1, 600, options={"leaked_kib": 512}))
    assert [(finding.number, finding.kind) for finding in result.findings] == [(-1, "growth")]
    assert result.peak_mib > result.idle_mib + 256


def test_a_target_that_does_not_start_is_found():
    result = harness.run(harness.Job("absent", 1, 10))
    assert [(finding.number, finding.kind) for finding in result.findings] == [(-1, "crash")]
    assert result.outcomes.total() == 0


def test_a_finding_is_kept_and_can_be_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    monkeypatch.setattr(command, "NAMES", (*NAMES, "wrong"))
    assert command.main(["wrong", "--cases", "15", "--timeout", "1"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["cases"], told["ok"], told["rejected"]) == (15, 11, {})
    assert [text.split(":")[0] for text in told["findings"]] == [
        "crash at 5",
        "hang at 7",
        "untyped at 11",
        "property at 13",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {
        f"wrong-1-{number}.{kind}" for number in (5, 7, 11, 13) for kind in ("bin", "txt")
    }
    case = make_case(open_target("wrong"), "wrong", 1, 11)
    assert (tmp_path / "wrong-1-11.bin").read_bytes() == case
    assert "IndexError" in (tmp_path / "wrong-1-11.txt").read_text()
    assert command.main(["wrong", "--case", "11"]) == 1
    assert "IndexError" in capsys.readouterr().out
    assert command.main(["wrong", "--case", "0"]) == 0


def test_the_command_tells_what_became_of_the_cases(capsys):
    assert command.main(["decisions", "--cases", "200", "--seed", "3"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cases"] == 200 == told["ok"] + sum(told["rejected"].values())
    assert (told["findings"], told["files"], told["seed"]) == ([], [], 3)
