import pytest

from dedup_job.cli import main, main_nightly


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--warehouse", "w"], "catalog.path is missing; give --catalog PATH"),
        (["run", "--catalog", "c.csv"], "warehouse is missing; give --warehouse DIR"),
        (
            ["run", "--catalog", "c.csv", "--warehouse", "ftp://x/y"],
            "scheme 'ftp' is not supported",
        ),
        (["run", "--run-date", "yesterday"], "--run-date must be a date YYYY-MM-DD"),
        (["run", "--target-precision", "97"], "match.target_precision: "),
        (["run", "--min-cosine", "0.9", "--target-precision", "0.9"], "not allowed with"),
        (
            ["run", "--target-precision", "0.9", "--set", "match.min_cosine=0.8"],
            "exclude each other",
        ),
        (["run", "--set", "match.max_skus=3"], "did you mean"),
        (
            ["run", "--canonical-order", "a,,b", "--catalog", "c", "--warehouse", "w"],
            "empty column",
        ),
        (["run", "--catalog", "none.csv", "--warehouse", "w"], "none.csv"),
        (["walk"], "invalid choice: 'walk'"),
        ([], "required: COMMAND"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message in err


def test_a_foreign_bundle_is_refused(tmp_path, capsys):
    (tmp_path / "c.csv").write_text("sku_id,image_uri\na,a.jpg\n")
    arguments = [
        "--catalog",
        str(tmp_path / "c.csv"),
        "--warehouse",
        str(tmp_path / "w"),
        "--model",
        str(tmp_path),
    ]
    assert main_nightly(arguments) == 2
    assert "--model takes a bundle directory" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_print_config_names_the_source_of_each_value(monkeypatch, capsys):
    monkeypatch.setenv("DEDUP_MATCH__SKU_MATCH", "main")
    assert main(["run", "--catalog", "c.csv", "--print-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "catalog.path = c.csv  # flag --catalog" in lines
    assert "match.sku_match = main  # environment DEDUP_MATCH__SKU_MATCH" in lines
    assert "candidates.target_recall = 0.99  # default" in lines


def test_an_error_of_an_executor_keeps_its_exit_code(monkeypatch, capsys):
    import dedup_job.pipeline

    def fail(settings):
        raise RuntimeError(
            "Job aborted\n  File 'x.py'\ndedup_job.errors.CatalogError: part 3 is damaged\n\tat Java"
        )

    monkeypatch.setattr(dedup_job.pipeline, "run", fail)
    assert main(["run", "--catalog", "c", "--warehouse", "w"]) == 2
    assert capsys.readouterr().err == "error: part 3 is damaged\n"


def test_a_bug_is_told_in_short_and_never_as_a_stack_trace(monkeypatch, capsys):
    import dedup_job.pipeline

    def fail(settings):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(dedup_job.pipeline, "run", fail)
    assert main(["run", "--catalog", "c", "--warehouse", "w"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in err and "Traceback" not in err
    with pytest.raises(ZeroDivisionError):
        monkeypatch.setenv("DEDUP_TRACEBACK", "1")
        main(["run", "--catalog", "c", "--warehouse", "w"])


def test_a_target_given_as_a_flag_wins_over_a_threshold_from_the_environment(monkeypatch, capsys):
    monkeypatch.setenv("DEDUP_MATCH__MIN_COSINE", "0.8")
    assert main(["run", "--target-precision", "0.9", "--print-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "match.target_precision = 0.9  # flag --target-precision" in lines
    assert "match.min_cosine = null  # flag --target-precision" in lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Job aborted\n Python worker exited unexpectedly (crashed)", "killed, mostly for memory"),
        ("ExecutorLostFailure (executor 3 exited)", "an executor was lost"),
        ("ModuleNotFoundError: No module named 'pyarrow'", "spark.pyspark.python"),
    ],
)
def test_what_spark_says_is_translated(monkeypatch, capsys, text, said):
    import dedup_job.pipeline

    def fail(settings):
        raise RuntimeError(text)

    monkeypatch.setattr(dedup_job.pipeline, "run", fail)
    assert main(["run", "--catalog", "c", "--warehouse", "w"]) == 1
    assert said in capsys.readouterr().err
