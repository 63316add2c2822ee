"""Laws of a network by its name: texts, images and letters are told apart, wherever the network lies."""

from pathlib import Path
from typing import Any

import pytest

from autopsae.models import ImageNetwork, Network, ProteinNetwork, TextNetwork, load_network, named
from tests.activations.test_presets import gpt2_folder
from tests.models.test_load import esm_folder, vision_folder


def test_a_folder_is_loaded_as_what_it_reads(tmp_path: Path) -> None:
    vision_folder(tmp_path / "images", "dinov2")
    esm_folder(tmp_path / "proteins")
    kinds: dict[str, type[Network]] = {"images": ImageNetwork, "proteins": ProteinNetwork, "texts": TextNetwork}
    gpt2_folder(tmp_path / "texts")
    for name, kind in kinds.items():
        network = load_network(str(tmp_path / name))
        assert isinstance(network, kind)
        assert network.name == str(tmp_path / name)


def test_a_text_model_of_the_catalogue_is_loaded_by_its_name_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Stop(Exception):
        pass

    def remember(name: str, **_: Any) -> None:
        asked.append(name)
        raise Stop

    monkeypatch.setattr(named, "load_model", remember)
    for name in ("pythia-410m", "gpt2", "minilm", "someone/else-gguf.gguf", "distilgpt2"):
        with pytest.raises(Stop):
            load_network(name)
    hub = ["EleutherAI/pythia-410m", "openai-community/gpt2"]
    assert asked == [*hub, "minilm", "someone/else-gguf.gguf", "distilgpt2"]


def test_a_model_in_a_folder_goes_before_the_name_of_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpt2_folder(tmp_path / "smollm2")
    monkeypatch.chdir(tmp_path)
    network = load_network("smollm2")
    assert isinstance(network, TextNetwork)
    assert type(network.language_model.model).__name__.startswith("GPT2")
