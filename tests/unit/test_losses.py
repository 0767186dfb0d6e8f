"""The losses against oracles written with loops."""

import numpy as np
import pytest

pytest.importorskip("keras")

from model_training.config import LossConfig
from model_training.losses import (
    contrastive_loss,
    differential_entropy,
    pair_masks,
    triplet_loss,
)


def draw(seed: int, n: int = 14) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    identity = rng.integers(0, 6, n)
    return vectors, identity, identity // 2  # two identities share a product


def contrastive_by_loops(
    vectors: np.ndarray, identity: np.ndarray, product: np.ndarray, temperature: float
) -> float:
    n, losses = len(vectors), []
    for i in range(n):
        positives = [j for j in range(n) if j != i and identity[j] == identity[i]]
        negatives = [j for j in range(n) if product[j] != product[i]]
        if not positives:
            continue
        logits = {j: float(vectors[i] @ vectors[j]) / temperature for j in positives + negatives}
        log_total = np.log(sum(np.exp(v) for v in logits.values()))
        losses.append(np.mean([log_total - logits[j] for j in positives]))
    return float(np.mean(losses))


def triplet_by_loops(
    vectors: np.ndarray, identity: np.ndarray, product: np.ndarray, margin: float
) -> float:
    n, losses = len(vectors), []
    distance = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2)
    for a in range(n):
        for p in range(n):
            if p == a or identity[a] != identity[p]:
                continue
            semi_hard = [
                distance[a, k]
                for k in range(n)
                if product[k] != product[a]
                and distance[a, p] < distance[a, k] < distance[a, p] + margin
            ]
            if semi_hard:
                losses.append(distance[a, p] - min(semi_hard) + margin)
    return float(np.mean(losses)) if losses else 0.0


def entropy_by_loops(vectors: np.ndarray, identity: np.ndarray, product: np.ndarray) -> float:
    n, logs = len(vectors), []
    for i in range(n):
        others = [
            float(np.linalg.norm(vectors[i].astype(np.float64) - vectors[j]))
            for j in range(n)
            if product[j] != product[i]  # neither itself, nor a duplicate, nor of its product
        ]
        if others:
            logs.append(np.log(max(min(others), 1e-3)))
    return -float(np.mean(logs)) if logs else 0.0


@pytest.mark.parametrize("seed", range(8))
def test_contrastive_equals_loops(seed: int) -> None:
    vectors, identity, product = draw(seed)
    got = float(contrastive_loss(vectors, identity, product, 0.07))
    assert got == pytest.approx(contrastive_by_loops(vectors, identity, product, 0.07), rel=1e-4)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_triplet_equals_loops(seed: int, margin: float) -> None:
    vectors, identity, product = draw(seed)
    got = float(triplet_loss(vectors, identity, product, margin))
    assert got == pytest.approx(triplet_by_loops(vectors, identity, product, margin), abs=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_entropy_equals_loops(seed: int) -> None:
    vectors, identity, product = draw(seed)
    got = float(differential_entropy(vectors, identity, product))
    assert got == pytest.approx(entropy_by_loops(vectors, identity, product), abs=1e-4)


def test_entropy_leaves_duplicates_together_and_pushes_others_apart() -> None:
    """Against a gradient by differences: only the nearest of another product has a say."""
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("takes a gradient")
    import tensorflow as tf

    angles = tf.Variable([0.0, 0.05, 0.4, 2.0])
    identity, product = np.array([0, 0, 1, 2]), np.array([0, 0, 1, 2])
    with tf.GradientTape() as tape:
        vectors = tf.stack([tf.cos(angles), tf.sin(angles)], axis=1)
        loss = differential_entropy(vectors, identity, product)
    downhill = -tape.gradient(loss, angles).numpy()
    assert downhill[0] < 0 and downhill[1] < 0  # both away from the third, not from one another
    assert np.isfinite(downhill).all()


def test_entropy_of_vectors_that_coincide_is_finite() -> None:
    vectors = np.tile(draw(0, 1)[0], (4, 1))
    labels = np.array([0, 0, 1, 2])
    got = float(differential_entropy(vectors, labels, labels))
    assert got == pytest.approx(-np.log(1e-3), abs=1e-4)
    assert float(differential_entropy(vectors, labels * 0, labels * 0)) == 0.0


@pytest.mark.parametrize("kind", ["contrastive", "triplet"])
def test_entropy_is_added_to_either_loss(kind: str) -> None:
    pytest.importorskip("tensorflow")
    from model_training.train import make_loss

    vectors, identity, product = draw(3)
    labels = np.stack([identity, product], axis=1)
    plain, spread = (
        float(
            make_loss(LossConfig.model_validate({"kind": kind, "entropy_weight": w}))(
                labels, vectors
            )
        )
        for w in (0, 5)
    )
    expected = plain + 5 * entropy_by_loops(vectors, identity, product)
    assert spread == pytest.approx(expected, rel=1e-4)


def test_no_positive_costs_nothing() -> None:
    vectors, _, _ = draw(0, 5)
    alone = np.arange(5)
    assert float(contrastive_loss(vectors, alone, alone, 0.07)) == 0.0
    assert float(triplet_loss(vectors, alone, alone, 0.2)) == 0.0


def test_another_photo_of_one_product_neither_attracts_nor_repels() -> None:
    identity, product = np.array([0, 0, 1, 2]), np.array([0, 0, 0, 1])
    positive, negative = (np.asarray(m) for m in pair_masks(identity, product))
    assert positive[0].tolist() == [False, True, False, False]
    assert negative[0].tolist() == [False, False, False, True]
