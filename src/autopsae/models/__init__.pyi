from autopsae.models.choose import Piece as Piece
from autopsae.models.choose import choose_pieces as choose_pieces
from autopsae.models.named import load_network as load_network
from autopsae.models.network import Network as Network
from autopsae.models.stream import NetworkBatches as NetworkBatches
from autopsae.models.stream import collect_layers as collect_layers
from autopsae.models.stream import run_network as run_network
from autopsae.models.text import TextNetwork as TextNetwork
