"""Exact labels of Python source, character by character, by Python's own `tokenize` and `ast`."""

import ast
import builtins
import io
import keyword
import tokenize
from collections.abc import Iterator, Sequence
from itertools import accumulate

from autopsae.arrays import InputError
from autopsae.features.annotations import Annotations
from autopsae.words import reason

DOMAINS = ("comment", "docstring", "string", "call arguments", "comprehension", "default value", "subscript")
"""Concepts whose spans are domains: recall counts spans, not tokens."""

_BRACKETS = {*"()[]{}"}
_BUILTINS = {name for name in dir(builtins) if name[0] != "_"}


def python_annotations(sources: Sequence[str]) -> Annotations:
    """The annotations of Python programs, in characters; document n is `sources[n]`.

    From `tokenize`: comment, string, number, keyword, every keyword of its own, operator, every operator of its
    own, bracket, indent. From `ast`: docstring, function name, class name, parameter, call (the name that is
    called), call arguments, attribute, import, decorator, builtin, comprehension, subscript, default value, self.

    Raises InputError, naming the document, for what this Python cannot parse.
    """
    rows = list[tuple[int, int, int, str]]()
    for number, source in enumerate(sources):
        try:
            place = _Places(source)
            spans = {*_of_tokens(source, place.starts), *_of_syntax(source, place)}
        except (SyntaxError, ValueError, tokenize.TokenError, RecursionError) as error:
            raise InputError(
                f"document {number}: expected Python that this version can parse ({reason(error)}); leave it out"
            ) from error
        rows += [(number, start, end, concept) for start, end, concept in sorted(spans) if end > start]
    return Annotations.of(rows, domains={*DOMAINS} & {row[3] for row in rows})


Span = tuple[int, int, str]


def _of_tokens(source: str, starts: list[int]) -> Iterator[Span]:
    for token in tokenize.generate_tokens(io.StringIO(source, newline="").readline):
        (row, column), (last_row, last_column) = token.start, token.end
        if last_row > len(starts):
            continue  # the end of the file
        start, end = starts[row - 1] + column, starts[last_row - 1] + last_column
        for concept in _concepts(token):
            yield start, end, concept


def _concepts(token: tokenize.TokenInfo) -> list[str]:
    kind = tokenize.tok_name[token.type]
    if kind == "STRING" or kind.startswith("FSTRING"):  # from Python 3.12 on, an f-string is several tokens
        return ["string"]
    if kind == "OP":
        return ["bracket"] if token.string in _BRACKETS else ["operator", f"operator {token.string}"]
    if kind == "NAME" and keyword.iskeyword(token.string):
        return ["keyword", f"keyword {token.string}"]
    return {"COMMENT": ["comment"], "NUMBER": ["number"], "INDENT": ["indent"]}.get(kind, [])


def _of_syntax(source: str, place: "_Places") -> Iterator[Span]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            concept = "class name" if isinstance(node, ast.ClassDef) else "function name"
            yield place.name_after(node, node.name, concept)
            yield from (place.of(decorator, "decorator") for decorator in node.decorator_list)
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if ast.get_docstring(node, clean=False) is not None:
                yield place.of(node.body[0], "docstring")
        elif isinstance(node, ast.Call):
            end = place.at(node.func.end_lineno, node.func.end_col_offset)
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield end - len(name), end, "call"
            for argument in [*node.args, *(word.value for word in node.keywords)]:
                yield place.of(argument, "call arguments")
        elif isinstance(node, ast.Attribute):
            end = place.at(node.end_lineno, node.end_col_offset)
            yield end - len(node.attr), end, "attribute"
        elif isinstance(node, ast.arg):
            start = place.at(node.lineno, node.col_offset)
            yield start, start + len(node.arg), "parameter"
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield place.of(node, "import")
        elif isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            yield place.of(node, "comprehension")
        elif isinstance(node, ast.Subscript):
            yield place.of(node.slice, "subscript")
        elif isinstance(node, ast.arguments):
            defaults = [*node.defaults, *(value for value in node.kw_defaults if value is not None)]
            yield from (place.of(value, "default value") for value in defaults)
        elif isinstance(node, ast.Name) and (node.id == "self" or node.id in _BUILTINS):
            yield place.of(node, "self" if node.id == "self" else "builtin")


class _Places:
    """From the lines and UTF-8 bytes of `ast` to characters of the source. starts: where each line starts, and the
    end.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        # As Python counts lines: a form feed or another separator of `str.splitlines` ends none.
        self._lines = [*io.StringIO(source, newline="")]
        self.starts = [0, *accumulate(map(len, self._lines))]

    def at(self, line: int | None, column: int | None) -> int:
        assert line is not None  # `ast.parse` always tells
        assert column is not None
        text = self._lines[line - 1]
        return self.starts[line - 1] + (
            column if text.isascii() else len(text.encode()[:column].decode(errors="ignore"))
        )

    def of(self, node: ast.expr | ast.stmt, concept: str) -> Span:
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset), concept

    def name_after(self, node: ast.stmt, name: str, concept: str) -> Span:
        """The name of a definition, which follows the word `def` or `class`; before that may stand `async`."""
        word = "class" if isinstance(node, ast.ClassDef) else "def"
        after = self._source.index(word, self.at(node.lineno, node.col_offset)) + len(word)
        start = self._source.index(name, after)
        return start, start + len(name), concept
