"""From features to scores: how much each training sentence moves each query.

With features Phi of n training sentences (n x d) and phi of a query, both solvers invert the same regularised second moment,

    dual      (Phi Phi' + lambda I)^-1 Phi phi          an n x n system, in float64: for features longer than n
    primal    Phi (Phi' Phi + lambda I)^-1 phi          a d x d inverse, by the traker library as published (Park et al. 2023)

which are equal for lambda > 0. lambda is given relative to the mean eigenvalue trace(Phi Phi') / n. At lambda = 0 the inverse
exists in the dual only where d >= n and in the primal only where d < n. The library divides its inverse by the mean of its
absolute entries, so scores of the primal have no unit.
"""

from collections.abc import Iterator
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch
from trak.score_computers import BasicScoreComputer

from ..core.errors import ValueshiftError
from .features import Floats

Solver = Literal["dual", "primal"]
Scores = npt.NDArray[np.float64]

LARGEST_PRIMAL = 20_000
"""Dimensions at most of the primal's inverse (1.6 GB in float32)."""
_CHUNK = 80_000_000
"""Numbers of features that are held at a time: 320 MB."""
_STRIP = 2_000
"""Rows of a product that are computed at a time."""


class Vectors(Protocol):
    """Features of some items, in memory or on disk."""

    @property
    def shape(self) -> tuple[int, int]:
        """Items, dimension."""

    def columns(self, start: int, stop: int) -> Floats:
        """Some dimensions of all vectors, shape (items, stop - start)."""


def objection(solver: Solver, damping: float, n: int, dimension: int) -> str | None:
    """Why this combination cannot be right; None where it can."""
    if damping:
        return None
    if solver == "primal" and dimension >= n:
        return (
            f"{dimension:,} projected dimensions are not fewer than the {n:,} training sentences, and lambda is 0: the inverse "
            f"does not exist, and what is computed in its place is rounding error"
        )
    if solver == "dual" and dimension < n:
        return (
            f"the kernel of {n:,} training sentences has rank {dimension:,} at most, and lambda is 0: it has no inverse"
        )
    return None


def solved(train: Vectors, queries: Vectors, solver: Solver, damping: float) -> Scores:
    """Scores before Q, shape (training sentences, queries).

    Raises:
        ValueshiftError: every gradient is zero, the inverse does not exist, or the primal is too large.
    """
    return dual(train, queries, damping) if solver == "dual" else primal(train, queries, damping)


def dual(train: Vectors, queries: Vectors, damping: float) -> Scores:
    """Scores by the n x n system; features are read once, a block of dimensions at a time.

    Memory in bytes: 8 n (n + queries) and half a GB; 10,000 sentences and 3,000 queries take under 2 GB.

    Raises:
        ValueshiftError: as `solved`.
    """
    kernel, scores = kernels(train, queries)
    scale = float(np.trace(kernel)) / len(kernel)
    _refuse_zero(scale)
    kernel[np.diag_indices(len(kernel))] += damping * scale
    try:
        # the transpose is the same matrix in the order that LAPACK overwrites without a copy
        factor = scipy.linalg.cho_factor(kernel.T, lower=True, overwrite_a=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        raise ValueshiftError(
            f"the kernel of {len(kernel):,} training sentences has no inverse at damping {damping:g}; give a larger one, such "
            f"as 1"
        ) from None
    solution: Scores = scipy.linalg.cho_solve(factor, scores, overwrite_b=True, check_finite=False)
    return solution


def kernels(train: Vectors, queries: Vectors) -> tuple[Scores, Scores]:
    """Inner products of training sentences with each other (n x n) and with queries (n x queries, in Fortran's order).

    Products are summed in float32 within a block of dimensions, in float64 over blocks.
    """
    n = train.shape[0]
    kernel, cross = np.zeros((n, n)), np.zeros((n, queries.shape[0]), order="F")
    for start, stop in _blocks(train, queries):
        left, right = train.columns(start, stop), queries.columns(start, stop)
        for row in range(0, n, _STRIP):
            strip = left[row : row + _STRIP]
            kernel[row : row + _STRIP, : row + _STRIP] += strip @ left[: row + _STRIP].T
            cross[row : row + _STRIP] += strip @ right.T
    for row in range(0, n, _STRIP):  # strips reach the diagonal only; the rest is their mirror image
        kernel[:row, row : row + _STRIP] = kernel[row : row + _STRIP, :row].T
    return kernel, cross


def primal(train: Vectors, queries: Vectors, damping: float) -> Scores:
    """Scores by the library's own computer, in float32 as there.

    Raises:
        ValueshiftError: as `solved`.
    """
    n, dimension = train.shape
    if dimension > LARGEST_PRIMAL:
        raise ValueshiftError(
            f"the primal solver would invert a matrix of {dimension:,} x {dimension:,}; use the dual, or features of at most "
            f"{LARGEST_PRIMAL:,} dimensions"
        )
    features, asked = (torch.from_numpy(vectors.columns(0, dimension)) for vectors in (train, queries))
    computer = BasicScoreComputer(dtype=torch.float32, device="cpu")
    second_moment = computer.get_xtx(features)
    scale = float(second_moment.diagonal().double().sum()) / n
    _refuse_zero(scale)
    computer.lambda_reg = damping * scale
    scores = torch.zeros(n, len(asked))
    try:
        computer.get_scores(computer.get_x_xtx_inv(features, second_moment), asked, accumulator=scores)
    except RuntimeError:  # what torch.linalg raises
        raise ValueshiftError(
            f"the second moment of {dimension:,} dimensions has no inverse at damping {damping:g}; give a larger one"
        ) from None
    return scores.double().numpy()


def _blocks(*vectors: Vectors) -> Iterator[tuple[int, int]]:
    dimension = vectors[0].shape[1]
    width = max(1, _CHUNK // sum(one.shape[0] for one in vectors))
    for start in range(0, dimension, width):
        yield start, min(start + width, dimension)


def _refuse_zero(scale: float) -> None:
    if not scale > 0:
        raise ValueshiftError(
            "the gradient of every training sentence is zero: none has a target that counts; use targets 'all' or other text"
        )
