from pathlib import Path

import pytest

from autopsae.arrays import InputError
from autopsae.tables import check_table, flatten, html_table, save_table

pytestmark = pytest.mark.quick


def test_nested_names_are_joined_by_dots() -> None:
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": 3}}}) == {"a": 1, "b.c": 2, "b.d.e": 3}


def test_every_text_in_html_is_escaped() -> None:
    html = html_table(["<a>"], [["<b>", "1 & 2"]], ["<script>"])
    assert html == (
        "<table><thead><tr><th>&lt;a&gt;</th></tr></thead>"
        "<tbody><tr><td>&lt;b&gt;</td><td>1 &amp; 2</td></tr></tbody></table><ul><li>&lt;script&gt;</li></ul>"
    )


def test_the_verdict_stands_above_a_table_and_is_escaped() -> None:
    html = html_table(["a"], [["1"]], said=["<all> is well"])
    assert html.startswith('<p style="font-weight: bold; margin: 0.3em 0">&lt;all&gt; is well</p><table>')
    assert "<ul>" not in html


def test_a_csv_has_a_line_for_each_row_under_the_names(tmp_path: Path) -> None:
    save_table({"latent": [0, 1], "fate": ["alive", 'dead, "so"']}, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == 'latent,fate\n0,alive\n1,"dead, ""so"""\n'


def test_another_suffix_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected a table named \.csv or \.parquet, got '\.txt'"):
        check_table(Path("t.txt"))
