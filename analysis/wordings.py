"""Two wordings of every question: how far a profile depends on the wording, and the ceiling that this sets."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..core.probes import Item
from . import intervals
from .bootstrap import batteries
from .correlations import constant, spearman
from .pairs import MINIMUM
from .profiles import Selection, selected


def noise_ceiling(
    first: pd.DataFrame,
    second: pd.DataFrame,
    items: Mapping[str, Item],
    selection: Selection = "paper",
    survey_reliability: float = 1.0,
) -> pd.DataFrame:
    """Agreement of two wordings per language, and the highest alignment that one wording can be expected to reach.

    The correlation of two wordings is the reliability r_xx of one (parallel forms). A correlation with a survey of
    reliability r_yy is expected to stay below sqrt(r_xx r_yy) (Spearman 1904, correction for attenuation).

    Args:
        first: a model's profile under one wording (say, of the probe set `wvs`); index question, columns language.
        second: the same model's profile under another wording of the same items.
        items: the registry of both.
        selection: the paper's questions or all.
        survey_reliability: r_yy, from `survey_reliability`.

    Returns:
        One row a language of both: language, reliability (Spearman), low, high, ceiling, ceiling_low, ceiling_high
        (0 where the reliability is negative), same (share of questions with the same answer), same_low, same_high,
        n, dropped, reason.
    """
    wanted = selected(items, selection)
    rows = []
    for language in [name for name in first.columns if name in second.columns]:
        pair = pd.DataFrame({"x": first[language], "y": second[language]}).reindex(wanted).dropna(how="all")
        both = pair.dropna()
        x, y = (both[[side]].to_numpy(dtype=np.float64) for side in ("x", "y"))
        reason = ""
        if len(both) < MINIMUM:
            reason = f"fewer than {MINIMUM} common questions"
        elif constant(x)[0] or constant(y)[0]:
            reason = "constant profile"
        names = (
            "reliability",
            "low",
            "high",
            "ceiling",
            "ceiling_low",
            "ceiling_high",
            "same",
            "same_low",
            "same_high",
        )
        row: dict[str, object] = {"language": language} | dict.fromkeys(names, float("nan"))
        if not reason:
            groups = batteries(both.index.tolist(), items)
            reliability = [float(part[0, 0]) for part in intervals.correlation(spearman(x, y), groups)]
            ceiling = np.sqrt(np.clip(reliability, 0, None) * survey_reliability)
            answered = ((x != 0.5) & (y != 0.5))[:, 0]
            same = ((x > 0.5) == (y > 0.5))[answered, 0]
            estimate = intervals.share(same, np.unique(groups[answered], return_inverse=True)[1])
            values = (*reliability, *ceiling, estimate.value, estimate.low, estimate.high)
            row |= dict(zip(names, values, strict=True))
        rows.append(row | {"n": len(both), "dropped": len(pair) - len(both), "reason": reason})
    return pd.DataFrame(rows)


def survey_reliability(shares: "pd.Series[float]", respondents: "pd.Series[float]") -> float:
    """Reliability of a country's profile: the part of its variance over questions that is not sampling error.

    Args:
        shares: at the first pole, index question.
        respondents: effective number behind each share, index question.

    Returns:
        1 - mean(share (1 - share) / (respondents - 1)) / variance of the shares, at least 0.
    """
    both = pd.DataFrame({"share": shares, "n": respondents}).dropna().astype("float64")
    error = (both["share"] * (1 - both["share"]) / (both["n"] - 1)).mean()
    return max(0.0, float(1 - error / both["share"].var()))
