"""How the verifier's answer and the cosine are weighed: a logistic regression on held-out pairs."""

import numpy as np
from scipy.optimize import minimize

from dedup_job.errors import DedupError
from dedup_job.kernels.verifier import ScoreRule

_RIDGE = 1e-4


def fit_score_rule(answers: np.ndarray, cosines: np.ndarray, same: np.ndarray) -> ScoreRule:
    """The rule of greatest likelihood; duplicates and other pairs weigh the same in all.

    Both weights are kept at or above zero: a score must not fall as a pair grows more alike.

    Args:
        answers: float (p,), of the network.
        cosines: float (p,).
        same: bool (p,), duplicates.

    Raises:
        DedupError: only one kind of pairs.
    """
    if same.all() or not same.any():
        raise DedupError("the score rule needs duplicates and other pairs among the held-out ones")
    weight = np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    scale = np.array([1.0, max(answers.std(), 1e-6), max(cosines.std(), 1e-6)])
    columns = np.stack([np.ones(len(answers)), answers, cosines], axis=1) / scale
    sign = np.where(same, 1.0, -1.0)

    def cost(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (columns @ parameters)
        loss = weight @ np.logaddexp(0, -margin) + _RIDGE * parameters[1:] @ parameters[1:]
        pull = -weight * sign / (1 + np.exp(np.clip(margin, -50, 50)))
        gradient = columns.T @ pull + 2 * _RIDGE * np.r_[0.0, parameters[1:]]
        return float(loss), gradient

    bounds = [(None, None), (0.0, None), (0.0, None)]
    found = minimize(cost, np.zeros(3), jac=True, method="L-BFGS-B", bounds=bounds)
    bias, answer, cosine = (float(value) for value in found.x / scale)
    return ScoreRule(bias, answer, cosine)
