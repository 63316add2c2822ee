"""Public names are imported when they are first used."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

import autopsae
from autopsae.lazy import public_names

pytestmark = pytest.mark.quick


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with one public name, from a module that says when it is imported."""
    folder = tmp_path / "a_lazy_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from autopsae.lazy import lazily\n__getattr__, __dir__ = lazily(__name__, __file__)\n"
    )
    (folder / "__init__.pyi").write_text("from a_lazy_package.inner import thing as thing\n")
    (folder / "inner.py").write_text("thing, other = [1], [2]\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("a_lazy_package", "a_lazy_package.inner"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "a_lazy_package"


def test_a_name_is_imported_when_it_is_first_used(package: str) -> None:
    lazy = __import__(package)
    assert f"{package}.inner" not in sys.modules
    assert lazy.thing == [1]
    assert lazy.thing is sys.modules[f"{package}.inner"].thing
    assert lazy.inner.other == [2]
    assert {"thing"} <= {*dir(lazy)}
    assert lazy.__all__ == ["thing"]


def test_a_name_that_is_not_there_is_no_attribute(package: str) -> None:
    lazy = __import__(package)
    for name in ("other", "nothing", "__wrapped__"):
        with pytest.raises(AttributeError, match=f"module '{package}' has no attribute '{name}'"):
            getattr(lazy, name)


def test_every_public_name_of_every_room_can_be_imported() -> None:
    house = Path(autopsae.__file__).parent
    for stub in house.rglob("__init__.pyi"):
        names = public_names(stub)
        assert names, stub
        room = __import__(".".join(stub.parent.relative_to(house.parent).parts), fromlist=["x"])
        for name in names:
            assert getattr(room, name) is not None


@pytest.mark.parametrize("first", ["module", "name"])
def test_a_public_name_wins_over_the_module_of_the_same_name(package: str, tmp_path: Path, first: str) -> None:
    (tmp_path / package / "__init__.pyi").write_text(f"from {package}.same import same as same\n")
    (tmp_path / package / "same.py").write_text("same, other = [1], [2]\n")
    public_names.cache_clear()
    lazy = __import__(package)
    if first == "name":
        assert lazy.same == [1]
    module = import_module(f"{package}.same")
    assert lazy.same == [1]
    assert module.other == [2]


def test_a_room_that_is_public_is_itself(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "__init__.pyi").write_text(f"from {package} import inner as inner\n")
    public_names.cache_clear()
    lazy = __import__(package)
    assert lazy.inner is import_module(f"{package}.inner")
    assert lazy.__all__ == ["inner"]
