from autopsae.trial.budget import Budget as Budget
from autopsae.trial.candidate import Candidate as Candidate
from autopsae.trial.result import Outcome as Outcome
from autopsae.trial.result import Point as Point
from autopsae.trial.result import Trial as Trial
from autopsae.trial.trial import trial as trial
