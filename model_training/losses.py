"""Metric losses over one batch of unit vectors, in `keras.ops` only.

Every view has two labels. `identity`: equal = duplicates. `product`: equal with another identity =
another photo of the same product, neither positive nor negative (the job's duplicates are edits of
one photo; a back view is no edit, but pushing it away would teach the wrong thing).
"""

from typing import Any

from keras import ops

_FAR = -1e9
# Squared L2 below which two vectors count as this far apart: float32 cosines resolve no less.
_NEAREST = 1e-6


def contrastive_loss(vectors: Any, identity: Any, product: Any, temperature: float) -> Any:
    """Supervised contrastive loss, "out" variant (Khosla et al. 2020, eq. 2).

    Args:
        vectors: float (n, d), unit L2 rows.
        identity: int (n,).
        product: int (n,).
        temperature: divides the cosines.

    Returns:
        Scalar, mean over the views that have a positive; 0 when none has.
    """
    logits = ops.matmul(vectors, ops.transpose(vectors)) / temperature
    positive, negative = pair_masks(identity, product)
    compared = ops.logical_or(positive, negative)
    log_total = ops.logsumexp(ops.where(compared, logits, _FAR), axis=1, keepdims=True)
    weight = ops.cast(positive, vectors.dtype)
    n_positive = ops.sum(weight, axis=1)
    per_view = ops.sum(weight * (log_total - logits), axis=1) / ops.maximum(n_positive, 1.0)
    has_positive = ops.cast(n_positive > 0, vectors.dtype)
    return ops.sum(per_view * has_positive) / ops.maximum(ops.sum(has_positive), 1.0)


def triplet_loss(vectors: Any, identity: Any, product: Any, margin: float) -> Any:
    """Triplet loss over all anchor-positive pairs with semi-hard negatives (FaceNet, sec. 3.2).

    Distances are squared L2 of unit vectors, 2(1 - cosine), range 0 to 4. For each pair the nearest
    negative with d(a,p) < d(a,n) < d(a,p) + margin is used; a pair that has none adds nothing.

    Args:
        vectors: float (n, d), unit L2 rows.
        identity: int (n,).
        product: int (n,).
        margin: in squared L2 (.2 = .1 in cosine).

    Returns:
        Scalar, mean of d(a,p) - d(a,n) + margin over the pairs used; 0 when none is.
    """
    cosine = ops.matmul(vectors, ops.transpose(vectors))
    distance = ops.maximum(2.0 - 2.0 * cosine, 0.0)
    positive, negative = pair_masks(identity, product)
    to_positive = ops.expand_dims(distance, 2)
    to_negative = ops.expand_dims(distance, 1)
    semi_hard = ops.logical_and(to_negative > to_positive, to_negative < to_positive + margin)
    semi_hard = ops.logical_and(semi_hard, ops.expand_dims(negative, 1))
    nearest = ops.min(ops.where(semi_hard, to_negative, -_FAR), axis=2)
    used = ops.logical_and(positive, nearest < 5.0)
    each = ops.where(used, distance - nearest + margin, 0.0)
    return ops.sum(each) / ops.maximum(ops.sum(ops.cast(used, vectors.dtype)), 1.0)


def differential_entropy(vectors: Any, identity: Any, product: Any) -> Any:
    """Negative entropy estimate that spreads vectors over the sphere (KoLeo, Sablayrolles et al. 2019).

    Kozachenko and Leonenko's estimator: the mean of -log of the distance to the nearest other vector.
    As in SSCD (Pizzi et al. 2022, eq. 5) only views of other products count as such. A duplicate is
    meant to be near, so pushing it away would work against the loss it is added to; another photo of
    the same product neither attracts nor repels here.

    Args:
        vectors: float (n, d), unit L2 rows.
        identity: int (n,).
        product: int (n,).

    Returns:
        Scalar, mean over the views that have a negative, -log 2 to about 6.9 (distances are L2, 0 to
        2, and count as .001 at least); 0 when none has.
    """
    cosine = ops.matmul(vectors, ops.transpose(vectors))
    _, negative = pair_masks(identity, product)
    nearest = ops.max(ops.where(negative, cosine, _FAR), axis=1)
    has_negative = ops.any(negative, axis=1)
    # log of a square root without the root, whose slope has no limit at 0
    squared = ops.maximum(2.0 - 2.0 * ops.where(has_negative, nearest, 0.0), _NEAREST)
    each = ops.where(has_negative, -0.5 * ops.log(squared), 0.0)
    return ops.sum(each) / ops.maximum(ops.sum(ops.cast(has_negative, vectors.dtype)), 1.0)


def pair_masks(identity: Any, product: Any) -> tuple[Any, Any]:
    """Which pairs attract and which repel.

    Returns:
        Two bool (n, n): positive (same identity, not itself) and negative (another product).
    """
    same = ops.equal(ops.expand_dims(identity, 0), ops.expand_dims(identity, 1))
    itself = ops.cast(ops.eye(ops.shape(identity)[0]), "bool")
    same_product = ops.equal(ops.expand_dims(product, 0), ops.expand_dims(product, 1))
    positive = ops.logical_and(same, ops.logical_not(itself))
    return positive, ops.logical_not(ops.logical_or(same, same_product))
