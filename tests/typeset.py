"""A document as LaTeX sets it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

TEX = pytest.mark.skipif(
    None in (shutil.which("pdflatex"), shutil.which("pdftotext")), reason="pdflatex or pdftotext is not installed"
)


def compiled(folder: Path, text: str) -> str:
    """What LaTeX says of a document that it compiles; it lies in the folder as table.pdf."""
    (folder / "table.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "table.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def read(folder: Path, how: str) -> str:
    """What stands on the pages of table.pdf, as pdftotext says it."""
    command = ["pdftotext", how, "table.pdf", "-"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True).stdout


def article(fragment: str, option: str = "10pt") -> str:
    """One with a fragment in it, and with the packages that it needs."""
    head = f"\\documentclass[{option}]{{article}}\\usepackage{{booktabs,graphicx}}"
    return f"{head}\\begin{{document}}\n{fragment}\\end{{document}}"
