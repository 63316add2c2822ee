from autopsae.run.data import hold_out as hold_out
from autopsae.run.folder import Entry as Entry
from autopsae.run.folder import Plan as Plan
from autopsae.run.many import run_sweep as run_sweep
from autopsae.run.on_ranks import run_on_ranks as run_on_ranks
from autopsae.run.one import run as run
from autopsae.run.portions import Portions as Portions
