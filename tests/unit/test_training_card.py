"""A model card says what its own bundle was made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import model_training
from model_training.card import CARD, write_card
from model_training.config import ExperimentConfig, load_config

CONFIGS = Path(model_training.__path__[0]) / "configs"


FIGURES = {"uap": 0.5, "recall_at_p95": 0.25, "recall_at_p99": 0.125, "hard_auc": 0.75}


def card_of(
    folder: Path,
    config: ExperimentConfig,
    sources: dict[str, int],
    earlier: Sequence[dict[str, Any]] = (),
    **more: dict[str, Any],
) -> str:
    training: dict[str, Any] = {
        "config": config.model_dump(mode="json"), "command": "model-training train", "views": 800,
        "n_photos": sum(sources.values()), "n_held_out_photos": 12, "sources": sources,
        "spent_s": 5400.0, "earlier": list(earlier),
    }  # fmt: skip
    write_card(folder, {"training": training, "quality": {"int8": FIGURES}, **more})
    return (folder / CARD).read_text(encoding="utf-8")


def test_a_users_card_claims_nothing_about_the_default_model(tmp_path: Path) -> None:
    raw = {"network": {"width": 1.0, "backbone_weights": "/home/someone/resnet50.h5"}}
    card = card_of(tmp_path, ExperimentConfig.model_validate(raw), {"pairs": 70})
    assert "1.5 hours of computing, starting from ResNet50 weights (resnet50.h5)." in card
    assert "70 photos of labelled pairs" in card
    assert "State here where the photos come from and under which licences." in card
    for other in (
        "scratch",
        "two CPU cores",
        "Magento",
        "CC0",
        "colours of their styles",
        "someone",
    ):
        assert other not in card
    assert "| int8 | 0.500 | 0.250 | 0.125 | 0.750 |" in card


def test_the_card_tells_of_all_trainings(tmp_path: Path) -> None:
    first = {"command": "model-training train --photos p", "views": 200, "spent_s": 1800.0}
    verifier = {
        "floor_cosine": 0.6,
        "pairs": 1000,
        "command": "model-training verifier --init-from B",
        "earlier": [{"command": "model-training verifier --bundle B", "pairs": 500}],
        "quality": {"cosine": FIGURES, "score": FIGURES},
    }
    card = card_of(tmp_path, ExperimentConfig(), {"folder": 1}, [first], verifier=verifier)
    assert "1000 views, 2.0 hours of computing, from scratch: no pretrained weights." in card
    assert "2 trainings, each going on from the one before:" in card
    assert "model-training train --photos p\nmodel-training train\n" in card
    assert "Trained on 1500 pairs" in card
    assert "verifier --bundle B\nmodel-training verifier --init-from B\n" in card


def test_the_default_card_names_its_data(tmp_path: Path) -> None:
    config = load_config(CONFIGS / "default_128.yaml")
    card = card_of(tmp_path, config, {"folder": 300, "products": 40})
    assert "from scratch: no pretrained weights" in card
    assert "300 photos without labels" in card and "40 photos of a product table" in card
    assert "CC0 1.0" in card and "Magento Luma" in card
    assert "State here" not in card


def test_the_card_names_the_pooling(tmp_path: Path) -> None:
    for pooling, said in (("avgmax", "average and maximum"), ("gem", "generalised-mean (p = 3)")):
        config = ExperimentConfig.model_validate({"network": {"pooling": pooling}})
        assert f"{said} pooling" in card_of(tmp_path, config, {"folder": 1})


def test_the_data_note_is_no_setting_of_the_training() -> None:
    noted = ExperimentConfig(data_note="Photos of our own studio.")
    assert noted.fingerprint() == ExperimentConfig().fingerprint()


def test_the_card_tells_of_the_verifier(tmp_path: Path) -> None:
    verifier = {
        "floor_cosine": 0.6,
        "pairs": 1234,
        "command": "model-training verifier --bundle B",
        "quality": {"cosine": FIGURES, "score": {**FIGURES, "uap": 0.875}},
    }
    config = ExperimentConfig()
    card = card_of(tmp_path, config, {"folder": 1}, verifier=verifier)
    assert "| score (int8) | 0.875 | 0.250 | 0.125 | 0.750 |" in card
    assert "Trained on 1234 pairs" in card and "model-training verifier --bundle B" in card
    assert "verifier" not in card_of(tmp_path, config, {"folder": 1})
