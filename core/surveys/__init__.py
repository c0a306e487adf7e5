"""Survey truth: official survey files to shares by country, their collapse to two poles, and a packaged table."""

from .importer import SurveyImport, import_survey
from .poles import Middle, collapse
from .truth import SurveyTruth, has_survey_truth, survey_folder, survey_truth, write_survey

__all__ = [
    "Middle",
    "SurveyImport",
    "SurveyTruth",
    "collapse",
    "has_survey_truth",
    "import_survey",
    "survey_folder",
    "survey_truth",
    "write_survey",
]
