"""What a report is made of: models and their answers, runs of fine-tuning between them, and the study that holds all."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from ...analysis.answers import Answers
from ...analysis.influences import Attributed
from ...analysis.profiles import Selection, default_selection, profile
from ...core.languages import LANGUAGES
from ...core.probes import Item
from ...core.records import Whole
from ...core.surveys import SurveyTruth


@dataclass(frozen=True, eq=False)
class Model:
    """One model's answers to one probe set, from one record or from several that asked different languages."""

    name: str
    """Short and unique in the study."""
    digest: str
    asked: tuple[str, str]
    """Format and dtype."""
    wording: Mapping[str, str]
    """Digest of the probes in each language."""
    answers: Answers
    """Under the study's reading."""
    records: tuple[str, ...]

    @cached_property
    def profile(self) -> pd.DataFrame:
        """Index question, columns language, values p_first."""
        return profile(self.answers)

    @property
    def run(self) -> str:
        """The record that stands for it."""
        return self.records[0]


@dataclass(frozen=True, eq=False)
class Arm:
    """One run of fine-tuning: the model before and after it, and what it was trained on."""

    base: Model
    tuned: Model
    source: str
    languages: tuple[str, ...]
    size: int
    training: str
    seed: int
    placebo: bool
    finetune: str
    """Name of the finetune record."""

    @property
    def tuning(self) -> str:
        """The fine-tuning languages, joined by +."""
        return "+".join(self.languages)

    @property
    def multilingual(self) -> bool:
        """Whether it was trained on more than one language."""
        return len(self.languages) > 1

    @property
    def cells(self) -> dict[str, object]:
        """What names the arm in every table."""
        return {
            "model": self.base.name,
            "source": self.source,
            "tuning": self.tuning,
            "size": self.size,
            "training": self.training,
            "seed": self.seed,
            "placebo": self.placebo,
            "run": self.tuned.run,
        }

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the records that its numbers come from."""
        return (*self.base.records, self.finetune, *self.tuned.records)


@dataclass(frozen=True, eq=False)
class Attribution:
    """An attribution record with the arm whose shifts it explains."""

    arm: Arm
    record: str
    found: Attributed
    shares: pd.DataFrame | None
    """Shares of the fine-tuning languages, where the record has them."""


@dataclass(frozen=True, eq=False)
class Study:
    """All that a report is made of. Every model was asked `probe_set`; `wordings` holds another wording of its items."""

    probe_set: str
    items: Mapping[str, Item]
    pretrained: tuple[Model, ...]
    """Models that no finetune record of the study made."""
    arms: tuple[Arm, ...]
    wordings: tuple[tuple[Model, Model], ...]
    """The same model under `probe_set` and under another wording of its items."""
    attributions: tuple[Attribution, ...]
    truth: SurveyTruth | None
    plant: pd.DataFrame | None
    """The planted profiles of a toy study: checkpoint, language, question, p_first."""
    notes: tuple[str, ...]
    """Sentences that a reader of the report must know."""
    records: tuple[Whole, ...] = ()
    """All that it is made of, oldest first, without reports."""

    @property
    def selection(self) -> Selection:
        """The questions that statistics are about."""
        return default_selection(self.items)

    @property
    def languages(self) -> list[str]:
        """Test languages, in the project's order, others after them."""
        asked = {str(code) for model in self.models for code in model.profile.columns}
        return [*(code for code in LANGUAGES if code in asked), *sorted(asked - set(LANGUAGES))]

    @property
    def models(self) -> list[Model]:
        """Pretrained and tuned."""
        return [*self.pretrained, *(arm.tuned for arm in self.arms)]

    @property
    def real(self) -> list[Arm]:
        """The arms that are no placebo."""
        return [arm for arm in self.arms if not arm.placebo]
