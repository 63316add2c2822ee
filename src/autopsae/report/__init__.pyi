from autopsae.report.plots import autopsy_figure as autopsy_figure
from autopsae.report.plots import save_figure as save_figure
from autopsae.report.plots import survey_figure as survey_figure
from autopsae.report.text import autopsy_text as autopsy_text
from autopsae.report.text import fvu_text as fvu_text
from autopsae.report.text import survey_text as survey_text
from autopsae.report.trial import trial_text as trial_text
