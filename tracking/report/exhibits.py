"""Every table and figure of the paper, and ours, from one study: names and columns.

Columns that name a run of fine-tuning, in this order, are called ARM below:
`model` (what was fine-tuned), `source` (corpus), `tuning` (its languages, joined by +; several are multilingual), `size`
(sentences), `training` (such as "5 epochs, lr 5e-05" or "1 epoch, lr 0.0005, LoRA"), `seed`, `placebo` (True on permuted
text), `run` (name of the tuned model's probe record). Where pretrained models stand beside them, `stage` is "pretrained" or
"fine-tuned"; for the pretrained `source`, `tuning` and `training` are "", `size` and `seed` missing, `placebo` False.
GROUP is `model`, `source`, `size`, `training`. `language` is a test language, or `all` where answers in all languages are
counted together. Missing values are NaN, and `reason` says why ("" where there is a value).

In the paper's order, then ours:

agreement [Table 1, Fig. 7]
    stage, first, second, source, tuning, size, training, seed, language, agreement, low, high, plain_low, plain_high,
    n, ties, dropped, reason
survey_similarity [3.5, Fig. 13]
    first, second (countries), cosine, low, high, n, reason
survey_plane [3.5, Fig. 13]
    country, x, y, explained_x, explained_y, n, dropped
unchanged [Fig. 2, 8, 9, 10, Table 2]
    ARM, language, unchanged, low, high, plain_low, plain_high, n, ties, dropped, reason
spread [Table 2]
    over ("seeds", "fine-tuning languages"), GROUP, tuning, seed, language, mean, deviation, minimum, maximum,
    replicates
unchanged_category [Fig. 3]
    ARM, category, category_name, unchanged, low, high, plain_low, plain_high, n, ties, dropped, reason
category_consistency [Fig. 3]
    model, size, training, first, second (sources), category, category_name, averaging ("before", "after"), pearson,
    low, high, n, reason
unique_shifts [5.2.1]
    GROUP, seed, tunings (how many fine-tuning languages), language (last "mean"), unique, low, high, shifted, n,
    dropped, reason
sizes [5.2.1, 6]
    model, source, tuning, training, seed, size_first, size_second, language, first, second, difference, low, high, p,
    adjusted, n, dropped, reason
direction [Fig. 4, 11]
    GROUP, seed, tuning, language, x_base, y_base, x, y, explained_x, explained_y, n, dropped, run
parallelism [Fig. 4, 11]
    ARM, cosine, low, high, languages, n, dropped, reason
alignment [Table 3]
    stage, ARM, language, country, spearman, low, high, plain_low, plain_high, p, adjusted, turned_low, turned_high,
    within, within_low, within_high, jensen_shannon, wasserstein, best, n, dropped, reason
alignment_change [Table 3]
    ARM (tuning "mean" is the mean over monolingual runs, `run` then ""), models (how many), language, country, base,
    tuned, change, low, high, p, adjusted, n, dropped, reason
dissimilarity [Fig. 5, 12]
    stage, ARM, first, second (languages), dissimilarity, low, high, n, reason
structure [Fig. 5, 12]
    stage, ARM, other ("pretrained" or "survey"), spearman, low, high, p (Mantel), adjusted, profiles, pairs, n,
    dropped, reason
mean_dissimilarity [5.2.1, 6]
    model, source, training, seed, kind ("pretrained", "monolingual", "multilingual"), size, dissimilarity, low, high,
    change, change_low, change_high, models, languages, n, dropped, reason
language_share [Fig. 6, 14]
    ARM, attribution (record), language, side ("top", "bottom"), train_language, share, low, high, base_rate,
    odds_ratio, p, adjusted, n
parallel_overlap [7]
    GROUP, seed, placebo, first, second (fine-tuning languages, last "all"), overlap, low, high, maximum, chance, n
cross_test_overlap [7]
    ARM, attribution, first, second (test languages, last "all"), overlap, low, high, maximum, chance, n
placebo [ours]
    ARM, language, unchanged, low, high, n, placebo_mean, placebo_deviation, rank, rank_p, z, p, adjusted, placebos
placebo_shifts [ours]
    ARM, language, shifted, beyond (of them, questions whose change lies outside the placebo runs, adjusted p <= .05),
    n, placebos, reason
ceiling [ours]
    stage, ARM, language, reliability, low, high, ceiling, ceiling_low, ceiling_high, same, same_low, same_high, n,
    dropped, reason
influence [ours]
    stage, ARM, language, country, question, without, difference
planted [ours]
    ARM, language, plant (checkpoint of truth.csv), base, tuned, change, low, high, p, adjusted, n, dropped, reason
paper [all]
    table, exhibit, row, column, unit, theirs, ours, low, high, n, differs, note
"""

from .arms import Study
from .causes import cross_test_overlap, language_share, parallel_overlap
from .exhibit import Exhibit
from .likeness import (
    direction,
    dissimilarity,
    mean_dissimilarity,
    parallelism,
    structure,
    survey_plane,
    survey_similarity,
)
from .noise import placebo, placebo_shifts
from .people import alignment, alignment_change, ceiling, influence, planted
from .shifts import agreement, category_consistency, sizes, spread, unchanged, unchanged_category, unique_shifts
from .theirs import beside_paper


def exhibits(study: Study) -> list[Exhibit]:
    """All exhibits in the paper's order, those that cannot be made with what is missing; last ours beside the paper's."""
    stayed = unchanged(study)
    made = [
        agreement(study),
        survey_similarity(study),
        survey_plane(study),
        stayed,
        spread(stayed),
        unchanged_category(study),
        category_consistency(study),
        unique_shifts(study),
        sizes(study),
        direction(study),
        parallelism(study),
        alignment(study),
        alignment_change(study),
        dissimilarity(study),
        structure(study),
        mean_dissimilarity(study),
        language_share(study),
        parallel_overlap(study),
        cross_test_overlap(study),
        placebo(study, stayed),
        placebo_shifts(study),
        ceiling(study),
        influence(study),
        planted(study),
    ]
    return [*made, beside_paper(made, study)]
