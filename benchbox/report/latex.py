"""Tables for a paper. The fragment needs `\\usepackage{booktabs}` and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchbox.analysis.records import Table

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


def render(tables: Sequence[Table], *, standalone: bool = False) -> str:
    """One `table*` for the ranking and one for each access, or a whole document.

    Args:
        tables: What to print.
        standalone: Whether the text compiles on its own.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("benchbox.report"),
        undefined=StrictUndefined,
        autoescape=False,  # TeX is no HTML: the template passes every text through `tex`
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["tex"] = escape
    return environment.get_template("table.tex.j2").render(tables=tables, standalone=standalone)


def escape(text: object) -> str:
    """Text that LaTeX prints as it is, on one line; a character it may have no glyph for by code point."""
    line = " ".join(str(text).split())
    safe = "".join(_SPECIAL.get(c) or _OUTSIDE_TEX.sub(_by_code_point, c) for c in line.replace("–", "\0"))
    return safe.replace("--", "-{}-").replace("(U+0000)", "--")


def _by_code_point(found: re.Match[str]) -> str:
    return f"(U+{ord(found.group()):04X})"
