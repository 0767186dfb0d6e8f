"""The settings of an experiment: frozen, self-validating, readable from YAML."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dedup_job.errors import ConfigError

# Attention erasure acts behind this stage and the later ones.
FIRST_ERASED_STAGE = 3


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkConfig(_Section):
    """The network. `width` multiplies ResNet50's channels; `attention_stages` counts from 1 to 4.

    `erasure_kind`: `topk` hides the `erasure_fraction` most salient cells, `threshold` those whose
    saliency exceeds `erasure_gamma` (0 to 1) times the photo's largest.
    `pooling`: `avgmax` (average and maximum, side by side), `avg`, or `gem` with the exponent `gem_p`
    (1 is the average, large is the maximum).
    """

    input_px: int = Field(128, ge=32, le=512)
    blur_sigma_px: float = Field(0.5, ge=0, le=5)
    width: float = Field(0.5, gt=0, le=2)
    dim: int = Field(128, ge=8, le=512)
    backbone_weights: str = "none"
    freeze_until: str = ""
    channel_attention: bool = True
    spatial_attention: bool = True
    attention_stages: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (3, 4)
    attention_reduction: int = Field(16, ge=1)
    erasure: bool = False
    erasure_probability: float = Field(0.2, ge=0, le=1)
    erasure_fraction: float = Field(0.1, gt=0, lt=1)
    erasure_kind: Literal["topk", "threshold"] = "topk"
    erasure_gamma: float = Field(0.9, ge=0, le=1)
    pooling: Literal["avgmax", "gem", "avg"] = "avgmax"
    gem_p: float = Field(3.0, ge=1, le=10)
    dropout: float = Field(0.1, ge=0, lt=1)


class LossConfig(_Section):
    """The loss. `temperature` divides cosines; `margin` is in squared L2 of unit vectors.

    `entropy_weight` times `losses.differential_entropy` is added; 0 leaves it out, SSCD uses 30.
    """

    kind: Literal["contrastive", "triplet"] = "contrastive"
    temperature: float = Field(0.05, gt=0)
    margin: float = Field(0.2, gt=0)
    entropy_weight: float = Field(0.0, ge=0)


class TrainingConfig(_Section):
    """Batches, schedule and safety.

    A batch holds `photos_per_batch` photos in clusters of `cluster_size` look-alikes, each photo as
    two views and two views of a self-made other product: 4 views a photo. One of the two is lightly
    edited; with `both_heavy_share` it is heavily edited too, as two edited copies in a catalog are.
    Of the clusters, `studio_share` begin with a photo of a product table, `labelled_share` with one
    of the binary pairs, the others with one of a folder, as far as there are such photos.
    `views` ends the training by count; the command line may end it by wall clock instead.
    `processes` draw batches. `precision`: `mixed_bfloat16` computes the backbone in bfloat16; weights, embeddings, loss and the
    averaged network stay float32.
    """

    views: int = Field(250_000, ge=1)
    photos_per_batch: int = Field(24, ge=2)
    cluster_size: int = Field(6, ge=1)
    studio_share: float = Field(0.25, ge=0, le=1)
    labelled_share: float = Field(0.25, ge=0, le=1)
    both_heavy_share: float = Field(0.0, ge=0, le=1)
    learning_rate: float = Field(1.5e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_steps: int = Field(150, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.998, ge=0, lt=1)
    mine_after_steps: int = Field(400, ge=0)
    mine_every_steps: int = Field(400, ge=1)
    checkpoint_every_s: float = Field(300, gt=0)
    validate_every_s: float = Field(900, gt=0)
    seed: int = 7
    jit_compile: bool = False
    processes: int = Field(1, ge=1)
    precision: Literal["float32", "mixed_bfloat16"] = "float32"


class VerifierConfig(_Section):
    """The pair verifier.

    `pairs` are drawn in all; each of a pair's two frames is learned from `uses` times on average. The
    reservoir holds `reservoir_parts` of 250 pairs (90 MB each at 128 px). `processes` draw pairs.
    `hard_share` of a batch is drawn by loss, the rest evenly. `channels`: of the network's four
    stages; a training that starts from a verifier keeps that one's.
    """

    pairs: int = Field(40_000, ge=1)
    uses: float = Field(3.0, gt=0)
    batch: int = Field(64, ge=2)
    learning_rate: float = Field(2e-3, gt=0)
    warmup_steps: int = Field(100, ge=0)
    ema_decay: float = Field(0.995, ge=0, lt=1)
    reservoir_parts: int = Field(16, ge=1)
    hard_share: float = Field(0.5, ge=0, le=1)
    channels: tuple[int, int, int, int] = (24, 48, 96, 128)
    processes: int = Field(1, ge=1)


class ExperimentConfig(_Section):
    """One experiment, as a file of `configs/` states it.

    `data_note` tells readers of the model card where the photos come from and their licences.
    """

    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    verifier: VerifierConfig = VerifierConfig()
    data_note: str = ""

    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of every setting that training depends on."""
        text = self.model_dump_json(exclude={"data_note"})
        return hashlib.sha256(text.encode()).hexdigest()


# May change from one sitting of a training to the next: when it ends and saves, and how its machine computes.
_FREE_TO_CHANGE: Any = {
    "data_note": True,
    "verifier": True,
    "training": {
        "views",
        "checkpoint_every_s",
        "validate_every_s",
        "processes",
        "jit_compile",
        "precision",
    },
}


def changed_setting(before: ExperimentConfig, now: ExperimentConfig) -> str | None:
    """The first setting that a resumed training must not change and did, as text; None without one."""
    old, new = (c.model_dump(mode="json", exclude=_FREE_TO_CHANGE) for c in (before, now))
    for section, settings in old.items():
        for name, value in settings.items():
            if new[section][name] != value:
                return f"{section}.{name} {value!r}, not {new[section][name]!r}"
    return None


def load_config(path: Path | None) -> ExperimentConfig:
    """Read a YAML experiment; None gives the defaults.

    Raises:
        ConfigError: the file is missing, not YAML, or holds an unknown or invalid setting.
    """
    if path is None:
        return ExperimentConfig()
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return ExperimentConfig.model_validate(raw)
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config {path} is not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"config {path}: {name}: {first['msg']}") from None


def with_backbone(config: ExperimentConfig, weights: str | None) -> ExperimentConfig:
    """The experiment with `network.backbone_weights` set by the command line, if given."""
    if weights is None:
        return config
    network = config.network.model_copy(update={"backbone_weights": weights})
    return config.model_copy(update={"network": network})
