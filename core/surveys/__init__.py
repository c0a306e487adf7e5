"""Survey truth: official survey files to shares by country, their collapse to two poles, and a packaged table."""

from .importer import SurveyImport, import_survey
from .poles import Middle, collapse
from .truth import SurveyTruth, survey_folder, survey_truth, write_survey

__all__ = [
    "Middle",
    "SurveyImport",
    "SurveyTruth",
    "collapse",
    "import_survey",
    "survey_folder",
    "survey_truth",
    "write_survey",
]
