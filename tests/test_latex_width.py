"""LaTeX tables on a page: none is wider than the text, and one that fits is not shrunk."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rows import GRAY, evidence
from typeset import TEX, article, compiled, read

import benchbox
from benchbox import report
from benchbox.analysis.paper_layout import Layout


@TEX
def test_no_published_table_is_wider_than_the_page(tmp_path: Path) -> None:
    published = benchbox.load("published")
    documents = (
        published.paper_table(Layout(1)),
        published.paper_table(Layout(1), paper=True, intervals=True),
        benchbox.load("published", dataset="mnist").document(),
    )
    fragments = "".join(report.render(one, "latex") for one in documents)
    for option in ("onecolumn", "twocolumn"):
        assert r"Overfull \hbox" not in compiled(tmp_path, article(fragments, option))


@TEX
def test_a_table_that_fits_keeps_its_size(tmp_path: Path) -> None:
    text = report.render(report.paper_table([evidence("pssr", GRAY, "pgd")], layout=Layout(1)), "latex")
    (fitted,) = (line for line in text.splitlines() if line.startswith(r"\resizebox"))
    found = []
    for fragment in (text, text.replace(fitted, r"\mbox{%")):
        compiled(tmp_path, article(fragment))
        found.append([float(number) for number in re.findall(r'[xy]M..="([\d.]+)"', read(tmp_path, "-bbox"))])
    assert found[0]
    assert found[0] == pytest.approx(found[1], abs=0.1)
