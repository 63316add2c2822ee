"""Which latents of a token are selected: a class for each sparsity, in a file of its own; `base` says what one
is.
"""

from autopsae.sae.sparsity.base import SPARSITIES, Owned, Sparsity
from autopsae.sae.sparsity.batch_topk import BatchTopK
from autopsae.sae.sparsity.groupmax import GroupMax
from autopsae.sae.sparsity.jumprelu import JumpReLU
from autopsae.sae.sparsity.read import read_sparsity
from autopsae.sae.sparsity.relu import ReLU
from autopsae.sae.sparsity.topk import TopK, topk_unless

__all__ = ["SPARSITIES", "BatchTopK", "GroupMax", "JumpReLU", "Owned", "ReLU", "Sparsity", "TopK"]
__all__ += ["read_sparsity", "topk_unless"]
