"""The pages: what they quote is what the commands give, and the commands they show run."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import sys
from pathlib import Path

import pytest
import typer
import yaml

import benchbox
from benchbox.cli import build, main

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"(?:<!-- ([\w-]+) -->\n)?```(sh|python)\n(.*?)```", re.DOTALL)
#: Words that mark what a test runs; README's are .ci/run's.
RUN = "run"

spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
assert spec is not None
assert spec.loader is not None
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)

PAGES = [*generate.pages(), ROOT / "CONTRIBUTING.md"]


def named(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


def lines(block: str) -> list[list[str]]:
    """The commands of a block, word by word; a backslash continues a line."""
    joined = block.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def marked(page: Path) -> list[tuple[str, str]]:
    return [(kind, code) for mark, kind, code in FENCE.findall(page.read_text("utf-8")) if mark == RUN]


@named(PAGES)
def test_a_page_quotes_what_its_commands_print(page: Path) -> None:
    text = page.read_text("utf-8")
    assert generate.rewritten(text) == text, "run `python docs/generate.py`"


@named(PAGES)
def test_every_command_of_a_page_is_understood(page: Path) -> None:
    """Commands, options and files there are, also of what takes too long to be run here."""
    for _, kind, code in FENCE.findall(page.read_text("utf-8")):
        for words in lines(code) if kind == "sh" else ():
            for command in " ".join(words).split(" && "):
                one = command.split()
                if one[0] == "benchbox":
                    understand(one[1:])
                    for grid in (value for option, value in itertools.pairwise(one) if option == "--grid"):
                        assert (ROOT / grid).is_file(), grid


def understand(words: list[str]) -> None:
    """What `typer` makes of the words, without doing it."""
    command = typer.main.get_command(build())
    with command.make_context("benchbox", list(words)) as context:
        while hasattr(command, "resolve_command"):
            _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
            context = command.make_context("benchbox", words, parent=context)


@named([page for page in PAGES if marked(page)])
def test_the_marked_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for kind, code in marked(page):
        if kind == "python":
            exec(code, names)
            continue
        for words in lines(code):
            assert words[0] == "benchbox", f"only benchbox is run here: {words}"
            assert main(words[1:]) == 0, words


def test_what_rounding_defends_is_worth_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README's demonstration, on fewer images."""
    monkeypatch.chdir(tmp_path)
    cls = generate_example("rounding").Rounding
    result = benchbox.evaluate(
        cls, dataset="digits", attacks="pgd", access=["white-box", "bpda"], samples=60, set={"none": {"epochs": 5}}
    )
    left = {row.access: row.percent for row in result.to_dataframe().itertuples() if row.attack == "pgd"}
    assert left["white-box"] > 80
    assert left["bpda"] < 5


def generate_example(name: str) -> object:
    found = importlib.util.spec_from_file_location(name, ROOT / "docs" / "examples" / "defenses" / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


def test_what_the_rows_of_a_file_lack_is_said() -> None:
    (table,) = benchbox.load(ROOT / "results/published/mnist.json").tables
    said = dict(line.removeprefix("`").split("`: ") for line in generate.missing("mnist"))
    assert set(said) == {row.label for row in table.rows if row.missing or row.badge.state == "not audited"}
    for row in table.rows:
        lacking = [f"{column.access} {column.attack}" for column in row.missing]
        for part in filter(None, said.get(row.label, "").split("; ")):
            access, names = part.split(" ", 1)
            assert part == "an audit" or {f"{access} {name}" for name in names.split(", ")} <= set(lacking)


def test_how_many_images_each_row_was_audited_on_is_said() -> None:
    (table,) = benchbox.load(ROOT / "results/published/mnist.json").tables
    said = dict(line.split(" images: ") for line in generate.audited("mnist"))
    assert list(said) == ["100", "20", "10"]
    named = [label for rows in said.values() for label in re.findall(r"`(.+?)` \d", rows)]
    assert sorted(named) == sorted(row.label for row in table.rows if row.badge.state != "not audited")


def test_where_the_recipes_of_a_file_depart_is_read_off_its_rows() -> None:
    said = dict(line.removeprefix("`").split("`: ") for line in generate.departs("mnist"))
    assert said["none"] == "epochs 5 for 200, schedule onecycle for constant"
    assert "lambda_gradient 10 for 110" in said["grad-reg"]
    assert "jpeg" not in said  # has nothing that departs


def test_what_the_rows_of_a_file_prove_is_said_beside_what_attacks_leave() -> None:
    (table,) = benchbox.load(ROOT / "results/published/mnist.json").tables
    proving = {row.label: row for row in table.rows if row.certificate}
    said = dict(line[3:].split("` | ") for line in generate.proven("mnist").splitlines() if line.startswith("| `"))
    assert said.keys() == proving.keys()
    for label, row in proving.items():
        numbers = [f"{score} {score.interval}" for score in (row.clean.score, row.certified, row.robust) if score]
        assert said[label] == f"{' | '.join(numbers)} |"
    assert generate.proven("cifar10") == ""


def test_what_defences_set_of_their_own_is_read_off_their_recipes() -> None:
    table = generate.recipes("diffpure,gdmp digits")
    assert "| `t_star` | diffpure 0.1, gdmp 0.036 | diffpure 0.2, gdmp 0.1 |" in table
    assert "| `rounds` | gdmp 4 | gdmp 2 | How often" in table
    assert "| `attention` | 1 | none | Resolutions" in table
    assert "epochs" not in table  # every recipe has them


def test_every_page_is_in_the_menu() -> None:
    class Loader(yaml.SafeLoader):
        """The extensions of Markdown are Python names."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, suffix, node: suffix)
    menu = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader)["nav"]
    shown = set(flat(menu))
    there = {page.name for page in generate.pages() if page.name != "README.md"}
    assert shown == there | {"command-line.md", "first-steps.ipynb"}


def flat(menu: object) -> list[str]:
    if isinstance(menu, str):
        return [menu]
    values = menu.values() if isinstance(menu, dict) else menu
    return [page for one in values for page in flat(one)]  # type: ignore[attr-defined]


def test_the_reference_has_every_name_and_every_command() -> None:
    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    assert sorted(re.findall(r"^::: benchbox\.(\w+)$", page, re.MULTILINE)) == sorted(benchbox.__all__)
    text = generate.command_line()
    for name in typer.main.get_command(build()).commands:  # type: ignore[attr-defined]
        assert f"\n## `benchbox {name}`\n" in text
    assert "\n    benchbox run --defense pssr --dataset digits --attacks all\n" in text


def test_readme_is_a_page() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 100
