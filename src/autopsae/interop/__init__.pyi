from autopsae.interop.convert import format_of as format_of
from autopsae.interop.convert import load_sae as load_sae
from autopsae.interop.convert import save_sae as save_sae
