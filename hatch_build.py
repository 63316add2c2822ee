"""What a package index is told of the project: README.md with links that work there, and the addresses.

The wheel and the source distribution are built with it (`[tool.hatch.metadata.hooks.custom]` in pyproject.toml,
where `repository` is the address of the public repository). An index knows no file of the repository, so each
relative link gets that address. Where there is none yet, links become their words, and pictures are left out.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
PAPER = "https://arxiv.org/abs/2605.31518"


def readme_for_index(text: str, repository: str) -> str:
    """README.md with absolute links and pictures alone. repository: the address of the repository, "" for none."""

    def absolute(link: re.Match[str]) -> str:
        picture, words, target = link.groups()
        if "://" in target:
            return link[0]
        if not repository or target.startswith("#"):  # an index gives headings no anchors
            return "" if picture else words
        return f"{picture}[{words}]({repository}/{'raw' if picture else 'blob'}/HEAD/{target})"

    return re.sub(r"\n{3,}", "\n\n", LINK.sub(absolute, text))


def urls(repository: str) -> dict[str, str]:
    """The addresses of the project, by what they are."""
    if not repository:
        return {"Paper": PAPER}
    return {
        "Repository": repository,
        "Documentation": f"{repository}/tree/HEAD/docs",
        "Changelog": f"{repository}/blob/HEAD/CHANGELOG.md",
        "Issues": f"{repository}/issues",
        "Paper": PAPER,
    }


class Index(MetadataHookInterface):
    """Sets `readme` and `urls`, which pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling with the table `project`."""
        repository = str(self.config.get("repository", "")).rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": readme_for_index(text, repository)}
        metadata["urls"] = urls(repository)
