"""What the columns of the report's tables are called and mean."""


def label(name: str) -> str:
    """A column's name as a reader sees it."""
    return LABELS.get(name, name.replace("_", " "))


LABELS = {
    "tuning": "tuned on",
    "tunings": "languages tuned on",
    "train_language": "examples in",
    "spearman": "ρ",
    "adjusted": "p adjusted",
    "rank_p": "p of rank",
    "turned": "ρ, poles turned",
    "within": "ρ within pairs",
    "plain": "plain interval",
    "category_name": "category",
    "category": "no.",
    "jensen_shannon": "Jensen-Shannon",
    "wasserstein": "Wasserstein",
    "size_first": "first size",
    "size_second": "second size",
    "deviation": "standard deviation",
    "placebo_deviation": "placebo standard deviation",
}

MEANINGS = {
    "source": "the corpus that was trained on",
    "size": "sentences before the split into training and development",
    "unchanged": "share of common questions with the same answer before and after fine-tuning",
    "agreement": "share of common questions that two models answer alike",
    "unique": "share of the shifted questions that shifted under exactly one fine-tuning language",
    "shifted": "questions whose answer changed",
    "plain": "the interval one would state if questions were independent",
    "p": "two-sided p-value of no effect, by randomisation over batteries; of likeness of structures, Mantel's",
    "adjusted": "the p-value adjusted for the number of tests in the table (Benjamini and Hochberg)",
    "spearman": "Spearman's rank correlation; in the table of alignment between a model's and a country's answers",
    "turned": "range of ρ when the poles of random batteries change places on both sides",
    "within": "ρ within pairs of options, which does not depend on the order of poles",
    "jensen_shannon": "mean Jensen-Shannon distance of the answers, from 0 (alike) to 1",
    "wasserstein": "mean Wasserstein distance of the answers, from 0 (alike) to 1",
    "change": "after minus before",
    "pearson": "correlation over test languages of the unchanged shares of two sources",
    "averaging": "whether fine-tuning languages were averaged before or after correlating",
    "dissimilarity": "1 minus the cosine between the answers in two languages",
    "cosine": "cosine between answers, or of parallelism the mean cosine between the changes of two languages",
    "placebo": "training on the same text with its tokens permuted",
    "rank": "place of the run among itself and the placebo runs by distance from their mean; 1 is the farthest",
    "rank_p": "rank divided by the number of runs, the smallest p that so few placebo runs allow",
    "z": "distance from the placebo runs in their standard deviations, from five placebo runs on",
    "beyond": "shifted questions whose change lies outside the placebo runs (adjusted p at most 0.05)",
    "ceiling": "the largest alignment that the disagreement of two wordings leaves possible",
    "reliability": "correlation of the answers to two wordings",
    "share": "share of a language among the most (top) or least (bottom) influential training examples",
    "base_rate": "share of the language among all training examples",
    "odds_ratio": "odds of the share against those of the base rate",
    "chance": "what random lists of examples would give",
    "x": "first principal component",
    "y": "second principal component",
    "without": "ρ without the question",
    "difference": "of sizes, second minus first; of influence, ρ of all questions minus ρ without this one",
    "theirs": "the paper's figure",
    "ours": "the figure of these runs",
    "differs": "settings in which these runs differ from the paper's",
    "replicates": "runs that the mean and the spread are over",
}
