from autopsae.cure.dictionary_learning import cure_dictionary_learning as cure_dictionary_learning
from autopsae.cure.prescribed import only_centered as only_centered
from autopsae.cure.saelens import cure_saelens as cure_saelens
from autopsae.cure.saelens import saelens_scaler as saelens_scaler
from autopsae.cure.sparsify import cure_sparsify as cure_sparsify
from autopsae.cure.stream import mapped as mapped
from autopsae.cure.stream import peek as peek
from autopsae.cure.stream import unmapped as unmapped
