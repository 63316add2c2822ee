"""Hooks of mkdocs: the pages that are made, and links that lead out of docs/.

- `api/ROOM.md` for each public room, from its `__init__.pyi`: every public name with its signature and docstring.
- CONTRIBUTING.md and CHANGELOG.md as pages.
- A link from a page to a file of the repository is the address of that file where `repository` in pyproject.toml
  says one (hatch_build.py), and its words otherwise.
"""

import ast
import re
import tomllib
from pathlib import Path
from posixpath import normpath
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ROOT / "src" / "autopsae"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository that are pages, by their place in it."""


def public_names(stub: Path) -> dict[str, str]:
    """{public name: where it is defined} of an `__init__.pyi`; not the rooms."""
    names = dict[str, str]()
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module != "autopsae":
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms() -> dict[str, Path]:
    """The stub of each public room, by its name."""
    top = ast.parse((HOUSE / "__init__.pyi").read_text(encoding="utf-8")).body
    named = [node for node in top if isinstance(node, ast.ImportFrom) and node.module == "autopsae"]
    return {alias.name: HOUSE / alias.name / "__init__.pyi" for node in named for alias in node.names}


def first_line(folder: Path) -> str:
    """What a room is for: the first sentence of its docstring."""
    told = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    return " ".join(told.split("\n\n")[0].split())


def reference() -> dict[str, str]:
    """The pages of the reference: their text by their names."""
    top = public_names(HOUSE / "__init__.pyi")
    everywhere = {place: room for room, stub in rooms().items() for place in public_names(stub).values()}
    rows = ["# Reference", "", "Every public name, by the room that it is in; what is not here may change.", ""]
    rows += ["| room | what is in it |", "|---|---|"]
    rows += [f"| [`autopsae.{room}`]({room}.md) | {first_line(HOUSE / room)} |" for room in rooms()]
    rows += ["", "## Names at the top", "", "| name | in the room |", "|---|---|"]
    for name, place in sorted(top.items()):
        room = everywhere.get(place, "ground")
        rows.append(f"| [`autopsae.{name}`]({room}.md#{place}) | {room} |")
    pages = {"api/index.md": "\n".join(rows)}
    for room, stub in rooms().items():
        blocks = [f"::: {place}" for place in public_names(stub).values()]
        pages[f"api/{room}.md"] = "\n\n".join([f"# autopsae.{room}", first_line(HOUSE / room), *blocks])
    ground = [f"::: {place}" for name, place in top.items() if place not in everywhere]
    pages["api/ground.md"] = "\n\n".join(["# The ground", "What every room uses.", *ground])
    return pages


def repository() -> str:
    """The address of the public repository; "" where there is none yet."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]).rstrip("/")


def links_within_site(text: str, place: str) -> str:
    """A page whose links lead to pages of the site, to the repository, or are words. place: of the page in the
    repository, such as docs/files.md.
    """
    address = repository()

    def lead(link: re.Match[str]) -> str:
        picture, words, target = link.groups()
        if "://" in target or target.startswith("#") or picture:
            return link[0]
        path, _, anchor = target.partition("#")
        where = normpath(f"{Path(place).parent.as_posix()}/{path}")
        page = PAGES.get(where) or (where.removeprefix("docs/") if where.startswith("docs/") else None)
        if page:
            return f"[{words}]({page}{'#' + anchor if anchor else ''})"
        return f"[{words}]({address}/blob/HEAD/{where})" if address else words

    return LINK.sub(lead, text)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    from mkdocs.structure.files import File  # the functions above need no mkdocs

    made = reference()
    for place, page in PAGES.items():
        made[page] = links_within_site((ROOT / place).read_text(encoding="utf-8"), place)
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_config(config: Any) -> Any:
    """Add the rooms to the navigation."""
    section = next(entry["Reference"] for entry in config["nav"] if "Reference" in entry)
    section += [{f"autopsae.{room}": f"api/{room}.md"} for room in rooms()] + [{"The ground": "api/ground.md"}]
    config["repo_url"] = repository() or None
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The links of a page of docs/."""
    made = page.file.generated_by is not None
    return markdown if made else links_within_site(markdown, f"docs/{page.file.src_uri}")
