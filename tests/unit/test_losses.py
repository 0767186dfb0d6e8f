"""The losses against oracles written with loops."""

import numpy as np
import pytest

pytest.importorskip("keras")

from model_training.losses import contrastive_loss, pair_masks, triplet_loss


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
