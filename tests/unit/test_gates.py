import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from dedup_job.config import JobConfig
from dedup_job.errors import ConfigError, GateError
from dedup_job.nightly.gates import (
    GATES,
    AuditFigures,
    LastRun,
    as_manifest,
    audit,
    check_acceptance,
    hold_or_accept,
    last_run,
)

LAST = LastRun("20260101T000000Z-aaaaaa", "m1", 1000, 200, 0.8, is_explicit=False)
GOOD = AuditFigures(
    n_rows=1000,
    n_rejected=10,
    top_reject="not_found, 7 times: no such file",
    n_usable=990,
    largest_group=5,
    largest_group_name="group g-1 (sku-7)",
    n_grouped=200,
    recall=0.995,
    n_trees=64,
    min_score=0.8,
    model_id="m1",
    last=LAST,
)
COMMAND = "dedup-job run --catalog 'my catalog.csv'"


def judge(config=None, **changes):
    config = config or JobConfig()
    return {result.name: result for result in audit(replace(GOOD, **changes), config)}


def broken(config=None, **changes):
    return {name for name, result in judge(config, **changes).items() if not result.passed}


def test_a_good_night_breaks_no_gate_and_every_gate_is_judged():
    results = judge()
    assert set(results) == set(GATES)
    assert all(result.passed and not result.skipped for result in results.values())


@pytest.mark.parametrize(
    ("changes", "gate", "words"),
    [
        ({"n_rejected": 201}, "rejects", ["201 of 1000", "not_found"]),
        ({"largest_group": 501}, "largest_group", ["g-1", "sku-7", "501", "500"]),
        ({"n_rows": 799, "n_grouped": 160}, "row_drop", ["799", "1000", LAST.run_id]),
        ({"n_grouped": 301}, "drift", ["30.1%", "20.0%", LAST.run_id]),
        ({"n_grouped": 99}, "drift", ["9.9%", "20.0%"]),
        ({"min_score": 0.851}, "drift", ["0.851", "0.800", LAST.run_id]),
        ({"recall": 0.97}, "recall", ["0.970", "0.99", "candidates.n_trees=128"]),
        ({"n_usable": 0}, "no_photo", ["none of the 1000", "not_found", "--image-root"]),
    ],
)
def test_a_broken_gate_names_its_figures(changes, gate, words):
    assert broken(**changes) == {gate}
    message = judge(**changes)[gate].message
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"n_rejected": 200},
        {"largest_group": 500},
        {"n_rows": 800, "n_grouped": 160},
        {"n_grouped": 300},
        {"n_grouped": 100},
        {"n_grouped": 400, "last": replace(LAST, n_grouped=300)},
        {"min_score": 0.85},
        {"min_score": 0.75},
        {"recall": 0.99},
        {"n_usable": 1},
    ],
)
def test_a_gate_is_not_broken_by_its_limit_itself(changes):
    assert broken(**changes) == set()


@pytest.mark.parametrize(
    ("last_rows", "rows", "limit"), [(100, 70, 0.3), (1000, 900, 0.1), (10, 4, 0.6)]
)
def test_a_row_drop_as_large_as_its_limit_passes(last_rows, rows, limit):
    config = JobConfig(gates={"max_row_drop": limit})
    last = replace(LAST, n_rows=last_rows, n_grouped=0)
    assert "row_drop" not in broken(config, n_rows=rows, n_grouped=0, last=last)
    assert "row_drop" in broken(config, n_rows=rows - 1, n_grouped=0, last=last)


def test_the_first_run_has_nothing_to_compare_with():
    results = judge(last=None)
    assert {name for name, result in results.items() if result.skipped} == {"row_drop", "drift"}
    assert broken(last=None) == set()


def test_a_delta_may_be_short():
    config = JobConfig(catalog={"mode": "delta"})
    assert broken(config, n_rows=500, n_grouped=100) == set()
    assert judge(config)["row_drop"].skipped


def test_drift_is_not_judged_against_another_model_or_in_a_small_catalog():
    other = judge(n_grouped=900, model_id="m2")["drift"]
    small = judge(n_rows=199, n_grouped=150, last=replace(LAST, n_rows=199))["drift"]
    small_before = judge(n_grouped=900, last=replace(LAST, n_rows=199, n_grouped=10))["drift"]
    assert [bool(result.skipped) for result in (other, small, small_before)] == [True] * 3
    assert "drift" in broken(n_rows=200, n_grouped=150, last=replace(LAST, n_rows=200))


def test_an_explicit_threshold_does_not_drift_but_the_share_does():
    scored = replace(LAST, verifier_id="v1")
    assert broken(min_score=0.95, last=scored) == set()
    assert broken(min_score=0.95, last=scored, verifier_id="v1") == {"drift"}
    explicit = JobConfig(match={"min_cosine": 0.95})
    assert broken(explicit, min_score=0.95) == set()
    assert broken(min_score=0.95, last=replace(LAST, is_explicit=True)) == set()
    assert broken(explicit, min_score=0.95, n_grouped=400) == {"drift"}


def test_unknown_recall_holds_nothing_back():
    assert judge(recall=None)["recall"].skipped
    assert broken(recall=None) == set()


def test_an_empty_catalog_breaks_only_what_it_lost():
    changes = {"n_rows": 0, "n_rejected": 0, "n_usable": 0, "n_grouped": 0, "largest_group": 0}
    assert broken(**changes) == {"row_drop"}
    assert broken(last=None, **changes) == set()


def hold(config, command=COMMAND, **changes):
    return hold_or_accept(audit(replace(GOOD, **changes), config), config, command)


def test_the_message_is_one_line_with_all_broken_gates_and_the_command():
    with pytest.raises(GateError) as caught:
        hold(JobConfig(), n_rejected=500, recall=0.5)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert "\n" not in message
    for word in ("500 of 1000", "0.500", "Nothing was published", "the last reports stand"):
        assert word in message
    assert message.endswith(f"{COMMAND} --accept rejects --accept recall --reason 'TEXT'")


def test_the_command_names_gates_that_a_file_accepts_and_not_twice_what_it_has():
    config = JobConfig(accept=("rejects",), reason="a supplier is down")
    for command, added in [
        (COMMAND, "--accept rejects --accept recall"),
        (f"{COMMAND} --accept rejects --reason x", "--accept recall"),
    ]:
        with pytest.raises(GateError) as caught:
            hold(config, command, n_rejected=500, recall=0.5)
        assert str(caught.value).endswith(f": {command} {added}")
        assert "500 of 1000" not in str(caught.value)
        assert shlex.split(str(caught.value).rpartition(": ")[2])[:2] == ["dedup-job", "run"]


def test_accepted_gates_pass_with_their_reason(caplog):
    caplog.set_level("INFO", logger="dedup_job")
    config = JobConfig(accept=("rejects", "drift"), reason="a supplier is down")
    assert hold(config, n_rejected=500) == {"rejects": "a supplier is down"}
    assert "--accept drift was not needed" in caplog.text
    assert "--accept rejects was not needed" not in caplog.text


def test_nothing_broken_accepts_nothing():
    assert hold(JobConfig()) == {}


@pytest.mark.parametrize(
    ("accept", "reason", "words"),
    [
        (("row_dorp",), "x", ["row_dorp", "did you mean 'row_drop'"]),
        (("one_group_per_sku",), "x", ["one_group_per_sku", "rejects"]),
        (("rejects",), "", ["--reason"]),
        (("rejects",), "  ", ["--reason"]),
    ],
)
def test_refuses_a_wrong_acceptance_in_one_line(accept, reason, words):
    with pytest.raises(ConfigError) as caught:
        check_acceptance(JobConfig(accept=accept, reason=reason))
    assert [word for word in words if word not in str(caught.value)] == []
    assert "\n" not in str(caught.value)


def test_a_good_acceptance_is_taken():
    assert check_acceptance(JobConfig(accept=tuple(GATES), reason="because")) is None


def test_verdicts_and_figures_go_through_the_manifest():
    (rejects,) = [row for row in as_manifest(audit(GOOD, JobConfig())) if row["name"] == "rejects"]
    assert (rejects["passed"], rejects["measured"], rejects["limit"]) == (True, 0.01, 0.2)
    facts = {"run_id": LAST.run_id, "model_id": "m1", "n_catalog_rows": 1000}
    facts |= {"n_grouped_skus": 200, "min_cosine": 0.8, "target_precision": 0.97}
    assert last_run(facts) == LAST
    assert last_run(facts | {"target_precision": None}).is_explicit


REACH = "from dedup_job.nightly.faults import reach; reach('after_audit'); print('alive')"


def start(fail_at):
    environment = {k: v for k, v in os.environ.items() if k != "DEDUP_FAIL_AT"}
    environment |= {"DEDUP_FAIL_AT": fail_at} if fail_at else {}
    return subprocess.Popen([sys.executable, "-c", REACH], env=environment, stdout=subprocess.PIPE)


@pytest.mark.parametrize(
    ("fail_at", "code", "said"),
    [(None, 0, b"alive\n"), ("before_manifest", 0, b"alive\n"), ("after_audit", 70, b"")],
)
def test_a_fault_point_ends_the_process_only_where_it_is_asked_to(fail_at, code, said):
    process = start(fail_at)
    assert process.communicate(timeout=30) == (said, None)
    assert process.returncode == code


def test_a_fault_point_can_pause_the_process():
    process = start("after_audit:stop")
    try:
        deadline = time.monotonic() + 30
        status = (0, 0)
        while status == (0, 0) and time.monotonic() < deadline:
            status = os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG)
            time.sleep(0.02)
        assert os.WIFSTOPPED(status[1])
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=30) == (b"alive\n", None)
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            process.kill()
