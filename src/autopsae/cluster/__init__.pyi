from autopsae.cluster.diagnose import survey_on as survey_on
from autopsae.cluster.engine import Engine as Engine
from autopsae.cluster.engine import open_engine as open_engine
from autopsae.cluster.harvest import harvest_text_on as harvest_text_on
