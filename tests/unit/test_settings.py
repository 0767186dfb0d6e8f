import pytest

from dedup_job.config import JobConfig
from dedup_job.errors import ConfigError
from dedup_job.settings import Setting, all_keys, load_settings, parse_assignment


def test_flags_win_over_environment_over_file_over_defaults(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("match: {target_precision: 0.9, max_skus_per_photo: 5, sku_match: main}\n")
    environment = {"DEDUP_MATCH__TARGET_PRECISION": "0.8", "DEDUP_MATCH__MAX_SKUS_PER_PHOTO": "6"}
    flags = {"match.target_precision": Setting(0.7, "flag --target-precision")}
    settings = load_settings(flags, str(file), environment)
    match = settings.config.match
    assert (match.target_precision, match.max_skus_per_photo, match.sku_match) == (0.7, 6, "main")
    assert settings.sources["match.target_precision"] == "flag --target-precision"
    assert settings.sources["match.max_skus_per_photo"].startswith("environment DEDUP_MATCH__")
    assert settings.sources["match.sku_match"] == f"file {file}"
    assert settings.sources["candidates.seed"] == "default"


@pytest.mark.parametrize(
    ("assignment", "suggestion"),
    [
        ("match.min_cosin=0.5", "match.min_cosine"),
        ("min_cosine=0.5", "match.min_cosine"),
        ("catalog.sku_colum=x", "catalog.sku_column"),
    ],
)
def test_an_unknown_key_suggests_the_right_one(assignment, suggestion):
    with pytest.raises(ConfigError, match=f"did you mean '{suggestion}'"):
        load_settings(dict([parse_assignment(assignment)]), None, {})


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("match.target_precision=2", "match.target_precision: .*less than 1; got 2 .flag --set"),
        ("match.sku_match=some", "match.sku_match: .*'any', 'main' or 'majority'; got 'some'"),
        ("fetch.max_bytes=many", "fetch.max_bytes: .*integer"),
        ("catalog.uri_column=sku_id", "must differ"),
        ("novalue", "--set takes key=value"),
    ],
)
def test_a_bad_value_is_explained_in_one_line(assignment, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(dict([parse_assignment(assignment)]), None, {})
    assert "\n" not in str(caught.value)


def test_lists_and_text_are_read_as_written():
    flags = dict(
        parse_assignment(text)
        for text in (
            "catalog.block_by=tenant, brand",
            "catalog.sku_column=00123",
            "match.min_cosine=null",
        )
    )
    config = load_settings(flags, None, {}).config
    assert config.catalog.block_by == ("tenant", "brand")
    assert config.catalog.sku_column == "00123"
    assert config.match.min_cosine is None


def test_every_key_is_printed_with_its_source():
    lines = load_settings({}, None, {}).lines()
    assert len(lines) == len(all_keys())
    assert "match.target_precision = 0.97  # default" in lines


def test_the_fingerprint_follows_what_changes_results_and_nothing_else():
    base = JobConfig()
    same = base.model_copy(update={"warehouse": "elsewhere", "dollars_per_core_hour": 1.0})
    other = JobConfig.model_validate({"match": {"sku_match": "main"}})
    assert base.fingerprint() == same.fingerprint()
    assert base.fingerprint() != other.fingerprint()


def test_a_broken_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_settings({}, str(tmp_path / "none.yaml"), {})
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="must hold sections"):
        load_settings({}, str(tmp_path / "list.yaml"), {})
