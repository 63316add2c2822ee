from autopsae.cure.bionemo import bionemo_flags as bionemo_flags
from autopsae.cure.dictionary_learning import cure_dictionary_learning as cure_dictionary_learning
from autopsae.cure.saelens import cure_saelens as cure_saelens
from autopsae.cure.sparsify import cure_sparsify as cure_sparsify
from autopsae.cure.stream import map_tokens as map_tokens
from autopsae.cure.stream import peek as peek
from autopsae.cure.stream import unmap_sae as unmap_sae
