"""Tables for a paper. The fragment needs `\\usepackage{booktabs}` and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from benchbox.report.document import Number

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
    '"': r"\textquotedbl{}",
    "'": r"{'}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # at the start of a line LaTeX would read it as an option of the row before
    "]": "{]}",
    "*": "{*}",  # likewise
    "=": "$=$",
    "…": r"\ldots{}",
    "–": "--",
    "×": r"$\times$",
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
_OUTSIDE_TEX = re.compile(r"[^\x20-\x7e]")
_PREAMBLE = (
    r"\documentclass[10pt]{article}",
    r"\usepackage[T1]{fontenc}",
    r"\usepackage{textcomp}",
    r"\usepackage[a4paper,margin=15mm]{geometry}",
    r"\usepackage{booktabs}",
    r"\pagestyle{empty}",
    r"\begin{document}",
)


def render(document: Document, *, standalone: bool = False) -> str:
    """One `table*` for the columns without group and one for each group, or a whole document.

    Args:
        document: What to print.
        standalone: Whether the text compiles on its own.
    """
    lines = [line for section in document.sections for line in _section(section)]
    lines = lines or ["No results yet." if standalone else "% No results yet."]
    return "\n".join([*_PREAMBLE, *lines, r"\end{document}", ""] if standalone else [*lines, ""])


def escape(text: object) -> str:
    """Text that LaTeX prints as it is, on one line; a character it may have no glyph for by code point."""
    line = " ".join(str(text).split())
    safe = "".join(_SPECIAL.get(c) or _OUTSIDE_TEX.sub(_by_code_point, c) for c in line.replace("–", "\0"))
    return safe.replace("--", "-{}-").replace("(U+0000)", "--")


def _section(section: Section) -> Iterator[str]:
    for number, grid in enumerate(section.grids):
        last = number == len(section.grids) - 1
        yield from _float(_captioned(section.title, grid.caption), _main(grid), _said(section) if last else ())
        for group in grid.groups:
            yield ""
            caption = _captioned(section.title, grid.grouping[1].format(group))
            yield from _float(caption, _group(grid, [grid.head, *grid.under(group)]))
    if not section.grids:
        yield from _said(section)


def _captioned(title: str, shown: str) -> str:
    return escape(f"{title}: {shown}." if shown else f"{title}.")


def _float(caption: str, tabular: Iterable[str], below: Iterable[str] = ()) -> Iterator[str]:
    yield from (r"\begin{table*}[htbp]", r"\centering", r"\setlength{\tabcolsep}{4pt}")
    yield f"\\caption{{{caption}}}"
    yield from (*tabular, *below, r"\end{table*}")


def _main(grid: Grid) -> Iterator[str]:
    """The columns without group, a row on a line."""
    chosen = grid.under("")
    columns = [grid.columns[i] for i in chosen]
    yield f"\\begin{{tabular}}{{{''.join(map(_specification, columns))}}}"
    yield from (r"\toprule", _row(map(_heading, columns)), r"\midrule")
    yield from (_row(_value(row[i], grid.columns[i]) for i in chosen) for row in grid.rows)
    yield from (r"\bottomrule", r"\end{tabular}")


def _group(grid: Grid, chosen: Sequence[int]) -> Iterator[str]:
    """A group: a line of numbers, one of intervals, and one of published numbers where there are some."""
    head, *columns = (grid.columns[i] for i in chosen)
    yield f"\\begin{{tabular}}{{l*{{{len(columns)}}}{{r}}}}"
    yield from (r"\toprule", _row([_heading(head), *(escape(column.title) for column in columns)]), r"\midrule")
    for row in grid.rows:
        name, *values = (row[i] for i in chosen)
        numbers = [value if isinstance(value, Number) else Number(value.text) for value in values]
        yield _row([escape(name.text), *(_figure(number) for number in numbers)])
        if any(number.interval for number in numbers):
            yield _row([r"[-2pt]", *(_small(r"\tiny", number.interval) for number in numbers)])
        if any(number.beside for number in numbers):
            beside = (f"({number.beside.text})" if number.beside else "" for number in numbers)
            yield _row([r"[-1pt]{\scriptsize as published}", *(_small(r"\scriptsize", text) for text in beside)])
        yield r"\addlinespace"
    yield from (r"\bottomrule", r"\end{tabular}")


def _said(section: Section) -> Iterator[str]:
    yield from ("", r"\medskip", r"\begin{minipage}{0.95\linewidth}", r"\footnotesize")
    yield from (f"$^{{{number}}}$ {escape(note)}\\\\" for number, note in enumerate(section.notes, start=1))
    yield from map(escape, (*section.sentences, *section.remarks))
    if section.verdict is not None:
        yield f"\n\\normalsize\\textbf{{{escape(section.verdict.text)}}}"
    yield r"\end{minipage}"


def _row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _specification(column: Column[Any]) -> str:
    return f"p{{{column.paragraph}mm}}" if column.paragraph else column.align[0]


def _heading(column: Column[Any]) -> str:
    title = column.title
    if len(title) == 1 and title.isalpha():
        return f"${title}$"
    return escape(title.capitalize() if title.isalpha() else title)


def _value(value: Value, column: Column[Any]) -> str:
    if isinstance(value, Number):
        beside = f"({value.beside.text})" if value.beside else ""
        parts = (_figure(value), _small(r"\tiny", value.interval), _small(r"\scriptsize", beside))
        return " ".join(filter(None, parts))
    text = rf"\textbf{{{escape(value.text)}}}" if value.strong else escape(value.text)
    return rf"{{\footnotesize {text}}}" if column.paragraph else text


def _figure(number: Number) -> str:
    text = rf"\textbf{{{escape(number.text)}}}" if number.strong else escape(number.text)
    return f"{text}$^{{{','.join(map(str, number.notes))}}}$" if number.notes else text


def _small(size: str, text: str) -> str:
    return f"{{{size} {escape(text)}}}" if text else ""


def _by_code_point(found: re.Match[str]) -> str:
    return f"(U+{ord(found.group()):04X})"
