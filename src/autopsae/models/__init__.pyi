from autopsae.models.network import Network as Network
