"""`show` against a small warehouse written row by row, without Spark."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from dedup_job.commands.run_report import load_report
from dedup_job.commands.show import show
from dedup_job.errors import REASON_MEANING, ConfigError, DedupError
from dedup_job.io.manifests import RunManifest, describe_table, point_latest, write_manifest
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_rows
from dedup_job.tables import DUPLICATE_GROUPS, REJECTED_IMAGES, RUN_METRICS, RUNS

STARTED = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
FIGURES = {
    "candidates.recall": 0.9981,
    "candidates.recall_low": 0.9903,
    "candidates.recall_high": 0.9998,
    "candidates.expected_false_pairs": 1.25,
    "candidates.expected_false_pairs_low": 0.5,
    "candidates.expected_false_pairs_high": 4.0,
}


def _group(group_id, members, weakest):
    return [
        {
            "group_id": group_id,
            "sku_id": sku,
            "canonical_sku_id": members[0],
            "is_canonical": index == 0,
            "group_size": len(members),
            "cosine_to_canonical": 1.0 - 0.01 * index,
            "min_pair_cosine": weakest,
            "match_type": "near",
            "group_first_seen": date(2026, 11, 23),
            "member_since": date(2026, 11, 23),
            "variant_group": None,
            "run_id": "r",
        }
        for index, sku in enumerate(members)
    ]


GROUPS = [
    *_group("g-pair-weak", ["A1", "A2"], 0.91),
    *_group("g-pair-sure", ["B1", "B2"], 0.99),
    *_group("g-many", [f"LONG-SKU-{n:04d}" for n in range(40)], 0.90),
]


def _run_row(run_id, **changes):
    counts = dict.fromkeys((c.name for c in RUNS.columns if c.name.startswith("n_")), 0)
    return {
        **counts,
        "run_id": run_id,
        "status": "published",
        "started_at": STARTED,
        "finished_at": STARTED + timedelta(seconds=75),
        "model_id": "0123456789abcdef",
        "calibration_id": "c",
        "config_fingerprint": "f",
        "min_cosine": 0.8765,
        "target_precision": 0.97,
        "target_recall": 0.99,
        "version": "0.1.0",
        "n_catalog_rows": 1234,
        "n_groups": 3,
        "n_grouped_skus": 44,
        **changes,
    }


def _publish(
    warehouse,
    run_id="run-1",
    run_date="2026-11-23",
    groups=(),
    rejects=(),
    figures=(),
    facts=None,
    **run,
):
    home = Folder(str(warehouse))
    metrics = [
        {"stage": stage, "metric": metric, "value": value, "unit": "1", "run_id": run_id}
        for (stage, metric), value in (
            (name.split("."), value) for name, value in dict(figures).items()
        )
    ]
    tables = {
        RUNS: [_run_row(run_id, **run)],
        RUN_METRICS: metrics,
        REJECTED_IMAGES: list(rejects),
        DUPLICATE_GROUPS: list(groups),
    }
    stored = {
        table.name: write_rows(rows, table, home.child(table.name, f"run_id={run_id}"))
        for table, rows in tables.items()
    }
    entries = {name: describe_table(one, home) for name, one in stored.items()}
    finished = (STARTED + timedelta(minutes=5)).isoformat()
    manifest = RunManifest(
        run_id,
        run_date,
        "published",
        STARTED.isoformat(),
        finished,
        "0.1.0",
        {},
        facts or {},
        entries,
    )
    write_manifest(home, manifest)
    point_latest(home, manifest)
    return entries


def _rejects(*reasons):
    return [
        {
            "catalog_row": str(row),
            "sku_id": None,
            "image_uri": None,
            "reason": reason,
            "detail": "d",
            "run_id": "r",
        }
        for row, reason in enumerate(reasons)
    ]


def test_text_names_counts_threshold_recall_groups_and_rejects(tmp_path, capsys):
    _publish(
        tmp_path,
        groups=GROUPS,
        rejects=_rejects("not_found", "truncated", "not_found"),
        figures=FIGURES,
    )
    show(str(tmp_path))
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 80
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for expected in (
        "Run run-1 for 2026-11-23: published",
        "catalog rows 1,234",
        "duplicate pairs 0 cosine >= 0.8765, for precision 0.97",
        "expected to be false 1.2 95 % interval 0.5 to 4.0",
        "groups 3 of 44 SKUs",
        "SKUs beside the survivors 41",
        "recall of the search 0.9981 95 % interval 0.9903 to 0.9998",
        "2 0.9900 B1 B2",
        f"2 not_found {REASON_MEANING['not_found']}",
        f"1 truncated {REASON_MEANING['truncated']}",
    ):
        assert expected in lines
    assert "+38 more" in text or "+37 more" in text


def test_the_threshold_of_a_run_that_verified_pairs_is_one_of_scores(tmp_path, capsys):
    _publish(tmp_path, facts={"search": {"verifier": "v"}}, min_cosine=0.5, min_score=0.9123)
    show(str(tmp_path))
    assert "score >= 0.9123, for precision 0.97" in capsys.readouterr().out


def test_groups_rank_by_size_then_certainty_with_members_by_cosine(tmp_path):
    _publish(tmp_path, groups=GROUPS)
    groups = load_report(str(tmp_path), top=2).top_groups
    assert [group.group_id for group in groups] == ["g-many", "g-pair-sure"]
    assert groups[0].canonical_sku_id == "LONG-SKU-0000"
    assert groups[0].duplicate_sku_ids == [f"LONG-SKU-{n:04d}" for n in range(1, 40)]
    assert load_report(str(tmp_path), top=0).top_groups == []


def test_unmeasured_figures_are_unknown_and_never_one(tmp_path, capsys):
    _publish(tmp_path, figures={"candidates.recall": None}, target_precision=None)
    show(str(tmp_path))
    text = capsys.readouterr().out
    assert "unknown  no pair among the sampled photos" in text
    assert "as given" in text
    assert "no duplicate groups" in text and "no rejected rows" in text


def test_json_holds_the_same_figures(tmp_path, capsys):
    _publish(tmp_path, groups=GROUPS, rejects=_rejects("corrupt"), figures=FIGURES)
    show(str(tmp_path), as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["run"]["n_catalog_rows"] == 1234
    assert report["metrics"] == FIGURES
    assert report["rejects"] == {"corrupt": 1}
    assert report["top_groups"][1]["canonical_sku_id"] == "B1"


def test_a_run_is_found_by_id_and_by_date(tmp_path):
    _publish(tmp_path, "run-1", "2026-11-22", n_catalog_rows=1)
    _publish(tmp_path, "run-2", "2026-11-23", n_catalog_rows=2)
    _publish(tmp_path, "run-3", "2026-11-24", n_catalog_rows=3)
    assert load_report(str(tmp_path)).run["run_id"] == "run-3"
    assert load_report(str(tmp_path), run_id="run-1").run["n_catalog_rows"] == 1
    assert load_report(str(tmp_path), run_date=date(2026, 11, 23)).run["run_id"] == "run-2"


def test_a_warehouse_of_the_first_release_is_shown(tmp_path):
    _publish(tmp_path, "run-1", n_catalog_rows=7)
    for name in ("run-1.json", "latest.json"):
        path = tmp_path / "_runs" / name
        old = json.loads(path.read_text())
        keys = ("run_id", "run_date", "status", "started_at", "finished_at", "version", "config")
        kept = {key: old[key] for key in (*keys, "facts", "tables", "libraries")}
        path.write_text(json.dumps({**kept, "format": 1}))
    assert load_report(str(tmp_path)).run["n_catalog_rows"] == 7
    assert load_report(str(tmp_path), run_date=date(2026, 11, 23)).run["run_id"] == "run-1"


def test_requests_that_cannot_be_met_are_one_line_errors(tmp_path):
    with pytest.raises(DedupError, match="holds no published run; publish one with"):
        load_report(str(tmp_path / "nowhere"))
    entries = _publish(tmp_path, "run-1")
    with pytest.raises(DedupError, match=r"no run of 2026-01-01; it has 2026-11-23"):
        load_report(str(tmp_path), run_date=date(2026, 1, 1))
    with pytest.raises(DedupError, match="holds no run run-9"):
        load_report(str(tmp_path), run_id="run-9")
    with pytest.raises(ConfigError, match="not both"):
        load_report(str(tmp_path), run_id="run-1", run_date=date(2026, 11, 23))
    with pytest.raises(ConfigError, match="--top: expected 0 or more, got -1"):
        load_report(str(tmp_path), top=-1)
    failed = RunManifest(
        "run-2", "2026-11-23", "failed", "s", "f", "0", {}, {}, {}, error="disk full"
    )
    write_manifest(Folder(str(tmp_path)), failed)
    with pytest.raises(DedupError, match=r"run-2 has no tables .* failed: disk full; .*runs"):
        load_report(str(tmp_path), run_id="run-2")
    folder = tmp_path / entries[DUPLICATE_GROUPS.name]["folder"]
    (folder / entries[DUPLICATE_GROUPS.name]["files"][0]["name"]).unlink()
    with pytest.raises(DedupError, match="tables of run run-1 were replaced since"):
        load_report(str(tmp_path))


def test_a_manifest_whose_files_now_hold_another_run_is_noticed(tmp_path):
    entries = _publish(tmp_path, "run-1")
    later = _publish(tmp_path, "run-2")
    old, new = (
        tmp_path / e["runs"]["folder"] / e["runs"]["files"][0]["name"] for e in (entries, later)
    )
    new.replace(old)
    with pytest.raises(DedupError, match=r"replaced by run run-2; .*--run-date 2026-11-23"):
        load_report(str(tmp_path), run_id="run-1")
