"""Public names are imported when they are first used."""

import sys
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
