"""False positives and coverage on simulated answers whose truth is known (docs/statistics.md quotes the outcome).

Questions come in the batteries of the registry: all 238 of the paper, and random 68 and 40 of them. Values are
Gaussian with a battery effect (intraclass correlation `icc`), the same correlations among effects and among questions.
The population Spearman correlation of a bivariate Gaussian is 6 / pi * arcsin(r / 2).
"""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats
from valueshift.analysis import intervals
from valueshift.analysis.alignment import swapped_changes
from valueshift.analysis.bootstrap import Floats, Groups, batteries, bootstrap_weights, mean, resampled
from valueshift.analysis.correlations import spearman, weighted_ranks
from valueshift.analysis.placebo import among_placebos
from valueshift.analysis.significance import randomised_p, sign_flip_p
from valueshift.core.paths import TASKS
from valueshift.core.probes import read_items

pytestmark = pytest.mark.slow
REPLICATES = 2_000
PAPER = {name: item for name, item in read_items(TASKS / "wvs" / "items.csv").items() if item.paper}
FALSE_POSITIVES = (0.03, 0.07)
COVERAGE = (0.93, 0.97)


def design(n: int) -> Groups:
    names = list(PAPER)
    chosen = sorted(np.random.default_rng(1).choice(len(names), n, replace=False))
    return batteries([names[place] for place in chosen], PAPER)


UNEVEN = np.repeat(np.arange(8), [26, 20, 9, 5, 4, 2, 1, 1])
"""The batteries of the 68 questions for which ready-made survey shares circulate: two of them hold two thirds."""


def samples(groups: Groups, icc: float, correlations: Floats) -> Iterator[Floats]:
    """Replicates of variables (variables, questions) with these correlations among effects and among questions."""
    rng = np.random.default_rng(int(1000 * icc) + len(groups))
    root = np.linalg.cholesky(correlations + 1e-12 * np.eye(len(correlations)))
    for _ in range(REPLICATES):
        effects = root @ rng.normal(size=(len(root), groups.max() + 1))
        yield np.sqrt(icc) * effects[:, groups] + np.sqrt(1 - icc) * root @ rng.normal(size=(len(root), len(groups)))


def population(r: float) -> float:
    return 6 / np.pi * np.arcsin(r / 2)


def alignment_outcome(groups: Groups, icc: float, r: float) -> tuple[float, float]:
    """Share of replicates with p <= .05, and share whose interval covers the truth."""
    truth, rejected, covered = population(r), 0, 0
    for x, y in samples(groups, icc, np.array([[1, r], [r, 1]])):
        _, low, high = intervals.correlation(spearman(x[:, None], y[:, None]), groups)
        covered += bool(low[0, 0] <= truth <= high[0, 0])
        ranks = [
            weighted_ranks(values[:, None])(np.ones((1, len(groups))))[0, 0] - len(groups) / 2 for values in (x, y)
        ]
        rejected += bool(sign_flip_p(ranks[0] * ranks[1], groups) <= 0.05)
    return rejected / REPLICATES, covered / REPLICATES


def change_outcome(groups: Groups, icc: float, before: float, after: float, alike: float) -> tuple[float, float]:
    """The same for the change in alignment of two models whose profiles correlate by `alike`."""
    truth, rejected, covered = population(after) - population(before), 0, 0
    correlations = np.array([[1, alike, before], [alike, 1, after], [before, after, 1]])
    for variables in samples(groups, icc, correlations):
        base, tuned, survey = (values[:, None] for values in variables)
        one, two = spearman(base, survey), spearman(tuned, survey)
        _, low, high = intervals.symmetric(lambda weights, one=one, two=two: two(weights) - one(weights), groups)
        covered += bool(low[0, 0] <= truth <= high[0, 0])
        rejected += bool(randomised_p(swapped_changes([base, tuned], survey, groups)[0])[0, 0] <= 0.05)
    return rejected / REPLICATES, covered / REPLICATES


def share_outcome(groups: Groups, icc: float, share: float) -> float:
    """Share of replicates whose interval of an unchanged share covers the truth."""
    covered = 0
    for (values,) in samples(groups, icc, np.eye(1)):
        estimate = intervals.share(values < stats.norm.ppf(share), groups)
        covered += estimate.low <= share <= estimate.high
    return covered / REPLICATES


def difference_outcome(groups: Groups, icc: float, first: float, second: float) -> tuple[float, float]:
    """Rejections and coverage for the difference of two models' unchanged shares, answers correlated by .5."""
    rejected, covered = 0, 0
    for values in samples(groups, icc, np.array([[1, 0.5], [0.5, 1]])):
        kept = (values < stats.norm.ppf([[first], [second]])).astype(float)
        difference = kept[1] - kept[0]
        _, low, high = intervals.symmetric(mean(difference), groups)
        covered += bool(low <= second - first <= high)
        rejected += bool(sign_flip_p(difference, groups) <= 0.05)
    return rejected / REPLICATES, covered / REPLICATES


def percentile_outcome(groups: Groups, icc: float, r: float) -> float:
    """Share of replicates whose percentile interval of a bootstrap over batteries covers the truth."""
    truth, covered = population(r), 0
    weights = bootstrap_weights(groups, 400)
    for x, y in samples(groups, icc, np.array([[1, r], [r, 1]])):
        low, high = np.nanquantile(resampled(spearman(x[:, None], y[:, None]), weights), [0.025, 0.975])
        covered += bool(low <= truth <= high)
    return covered / REPLICATES


def placebo_outcome(runs: int, degrees: float) -> tuple[float, float]:
    """False positives of the z-score and of the rank among placebo runs whose changes are t-distributed."""
    changes = stats.t.rvs(degrees, size=(runs + 1, REPLICATES), random_state=runs)
    table = among_placebos(changes[0], changes[1:])
    return float((table["p"] <= 0.05).mean()), float((table["rank_p"] <= 0.05).mean())


DESIGNS = {"238": design(238), "68": design(68), "40": design(40), "uneven": UNEVEN}
"""Questions to their batteries: 50, 27, 19 and 8 of them."""


def within(value: float, band: tuple[float, float]) -> bool:
    return band[0] <= value <= band[1]


@pytest.mark.parametrize("name", DESIGNS)
def test_alignment_keeps_its_level_and_coverage(name: str) -> None:
    false_positives, coverage = alignment_outcome(DESIGNS[name], 0.3, 0.0)
    assert within(false_positives, FALSE_POSITIVES) and within(coverage, COVERAGE)
    power, coverage = alignment_outcome(DESIGNS[name], 0.3, 0.6)
    assert power > 0.7 and within(coverage, COVERAGE)


@pytest.mark.parametrize("name", DESIGNS)
def test_change_in_alignment_keeps_its_level_and_coverage(name: str) -> None:
    false_positives, coverage = change_outcome(DESIGNS[name], 0.3, 0.3, 0.3, 0.8)
    assert within(false_positives, FALSE_POSITIVES) and within(coverage, COVERAGE)
    power, coverage = change_outcome(DESIGNS[name], 0.3, 0.1, 0.4, 0.8)
    assert power > 0.5 and within(coverage, COVERAGE)


@pytest.mark.parametrize("name", DESIGNS)
def test_unchanged_share_keeps_its_coverage(name: str) -> None:
    assert within(share_outcome(DESIGNS[name], 0.3, 0.7), COVERAGE)


@pytest.mark.parametrize("name", DESIGNS)
def test_difference_of_unchanged_shares_keeps_its_level_and_coverage(name: str) -> None:
    false_positives, coverage = difference_outcome(DESIGNS[name], 0.3, 0.7, 0.7)
    assert within(false_positives, FALSE_POSITIVES) and within(coverage, COVERAGE)


def test_placebo_tests_keep_their_level() -> None:
    for runs in (5, 19):
        z, _ = placebo_outcome(runs, degrees=1_000)
        assert within(z, FALSE_POSITIVES)
    _, rank = placebo_outcome(19, degrees=3)
    assert within(rank, FALSE_POSITIVES)


def test_percentiles_over_batteries_are_too_short_to_be_used() -> None:
    assert percentile_outcome(UNEVEN, 0.3, 0.6) < COVERAGE[0]
    assert percentile_outcome(DESIGNS["238"], 0.3, 0.6) < alignment_outcome(DESIGNS["238"], 0.3, 0.6)[1]
