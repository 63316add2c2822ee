"""Check a release: `python tools/check_release.py dist`, as `make release` does after it has built `dist`.

The folder holds one wheel and one source distribution. Neither may have tests, results or paths of this machine
inside; the wheel has the types. The wheel is then installed into a bare environment, with the core dependencies
alone, and used there. Whatever does not hold ends the program with one line.
"""

import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {"tests", "results", "experiments", "benchmarks", "examples", "tools", "__pycache__"}
EXTRAS = {"numba", "transformers", "gguf", "accelerate", "matplotlib", "pandas", "pyarrow", "tensorboard"}
EXTRAS |= {
    "huggingface_hub",
    "huggingface-hub",
    "datasets",
    "wandb",
    "scikit-learn",
    "diffusers",
    "pillow",
}
NEEDED = {"page", "hub", "datasets", "wandb", "all"}
SAMPLE = "import numpy as np; np.save('tokens.npy', np.random.default_rng(0).normal(3, 1, (2000, 16)).astype('f4'))"


def contents(archive: Path) -> dict[str, bytes]:
    """Bytes by name, of the files in a wheel or a source distribution."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(archive) as source:
        members = [member for member in source.getmembers() if member.isfile()]
        return {member.name: handle.read() for member in members if (handle := source.extractfile(member))}


def check_contents(archive: Path) -> None:
    """Exit where something is inside that should not be, or a type file of `src` is missing."""
    files = contents(archive)
    print(f"\n{archive.name}: {archive.stat().st_size / 1000:,.0f} kB, {len(files)} files")
    print("\n".join(f"{len(files[name]):>8,} {name}" for name in sorted(files)))
    if wrong := sorted(name for name in files if FORBIDDEN & set(Path(name).parts)):
        sys.exit(f"{archive.name}: expected no {', '.join(sorted(FORBIDDEN))} inside, got {wrong[:3]}")
    machine = [f"{place}/".encode() for place in (ROOT, Path.home())]
    if told := sorted(name for name, text in files.items() if any(place in text for place in machine)):
        sys.exit(f"{archive.name}: expected no path of this machine inside, got one in {told[:3]}")
    types = [path for path in (ROOT / "src").rglob("*") if path.suffix == ".pyi" or path.name == "py.typed"]
    for path in (str(path.relative_to(ROOT / "src")) for path in types):
        if not any(name.endswith(path) for name in files):
            sys.exit(f"{archive.name}: expected {path} inside; see [tool.hatch.build] in pyproject.toml")


def check_metadata(wheel: Path) -> None:
    """Exit where the package index would show a broken link, or would not know an extra."""
    [told] = [text for name, text in contents(wheel).items() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(told.decode())
    body = str(metadata.get_payload())
    links = re.findall(r"\]\(([^)\s]+)\)", body)
    if relative := [link for link in links if "://" not in link]:
        sys.exit(f"{wheel.name}: expected absolute links in the README, got {relative[:3]}; see hatch_build.py")
    if missing := NEEDED - {*metadata.get_all("Provides-Extra", [])}:
        sys.exit(f"{wheel.name}: expected the extras {', '.join(sorted(NEEDED))}, {', '.join(missing)} is missing")
    names = {line.split(",")[0] for line in metadata.get_all("Project-URL", [])}
    print(f"{wheel.name}: {len(links)} links, all absolute; addresses: {', '.join(sorted(names))}")
    if "Repository" not in names:
        print("no address of a repository: README's links are words, its pictures are left out (CONTRIBUTING.md)")


def check_use(wheel: Path) -> None:
    """Install the wheel with its core dependencies alone; ask its version, for help, and for a diagnosis."""
    with tempfile.TemporaryDirectory() as folder:

        def run(*words: str) -> str:
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{' '.join(words)}: expected exit code 0, got {done.returncode}\n{done.stderr}")
            return done.stdout

        bare = Path(folder) / "bare" / "bin"
        run(sys.executable, "-m", "venv", "bare")
        pip = (f"{bare}/python", "-m", "pip", "--disable-pip-version-check")
        run(*pip, "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel.resolve()))
        installed = {line.split("==")[0].lower() for line in run(*pip, "list", "--format=freeze").splitlines()}
        if installed & EXTRAS:
            sys.exit(f"{wheel.name}: expected no package of an extra, got {sorted(installed & EXTRAS)}")
        version = run(f"{bare}/autopsae", "--version").strip()
        if version != f"autopsae {wheel.name.split('-')[1]}":
            sys.exit(f"{wheel.name}: expected the version of its name, got {version!r}")
        run(f"{bare}/autopsae", "--help")
        run(f"{bare}/python", "-c", SAMPLE)
        print(run(f"{bare}/autopsae", "diagnose", "tokens.npy", "--d-sae", "64", "--k", "8", "--json", "told.json"))
        if not (Path(folder) / "told.json").exists():
            sys.exit("autopsae diagnose: expected told.json, got no such file")
        _check_page(bare, Path(folder), run)
        print(f"{version}: installed with {len(installed)} packages, asked for help, diagnosed 2,000 tokens")


def _check_page(bare: Path, folder: Path, run: Callable[..., str]) -> None:
    """Without its extra `report` is one line; with it, the page holds the library that draws it."""
    words = (f"{bare}/autopsae", "report", "told.json", "--out", "report.html")
    pip = (f"{bare}/python", "-m", "pip", "--disable-pip-version-check")
    run(*pip, "uninstall", "-q", "-y", "jinja2")  # which PyTorch brings along
    refused = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    if refused.returncode != 2 or "pip install 'autopsae[page]'" not in refused.stderr:
        sys.exit(f"autopsae report: expected one line that names the extra, got\n{refused.stderr}")
    run(*pip, "install", "-q", "-c", str(ROOT / "constraints.txt"), "jinja2")
    run(*words)
    size = (folder / "report.html").stat().st_size
    if not 1_000_000 < size < 5_000_000:
        sys.exit(f"autopsae report: expected a page of 1 to 5 MB, with what draws its figures, got {size:,} bytes")


def main(folder: Path) -> None:
    """Check what lies in `folder`."""
    wheels, sources = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sources) != 1:
        sys.exit(f"{folder}: expected one wheel and one source distribution, got {len(wheels)} and {len(sources)}")
    for archive in (*wheels, *sources):
        check_contents(archive)
    check_metadata(wheels[0])
    check_use(wheels[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
