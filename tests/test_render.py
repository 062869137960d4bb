"""What is committed under reports/ is what the published files give, without training and without torch."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REPORTS = ROOT / "reports"
SVG = re.compile(rb"<svg.*?</svg>", re.DOTALL)


@pytest.mark.skipif(not list(REPORTS.glob("leaderboard.*")), reason="nothing is rendered yet")
def test_the_committed_reports_are_those_of_the_published_results(tmp_path: Path) -> None:
    code = (
        "import sys; from benchbox.cli import main; status = main(sys.argv[1:]);"
        "sys.exit(status or ('torch is loaded' if 'torch' in sys.modules else 0))"
    )
    words = ["render", "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    committed = {
        path.relative_to(REPORTS) for path in REPORTS.rglob("*") if path.is_file() and path.name[0] != "."
    }
    assert made == committed
    drawn_with = (REPORTS / "figures/drawn-with.txt").read_text().split()[1]
    for name in sorted(made - {Path("figures/drawn-with.txt")}):
        one, other = (tmp_path / name).read_bytes(), (REPORTS / name).read_bytes()
        if version("matplotlib") != drawn_with:
            # Another version draws other paths; everything else is compared all the same.
            one, other = SVG.sub(b"", one), SVG.sub(b"", other)
        assert one == other, f"{name} is not what `benchbox render` makes of results/published"
