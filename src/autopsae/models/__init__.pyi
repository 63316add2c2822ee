from autopsae.models.images import ImageNetwork as ImageNetwork
from autopsae.models.network import Network as Network
from autopsae.models.pictures import image_files as image_files
from autopsae.models.pictures import pictures_in as pictures_in
from autopsae.models.records import sequences_in as sequences_in
from autopsae.models.sequences import DnaNetwork as DnaNetwork
from autopsae.models.sequences import Letters as Letters
from autopsae.models.sequences import ProteinNetwork as ProteinNetwork
