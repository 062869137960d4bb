"""Tables for a paper. The fragment needs the packages booktabs and graphicx, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchbox.report.document import Cited, Number

if TYPE_CHECKING:
    from benchbox.report.document import Column, Document, Grid, Section, Value

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "'": r"{'}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # at the start of a line LaTeX would read it as an option of the row before
    "]": "{]}",
    "*": "{*}",  # likewise
    "=": "$=$",
    "…": r"\ldots{}",
    "–": "--",
    "×": r"$\times$",
    "✗": r"$\times$",
    "·": r"$\cdot$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "§": r"$^\S$",
    "±": r"$\pm$",
    "→": r"$\to$",
    "−": "$-$",
    "≈": r"$\approx$",
    "≥": r"$\ge$",
    "≤": r"$\le$",
    "Σ": r"$\Sigma$",
    "‖": r"$\|$",
    "⟨": r"$\langle$",
    "⟩": r"$\rangle$",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "∞": r"$_\infty$",
    "ε": r"$\varepsilon$",
    "α": r"$\alpha$",
    "λ": r"$\lambda$",
}
#: LaTeX has the accented letters of western Europe in any encoding, but for these four.
_OUTSIDE_TEX = re.compile(r"[^\x20-\x7eÀ-ÖØ-öø-ÿ]|[ÐÞðþ]")
#: What hangs over behind a number.
_MARKS = "…†‡§"
_NEEDS = r"% Needs \usepackage{booktabs,graphicx}."
#: A tabular wider than the page is shrunk to its width; one that fits keeps its size.
_FITTED = r"\resizebox{\ifdim\width>\linewidth \linewidth\else\width\fi}{!}{%"
_PREAMBLE = (
    r"\documentclass[10pt]{article}",
    # T1 without these fonts is set in bitmaps, whose words nobody can search or copy.
    r"\IfFileExists{lmodern.sty}{\usepackage[T1]{fontenc}\usepackage{lmodern}}{}",
    r"\usepackage{textcomp}",
    r"\usepackage[a4paper,margin=15mm]{geometry}",
    r"\usepackage{booktabs,graphicx}",
    r"\pagestyle{empty}",
    r"\begin{document}",
)


def render(document: Document, *, standalone: bool = False, groups: bool = False) -> str:
    """One `table*` for the columns without group of each grid, or a whole document.

    Args:
        document: What to print.
        standalone: Whether the text compiles on its own, papers included.
        groups: Whether each group of columns follows as a table of its own.
    """
    lines = [line for section in document.sections for line in _section(section, groups)]
    lines = lines or ["No results yet." if standalone else "% No results yet."]
    papers = list(_bibliography(document))
    return "\n".join([*_PREAMBLE, *lines, *papers, r"\end{document}", ""] if standalone else [_NEEDS, *lines, ""])


def escape(text: object) -> str:
    """Text that LaTeX prints as it is, on one line; a character it may have no glyph for by code point."""
    line = " ".join(str(text).split())
    safe = "".join(_SPECIAL.get(c) or _OUTSIDE_TEX.sub(_by_code_point, c) for c in line.replace("–", "\0"))
    return safe.replace("--", "-{}-").replace("(U+0000)", "--")


def _section(section: Section, groups: bool) -> Iterator[str]:
    for number, grid in enumerate(section.grids):
        last = number == len(section.grids) - 1
        shown = section.caption or (f"{section.title}: {grid.caption}." if grid.caption else f"{section.title}.")
        yield from _float(shown, _main(grid), _said(section, groups) if last else (), grid.label)
        for group in grid.groups if groups else ():
            yield ""
            under = grid.grouping[1].format(group)
            yield from _float(f"{section.title}: {under}.", _group(grid, [grid.head, *grid.under(group)]))
    if not section.grids:
        yield from _said(section, groups)
    if section.brief is not None and not groups:
        yield from (
            f"% {escape(line)}" for line in (*section.notes, *section.remarks) if line not in section.brief
        )


def _float(caption: str, tabular: Iterable[str], below: Iterable[str] = (), label: str = "") -> Iterator[str]:
    yield from (r"\begin{table*}[htbp]", r"\centering", r"\setlength{\tabcolsep}{4pt}")
    # The classes leave the caption's space below it, for figures: a table's rule would touch it.
    yield r"\setlength{\abovecaptionskip}{0pt}\setlength{\belowcaptionskip}{6pt}"
    yield f"\\caption{{{escape(caption)}}}" + (f"\\label{{{label}}}" if label else "")
    yield from (_FITTED, *tabular, "}", *below, r"\end{table*}")


def _main(grid: Grid) -> Iterator[str]:
    """The columns without group, a row on a line."""
    chosen = grid.under("")
    columns = [grid.columns[i] for i in chosen]
    yield f"\\begin{{tabular}}{{{''.join(map(_specification, columns))}}}"
    yield from (r"\toprule", _row(map(_heading, columns)), r"\midrule")
    for number, row in enumerate(grid.rows):
        if number in grid.blocks:
            yield from [r"\midrule"] if number else []
        if grid.blocks.get(number):
            yield f"\\multicolumn{{{len(columns)}}}{{l}}{{\\textit{{{escape(grid.blocks[number])}}}}} \\\\"
        values = [row[i] for i in chosen]
        yield from _stacked(values) if grid.stacks else [_row(map(_value, values, columns))]
    yield from (r"\bottomrule", r"\end{tabular}")


def _group(grid: Grid, chosen: Sequence[int]) -> Iterator[str]:
    """A group: its numbers, with what belongs to them below."""
    head, *columns = (grid.columns[i] for i in chosen)
    yield f"\\begin{{tabular}}{{l*{{{len(columns)}}}{{r}}}}"
    yield from (r"\toprule", _row([_heading(head), *(escape(column.title) for column in columns)]), r"\midrule")
    for row in grid.rows:
        yield from _stacked([row[i] for i in chosen])
    yield from (r"\bottomrule", r"\end{tabular}")


def _stacked(values: Sequence[Value]) -> Iterator[str]:
    """A line of numbers, one of intervals, and one of published numbers, where there are some."""
    numbers = [value if isinstance(value, Number) else Number("") for value in values]
    yield _row([_aligned(value) if isinstance(value, Number) else _words(value) for value in values])
    if intervals := any(number.interval for number in numbers):
        yield _row([r"[-3pt]", *(_small(r"\tiny", number.interval) for number in numbers[1:])])
    if beside := any(number.beside for number in numbers):
        texts = (f"({number.beside.text})" if number.beside else "" for number in numbers[1:])
        yield _row([r"[-2pt]", *(_small(r"\scriptsize", text) for text in texts)])
    if intervals or beside:
        yield r"\addlinespace"


def _said(section: Section, groups: bool) -> Iterator[str]:
    """The small print; the numbered notes are about numbers of the groups."""
    brief = None if groups else section.brief
    notes = section.notes if brief is None else ()
    said = [*section.sentences, *(section.remarks if brief is None else brief)]
    if not (notes or said or section.verdict):
        return
    yield from ("", r"\medskip", r"\begin{minipage}{0.95\linewidth}", r"\footnotesize")
    yield from (f"$^{{{number}}}$ {escape(note)}\\\\" for number, note in enumerate(notes, start=1))
    yield from map(escape, said)
    if section.verdict is not None:
        yield f"\n\\normalsize\\textbf{{{escape(section.verdict.text)}}}"
    yield r"\end{minipage}"


def _bibliography(document: Document) -> Iterator[str]:
    """The papers, so that the text needs no BibTeX."""
    found = {source.key: source.text for section in document.sections for source in section.bibliography}
    if found:
        yield r"\begin{thebibliography}{99}\raggedright"
        yield from (f"\\bibitem{{{key}}} {escape(text)}" for key, text in found.items())
        yield r"\end{thebibliography}"


def _row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _specification(column: Column[Any]) -> str:
    return f"p{{{column.paragraph}mm}}" if column.paragraph else column.align[0]


def _heading(column: Column[Any]) -> str:
    title = column.title
    if len(title) == 1 and title.isalpha():
        return f"${title}$"
    return escape(title.capitalize() if title.isalpha() and title.islower() and not column.names else title)


def _value(value: Value, column: Column[Any]) -> str:
    if isinstance(value, Number):
        beside = f"({value.beside.text})" if value.beside else ""
        parts = (_figure(value), _small(r"\tiny", value.interval), _small(r"\scriptsize", beside))
        return " ".join(filter(None, parts))
    text = _words(value)
    return rf"{{\footnotesize {text}}}" if column.paragraph else text


def _words(value: Value) -> str:
    text = rf"\textbf{{{escape(value.text)}}}" if value.strong else escape(value.text)
    return rf"{text}~\cite{{{value.key}}}" if isinstance(value, Cited) and value.key else text


def _aligned(number: Number) -> str:
    """With its marks hanging over, so that digits stand below digits."""
    digits = number.text.rstrip(_MARKS)
    if number.notes or digits in ("", number.text):
        return _figure(number)
    return _figure(replace(number, text=digits)) + rf"\rlap{{{escape(number.text[len(digits) :])}}}"


def _figure(number: Number) -> str:
    text = rf"\textbf{{{escape(number.text)}}}" if number.strong else escape(number.text)
    return f"{text}$^{{{','.join(map(str, number.notes))}}}$" if number.notes else text


def _small(size: str, text: str) -> str:
    return f"{{{size} {escape(text)}}}" if text else ""


def _by_code_point(found: re.Match[str]) -> str:
    return f"(U+{ord(found.group()):04X})"
