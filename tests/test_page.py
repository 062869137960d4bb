"""The leaderboard in a browser: sorting, search, filters, rows that open, addresses, downloads, and no way out."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rows import BPDA, CHROMIUM, GRAY, TRANSFER, WHITE, evidence, failed

from benchbox import report
from benchbox.analysis.background import Background
from benchbox.domain import Evidence, ThreatModel
from benchbox.figures.style import ACCESS_COLOURS
from benchbox.figures.survival import inline
from benchbox.report.latex import escape

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `test`)")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
ATTACK = "=<img src=x onerror=alert(1)>"
BREAKOUT = '"></template><script>alert(2)</script>'
AUDIT = {
    "threat": {"norm": "linf", "epsilon": 0.3},
    "summary": {"integrity": [], "masking": ["B1"], "attack": [], "counts": {"FAIL": 1}},
    "findings": [{"check": "B1", "verdict": "FAIL", "sentence": "the gradient is zero on 97 % of the images"}],
    "standing": {"said": ["gray-box alone would report 98.0 %"]},
}


def board() -> list[Evidence]:
    small = {"threat": ThreatModel("linf", 0.1)}
    return [
        *(evidence("pssr", WHITE, attack, right) for attack, right in (("pgd", 0), ("fgsm", 12))),
        evidence("pssr", BPDA, "pgd", 40, stand_in="identity"),
        evidence("pssr", TRANSFER, "pgd", 80),
        evidence("pssr", GRAY, "pgd", 98),
        *(evidence("pgd-at", WHITE, attack, right) for attack, right in (("pgd", 90), ("fgsm", 95))),
        evidence("pgd-at", TRANSFER, "pgd", 96),
        *(evidence("none", WHITE, attack, right, clean=100) for attack, right in (("pgd", 0), ("fgsm", 30))),
        evidence(ATTACK, WHITE, "pgd", 50, arguments={"note": BREAKOUT}),
        failed(evidence(ATTACK, WHITE, "fgsm", arguments={"note": BREAKOUT}), ATTACK),
        evidence("trades", WHITE, "pgd", 70, **small),
    ]


def made(items: list[Evidence]) -> str:
    known = Background(audits={item.cell.artifact: AUDIT for item in items if item.cell.defense.name == "pssr"})
    return report.render(report.tabulate(items, known), "html", draw=inline)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "leaderboard.html"
    path.write_text(made(board()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=CHROMIUM,
            args=FLAGS,
            viewport={"width": 1400, "height": 900},
            accept_downloads=True,
        )
        opened.set_default_timeout(10_000)
        yield opened
        opened.close()


@pytest.fixture
def page(context: BrowserContext, file: Path) -> Iterator[Page]:
    """The page, freshly opened; afterwards, nothing has been said, asked for or run that should not have been."""
    opened, heard = context.new_page(), []
    opened.on("console", lambda message: heard.append(message.text))
    opened.on("pageerror", lambda error: heard.append(str(error)))
    opened.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
    opened.on("request", lambda asked: asked.url.startswith(("file:", "blob:")) or heard.append(asked.url))
    opened.goto(file.as_uri())
    yield opened
    opened.close()
    assert heard == []


def names(page: Page) -> list[str]:
    """The defences that are seen, from top to bottom."""
    return page.locator("[role=tabpanel]:visible tbody .open").all_inner_texts()


def sees(page: Page, *wanted: str) -> None:
    """Wait until these defences are seen, in this order: the table is sorted a moment after the click."""
    playwright.expect(page.locator("[role=tabpanel]:visible tbody .open")).to_have_text(list(wanted))


def keys_of(heads: Locator) -> set[str]:
    """The columns."""
    return set(heads.evaluate_all("found => found.map((th) => th.dataset.key)"))


def heading(page: Page, key: str) -> str:
    return f'[role=tabpanel]:not([hidden]) th[data-key="{key}"] .dt-column-order'


def to(page: Page, file: Path, **state: str) -> None:
    """Open an address as a link would: from elsewhere."""
    from urllib.parse import urlencode

    page.goto("about:blank")
    page.goto(f"{file.as_uri()}#{urlencode(state)}")


def address(page: Page) -> dict[str, str]:
    from urllib.parse import parse_qsl, urlsplit

    return dict(parse_qsl(urlsplit(page.url).fragment))


def row_of(page: Page, name: str) -> str:
    found = page.locator("tr[data-id]", has_text=name).first.get_attribute("data-id")
    assert found is not None
    return found


def test_it_opens_on_the_ranking_by_worst_case(page: Page) -> None:
    assert page.get_by_role("tab", selected=True).inner_text().startswith("mnist, L∞ ε = 0.1")
    page.get_by_role("tab", name="0.3").click()
    assert names(page)[0] == "pgd-at"
    heads = page.locator("[role=tabpanel]:visible thead th:visible").all_inner_texts()
    accesses = [str(access) for access in (WHITE, BPDA, TRANSFER, GRAY)]
    order = [next(i for i, text in enumerate(heads) if access in text) for access in accesses]
    assert order == sorted(order)
    assert any("the paper's claim" in text for text in heads)
    pssr = page.locator("tr[data-id]", has_text="pssr")
    assert "0.0 [0.0, 3.6]" in pssr.locator("td.robust").inner_text().replace("‡", "").replace("\n", " ")
    assert pssr.locator("td.robust .bar.lost").count() == 1


def test_sorting_by_any_column(page: Page, file: Path) -> None:
    to(page, file, tab="mnist-linf-0.3")
    page.locator(heading(page, "clean")).click()
    sees(page, "none", ATTACK, "pssr", "pgd-at")
    assert address(page)["sort"] == "clean-desc"
    page.locator(heading(page, "defense")).click()
    sees(page, *sorted(names(page), key=str.lower))
    page.locator(heading(page, "defense")).press("Enter")
    sees(page, *sorted(names(page), key=str.lower, reverse=True))
    assert address(page)["sort"] == "defense-desc"


def test_search_and_filters(page: Page, file: Path) -> None:
    to(page, file, tab="mnist-linf-0.3")
    page.get_by_label("Search").fill("pss")
    sees(page, "pssr")
    assert page.locator("#count").inner_text() == "1 of 4 defences"
    page.get_by_label("Search").fill("")
    page.get_by_label("Kind").select_option("purifies the image")
    sees(page, "pssr")
    page.get_by_label("Kind").select_option("")
    page.get_by_label("Attacker").select_option("transfer")
    assert set(names(page)) == {"pgd-at", "pssr"}
    heads = page.locator("[role=tabpanel]:visible thead th:visible")
    assert {"transfer pgd", "under transfer", "robust"} <= keys_of(heads)
    assert not {"white-box pgd", "under white-box"} & keys_of(heads)
    assert address(page) == {"tab": "mnist-linf-0.3", "access": "transfer"}


def test_a_click_and_enter_open_a_row(page: Page, file: Path) -> None:
    to(page, file, tab="mnist-linf-0.3")
    page.locator("tr[data-id]", has_text="pssr").locator("td.robust").click()
    opened = page.get_by_role("dialog").inner_text()
    for said in (
        "0.0 % of 100 images",
        "identity",
        "[0.0, 3.6]",
        "gradient is zero on 97 % of the images",
        "Gradients are masked",
        "gray-box alone would report 98.0 %",
        "41 + 40",
        "benchbox run --defense pssr",
        "abc123",
        "training seed",
        "@article{fu2024invariance",
    ):
        assert said in opened
    assert page.get_by_role("dialog").locator("svg").first.is_visible()
    link = page.get_by_role("dialog").get_by_role("link")
    assert link.get_attribute("href") == "https://arxiv.org/abs/2402.00304"
    page.keyboard.press("Escape")
    # The dialog tells of its end in an event of its own, which may come a moment later.
    page.wait_for_function("!location.hash.includes('row=')")
    assert not page.get_by_role("dialog").is_visible()
    page.get_by_role("button", name="pgd-at").focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog").get_by_role("heading", level=2).inner_text() == "pgd-at"
    assert address(page)["row"].startswith("pgd-at-")
    page.go_back()
    assert not page.get_by_role("dialog").is_visible()


def test_an_address_leads_back_to_what_was_seen(page: Page, file: Path) -> None:
    page.get_by_role("tab", name="0.3").click()
    row = row_of(page, "pssr")
    to(page, file, tab="mnist-linf-0.3", sort="defense-desc", q="p", row=row, theme="dark")
    assert page.get_by_role("dialog").get_by_role("heading", level=2).inner_text() == "pssr"
    page.keyboard.press("Escape")
    sees(page, "pssr", "pgd-at")
    assert page.get_by_label("Search").input_value() == "p"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    page.get_by_role("button", name="Switch between").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    to(page, file, tab="nowhere", sort="nothing-up", row="nobody", kind="odd", access="magic")
    sees(page, "trades")


def test_arrow_keys_go_through_the_tabs(page: Page) -> None:
    page.get_by_role("tab", selected=True).press("ArrowRight")
    assert page.get_by_role("tab", selected=True).inner_text().startswith("mnist, L∞ ε = 0.3")
    assert len(names(page)) == 4


@pytest.mark.parametrize("kind", ["CSV", "JSON", "LaTeX"])
def test_downloads_hold_what_is_seen(page: Page, file: Path, kind: str, tmp_path: Path) -> None:
    to(page, file, tab="mnist-linf-0.3", sort="defense-asc", kind="classifier alone", access="white-box")
    with page.expect_download() as waiting:
        page.get_by_role("button", name=kind).click()
    text = Path(waiting.value.path()).read_text(encoding="utf-8")
    assert "gray-box" not in text
    seen = [ATTACK, "none", "pgd-at"]
    if kind == "CSV":
        lines = list(csv.DictReader(text.splitlines()))
        assert [line["defense"] for line in lines] == [f"'{ATTACK}", *seen[1:]]  # no formula to a spreadsheet
        assert float(lines[2]["white-box pgd"]) == 90
        assert 82 < float(lines[2]["white-box pgd low"]) < 90 < float(lines[2]["white-box pgd high"])
        assert lines[0]["white-box fgsm"] == "failed"
    elif kind == "JSON":
        rows = json.loads(text)["rows"]
        assert [row["defense"] for row in rows] == seen
        assert rows[2]["white-box pgd"]["percent"] == 90
    else:
        assert text.count("\\\\") == 4
        assert escape(ATTACK) in text
        assert text.splitlines()[6].startswith(r"$\approx$1 & pgd-at & 90.0 & ")


def test_a_name_is_only_a_name(page: Page, file: Path) -> None:
    to(page, file, tab="mnist-linf-0.3")
    assert ATTACK in names(page)
    page.get_by_role("button", name=ATTACK).click()
    assert ATTACK in page.get_by_role("dialog").inner_text()
    assert "</template><script>alert(2)" in page.get_by_role("dialog").inner_text()
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2


def test_the_policy_forbids_the_network_and_other_scripts(file: Path, context: BrowserContext) -> None:
    smuggled = "<main><img src='https://127.0.0.1:9/x' onerror='window.ran=1'><script>window.ran=2</script>"
    broken = file.with_name("broken.html")
    broken.write_text(file.read_text(encoding="utf-8").replace("<main>", smuggled), encoding="utf-8")
    opened, asked = context.new_page(), []
    opened.on("requestfinished", lambda request: asked.append(request.url))
    opened.goto(broken.as_uri())
    opened.evaluate("fetch('https://127.0.0.1:9/y').catch(() => 0)")
    assert opened.evaluate("window.ran") is None
    assert [url for url in asked if "127.0.0.1" in url] == []
    opened.close()


def test_an_access_has_the_colour_it_has_in_figures(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert all(f"--{access}: {colour};" in text for access, colour in ACCESS_COLOURS.items())


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_cut_off(page: Page, file: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    to(page, file, tab="mnist-linf-0.3")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    first = page.locator("tr[data-id]", has_text="pssr")
    for key in ("rank", "defense", "robust", "audit"):
        box = first.locator(f".{key}").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    page.set_viewport_size({"width": 1400, "height": 900})


@pytest.fixture(scope="module")
def axe(pytestconfig: pytest.Config) -> str:
    """The script of axe-core, fetched once by npm."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("axe-core")
    script = folder / "package" / "axe.min.js"
    if not script.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm, which fetches axe-core, is not installed")
        command = [npm, "pack", "axe-core@4"]
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
        packed = next(folder.glob("axe-core-*.tgz"), None)
        if done.returncode or packed is None:
            pytest.skip("axe-core cannot be fetched")
        shutil.unpack_archive(packed, folder, filter="data")
    return script.read_text(encoding="utf-8")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("opened", [False, True])
def test_axe_finds_no_violation(page: Page, file: Path, axe: str, theme: str, opened: bool) -> None:
    page.get_by_role("tab", name="0.3").click()
    row = {"row": row_of(page, "pssr")} if opened else {}
    to(page, file, tab="mnist-linf-0.3", theme=theme, **row)
    if not opened:
        page.get_by_text("How to read this").click()
    page.evaluate(axe)
    found = page.evaluate("axe.run()")
    said = [(v["id"], v["nodes"][0]["html"][:200], v["nodes"][0]["failureSummary"]) for v in found["violations"]]
    assert said == []


def test_equal_results_give_equal_bytes() -> None:
    code = "import test_page as t; print(__import__('hashlib').sha256(t.made(t.board()).encode()).hexdigest())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
