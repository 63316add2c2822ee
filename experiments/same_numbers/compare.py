"""Do two trees of the library give the same numbers, to the bit?

    python -m experiments.same_numbers.compare --before CHECKOUT [--after CHECKOUT] [--work FOLDER] [--texts]

Both trees run the command lines of `verbs.py` and the calls of `measured.py` on the same files. All that they write
is compared under `key_map.py`. Exit code 1 if anything differs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from experiments.same_numbers import key_map
from experiments.same_numbers.inputs import write_inputs
from experiments.same_numbers.paths import matches, rename
from experiments.same_numbers.verbs import HALF, Verb, verbs
from experiments.same_numbers.written import Value, read_folder

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NOT_NUMBERS = ("printed", "plan.json", "configs", *HALF)


@dataclass(kw_only=True)
class Comparison:
    """What two tables of numbers have in common and what not."""

    same: list[str] = field(default_factory=list)
    """Paths (as after) of equal values."""
    different: dict[str, tuple[Value, Value]] = field(default_factory=dict)
    """Path (as after) -> the values before and after."""
    before_only: list[str] = field(default_factory=list)
    """Paths as before."""
    after_only: list[str] = field(default_factory=list)
    """Paths as after."""
    texts: dict[str, tuple[Value, Value]] = field(default_factory=dict)
    """Sentences that differ; they may."""
    excused: int = 0
    """Paths that the map says are ignored, added or removed."""
    unused: list[str] = field(default_factory=list)
    """Rules of the map that nothing matches."""

    @property
    def equal(self) -> bool:
        """Whether no number differs, and none is missing or new."""
        return not (self.different or self.before_only or self.after_only)


def compare(before: Mapping[str, Value], after: Mapping[str, Value], rules: Any = key_map) -> Comparison:
    """Both tables under the rules of the map. Raises ValueError where two paths get one name."""
    found, used = Comparison(), Counter[str]()

    def excused(path: str, kinds: Mapping[str, str]) -> bool:
        fitting = [pattern for pattern in kinds if matches(pattern, path)]
        used.update(fitting)
        return bool(fitting)

    names: dict[str, str] = {}
    for path in before:
        if excused(path, rules.IGNORED):
            found.excused += 1
            continue
        new = path
        for old_pattern, new_pattern in rules.RENAMED:
            renamed = rename(new, old_pattern, new_pattern)
            used[f"{old_pattern} -> {new_pattern}"] += renamed is not None
            new = renamed or new
        if new in names:
            raise ValueError(f"{names[new]} and {path} are both renamed to {new}; mend key_map.RENAMED")
        names[new] = path
    for new, path in names.items():
        if new not in after:
            gone = excused(path, rules.REMOVED)
            found.excused += gone
            found.before_only += [] if gone else [path]
            continue
        value = before[path]
        for pattern, old_word, new_word in rules.VALUES:
            if value == old_word and matches(pattern, new):
                used[f"{pattern}: {old_word} -> {new_word}"] += 1
                value = new_word
        if repr(value) == repr(after[new]):
            found.same.append(new)
        else:
            (found.texts if _is_text(value, after[new]) else found.different)[new] = (value, after[new])
    for path in after:
        if path not in names and not excused(path, rules.IGNORED):
            added = excused(path, rules.ADDED)
            found.excused += added
            found.after_only += [] if added else [path]
    told = [*rules.IGNORED, *rules.REMOVED, *rules.ADDED, *(f"{old} -> {new}" for old, new in rules.RENAMED)]
    told += [f"{pattern}: {old} -> {new}" for pattern, old, new in rules.VALUES]
    found.unused = [rule for rule in told if not used[rule]]
    return found


def _is_text(*values: Value) -> bool:
    """Sentences, not names: a name has no space in it."""
    return all(isinstance(value, str) and (" " in value or not value) for value in values)


def translated(verb: Verb, folder: Path, options: Mapping[tuple[str, str], key_map.Option]) -> Verb:
    """The verb in the words of the tree after; settings that are no options any more go into a JSON in `folder`."""
    kept: list[str] = []
    config: dict[str, Any] = {}
    values = list(verb.words)
    while values:
        word = values.pop(0)
        given: list[str] = []
        if word.startswith("--"):
            while values and not values[0].startswith("--"):
                given.append(values.pop(0))
        option = options.get((verb.words[0], word))
        if option is not None and option.config is not None:
            *parts, name = option.config.split(".")
            inner = config
            for part in parts:
                inner = inner.setdefault(part, {})
            inner[name] = _setting(given) if given else option.value
        elif option is not None:
            kept += [option.name or word, *([",".join(given)] if option.commas else given)]
        else:
            kept += [word, *given]
    if config:
        place = folder / "configs" / f"{verb.name}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(config))
        kept += ["--config", str(place)]
    return replace(verb, words=tuple(kept))


def _setting(given: list[str]) -> Any:
    if len(given) != 1:
        return given
    try:
        return json.loads(given[0])
    except json.JSONDecodeError:
        return given[0]


def run_tree(tree: Path, folder: Path, tokens: Path, before: Path, options: Mapping[Any, Any]) -> dict[str, Value]:
    """All that the tree writes, into `folder`. Raises CalledProcessError where the tree cannot be run at all."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("diagnose", "autopsy", "converted", "python"):
        (folder / name).mkdir(parents=True)
    plan = []
    for verb in [translated(verb, folder, options) for verb in verbs()]:
        places = {"tokens": str(tokens), "before": str(before)}
        words = [word.format(**places) for word in verb.words]
        copied = [place.format(**places) for place in verb.copied] if verb.copied else None
        plan.append({**asdict(verb), "words": words, "copied": copied})
    (folder / "plan.json").write_text(json.dumps(plan, indent=1))
    environment = {
        **os.environ,
        **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "NUMBA", "OPENBLAS")},
        "PYTHONPATH": f"{tree / 'src'}{os.pathsep}{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_CACHE_DIR": str(folder.parent / "numba"),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "100",
    }
    check = (
        "import autopsae, pathlib, sys; sys.exit(not pathlib.Path(autopsae.__file__).is_relative_to(sys.argv[1]))"
    )
    for words in (
        ["-c", check, str(tree)],
        ["-m", "experiments.same_numbers.measured", str(tokens)],
        ["-m", "experiments.same_numbers.serve", "plan.json"],
    ):
        subprocess.run([sys.executable, *words], cwd=folder, env=environment, check=True)
    _check_codes(folder)
    return read_folder(folder, without=NOT_NUMBERS)


def _check_codes(folder: Path) -> None:
    """Say which verbs did not end as they should, and with what words."""
    codes = json.loads((folder / "verbs.json").read_text())
    for verb in verbs():
        if codes[verb.name] != verb.code:
            said = (folder / "printed" / f"{verb.name}.txt").read_text()[-400:].strip()
            print(f"{folder.name}: {verb.name}: expected code {verb.code}, got {codes[verb.name]}: {said}")


def _fingerprint(tree: Path) -> str:
    """Of the tree's modules and of what is asked here: the numbers before are made once for them."""
    hashed = sha256()
    for path in sorted([*(tree / "src").rglob("*.py"), *HERE.glob("*.py")]):
        if path.name not in ("key_map.py", "compare.py", "paths.py"):
            hashed.update(str(path).encode() + path.read_bytes())
    return hashed.hexdigest()


def numbers(before: Path, after: Path, work: Path) -> tuple[dict[str, Value], dict[str, Value]]:
    """Those of both trees. What the tree before wrote stays in `work`, and is not made again for the same files."""
    tokens, first, kept = work / "tokens", work / "before", work / "before.json"
    told = json.loads(kept.read_text()) if kept.exists() else {}
    if told.get("fingerprint") != _fingerprint(before):
        kept.unlink(missing_ok=True)
        write_inputs(tokens)
        told = {"numbers": run_tree(before, first, tokens, first, {}), "fingerprint": _fingerprint(before)}
        kept.write_text(json.dumps(told))
    return told["numbers"], run_tree(after, work / "after", tokens, first, key_map.OPTIONS)


def report(found: Comparison, *, texts: bool = False) -> str:
    """The table, a row per folder, and a line for every difference."""

    def by_folder(paths: Any) -> Counter[str]:
        return Counter(path.split("/")[0] for path in paths)

    columns = [by_folder(p) for p in (found.same, found.different, found.before_only, found.after_only)]
    lines = [f"{'':32}{'compared':>10}{'different':>11}{'only before':>13}{'only after':>12}"]
    for name in sorted(set().union(*columns)):
        same, different, before, after = (column[name] for column in columns)
        lines.append(f"{name:32}{same + different:10,}{different:11,}{before:13,}{after:12,}")
    n = len(found.same) + len(found.different)
    lines += [f"different: {path}: {old!r} -> {new!r}" for path, (old, new) in found.different.items()]
    lines += [f"only before: {path}" for path in found.before_only]
    lines += [f"only after: {path}" for path in found.after_only]
    lines += [f"text: {path}: {old!r} -> {new!r}" for path, (old, new) in found.texts.items() if texts]
    lines += [f"rule without use: {rule}" for rule in found.unused]
    lines.append(
        f"{n:,} numbers compared, {len(found.different):,} different, {len(found.before_only):,} only before, "
        f"{len(found.after_only):,} only after ({len(found.texts):,} sentences differ, {found.excused:,} paths are "
        "excused by the map)"
    )
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--before", type=Path, required=True, help="a checkout; nothing is written into it")
    parser.add_argument("--after", type=Path, default=ROOT, help="another one (default: this one)")
    parser.add_argument("--work", type=Path, help="a folder that keeps what both write (default: none is kept)")
    parser.add_argument("--texts", action="store_true", help="show sentences that differ")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (told.work or Path(temporary)).resolve()
        found = compare(*numbers(told.before.resolve(), told.after.resolve(), work))
        print(report(found, texts=told.texts))
    return 0 if found.equal else 1


if __name__ == "__main__":
    sys.exit(main())
