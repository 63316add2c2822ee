from autopsae.remedies.affine import Affine as Affine
from autopsae.remedies.remedy import Remedy as Remedy
from autopsae.remedies.remedy import active_subspace as active_subspace
from autopsae.remedies.remedy import center as center
from autopsae.remedies.remedy import untouched as untouched
from autopsae.remedies.remedy import whiten as whiten
from autopsae.remedies.remedy import z_score as z_score
from autopsae.remedies.view import View as View
