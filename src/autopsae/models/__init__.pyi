from autopsae.models.network import Modality as Modality
from autopsae.models.network import Network as Network
