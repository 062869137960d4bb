"""Writes what README.md and these pages quote, from the evidence that is committed: `python docs/generate.py`.

Comments mark what is written; everything up to the next `<!-- end -->` is replaced:

    <!-- output: benchbox report … -->   what the command prints, 100 columns wide; `| head -n 9` cuts it;
                                         nothing while the file that it reads is not there
    <!-- published -->                   a section for each file of results/published
    <!-- file: docs/examples/… -->       the file
    <!-- figure: reports/figures/… -->   the first picture of that pattern, once there is one
    <!-- measured: FILE.json KEY -->     the rows under a key of what a benchmark wrote, as a table
    <!-- protocols -->                   who attacked what, by results/paper/protocols.toml
    <!-- recipes: NAMES SCOPES -->       what defences set of their own, by default and where a data set departs
    <!-- missing: NAME -->               what each row of results/published/NAME.json was not put to
    <!-- audited: NAME -->               how many images each of its rows was audited on
    <!-- departs: NAME -->               where the recipes of its rows depart from their authors' values
    <!-- proven: NAME -->                what its rows prove, beside what attacks leave of them

It also writes docs/command-line.md, which is not committed, from the command line itself. Nothing is trained.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import benchbox
from benchbox import Defense, Recipe
from benchbox.analysis.table import Row
from benchbox.cli import build, main
from benchbox.cli.show import field_docs
from benchbox.contract import registry
from benchbox.data.catalogue import KNOWN
from benchbox.engine import protocols

ROOT = Path(__file__).parents[1]
PUBLISHED = Path("results/published")
BLOCK = re.compile(
    r"<!-- (output|published|file|figure|measured|protocols|recipes|missing|audited|departs|proven)"
    r"(?:: (.+?))? -->\n"
    r"(.*?)<!-- end -->",
    re.DOTALL,
)
WIDTH = "100"
#: What fences a file of each kind.
LANGUAGES = {".py": "python", ".toml": "toml", ".txt": "text"}


def pages() -> list[Path]:
    """README and every page that is committed."""
    return [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").glob("*.md") if p.name != "command-line.md")]


def rewritten(text: str) -> str:
    """A page with everything that is marked written anew."""
    return BLOCK.sub(lambda block: f"{_head(block)}\n{_body(block[1], block[2])}<!-- end -->", text)


def output(command: str) -> str:
    """What a `benchbox` command prints, run in the root of the repository.

    Raises:
        SystemExit: It fails.
    """
    command, _, cut = command.partition(" | head -n ")
    words = shlex.split(command)
    assert words.pop(0) == "benchbox", command
    said = io.StringIO()
    with chdir(ROOT), redirect_stdout(said), mock.patch.dict(os.environ, {"COLUMNS": WIDTH, "NO_COLOR": "1"}):
        if status := main(words):
            raise SystemExit(f"{command} ends with status {status}")
    lines = [line.rstrip() for line in said.getvalue().strip("\n").splitlines()]
    return "\n".join(lines[: int(cut) if cut else None]) + "\n"


def measured(words: str) -> str:
    """Rows that a benchmark wrote, as a Markdown table; words are its file and a key."""
    file, key = words.split()
    rows = json.loads((ROOT / file).read_text("utf-8"))[key]
    lines = [list(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    right = [":---" if isinstance(value, str) else "---:" for value in rows[0].values()]
    return "\n" + "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], right, *lines[1:])) + "\n\n"


def recipes(words: str) -> str:
    """What defences set of their own as a Markdown table, a row for each field; words: names and scopes."""
    names, scopes = (part.split(",") for part in words.split())
    classes = {name: registry.defenses().get(name).cls for name in names}
    fields = {field: None for cls in classes.values() for field in cls.recipe_type.model_fields}
    meanings = {field: said for cls in classes.values() for field, said in field_docs(cls.recipe_type).items()}
    lines = [["field", "default", *scopes, "what it is"], [":---"] * (len(scopes) + 3)]
    for field in fields:
        if field in Recipe.model_fields or not meanings.get(field):
            continue
        values = [
            {
                name: _setting(cls, field, scope)
                for name, cls in classes.items()
                if field in cls.recipe_type.model_fields
            }
            for scope in ("", *scopes)
        ]
        if any(found not in ("", None) for by_name in values for found in by_name.values()):
            lines.append([f"`{field}`", *(_alike(by_name, names) for by_name in values), meanings[field]])
    return "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n\n"


def _setting(cls: type[Defense], field: str, scope: str) -> str:
    scopes = (KNOWN[scope].family, scope) if scope else ()
    value = getattr(cls.configure(*scopes), field)
    return " ".join(map(str, value)) or "none" if isinstance(value, tuple) else f"{value:g}" if value != "" else ""


def _alike(values: Mapping[str, str], names: Sequence[str]) -> str:
    """One value where all have it, else each with its name."""
    if len(set(values.values())) == 1 and list(values) == list(names):
        return next(iter(values.values()))
    return ", ".join(f"{name} {value}" for name, value in values.items())


def proven(name: str) -> str:
    """What the rows of a published file prove of their images, as a Markdown table; empty if nothing.

    Args:
        name: Of the file.
    """
    file = PUBLISHED / f"{name}.json"
    shown = ("clean", "certified", "robust")
    rows: dict[str, dict[str, str]] = {}
    for line in csv.DictReader(io.StringIO(output(f"benchbox report --store {file} --format csv"))):
        if line["measure"] in shown:
            numbers = [f"{float(line[end]):.1f}" for end in ("percent", "low", "high") if line[end]]
            said = "{} [{}, {}]".format(*numbers) if numbers else line["status"]
            rows.setdefault(line["defense"], {})[line["measure"]] = said
    lines = [[f"`{label}`", *(row[what] for what in shown)] for label, row in rows.items() if "certified" in row]
    head = [["defence", *shown], [":---", *["---:"] * len(shown)]]
    return "\n" + "\n".join(f"| {' | '.join(line)} |" for line in (*head, *lines)) + "\n\n" if lines else ""


def missing(name: str) -> Iterator[str]:
    """What the rows of a published file have not: attacks that others of their table were put to, and audits.

    Args:
        name: Of the file.
    """
    file = PUBLISHED / f"{name}.json"
    kinds = json.loads((ROOT / file).read_text("utf-8"))["defenses"]
    rows: dict[str, dict[str, list[str]]] = {}
    for line in csv.DictReader(io.StringIO(output(f"benchbox report --store {file} --format csv"))):
        row = rows.setdefault(line["defense"], {})
        # Without a purifier gray-box and bpda are white-box, which is a line of its own.
        twice = not kinds[line["defense"].split(" ")[0]]["purifies"] and line["access"] in ("gray-box", "bpda")
        if line["measure"] == "attack" and line["status"] == "not run" and not twice:
            row.setdefault(line["access"], []).append(line["attack"])
        if line["measure"] == "robust" and line["audit"] == "not audited":
            row["an audit"] = []
    for defense, accesses in rows.items():
        if accesses:
            yield f"`{defense}`: " + "; ".join(
                f"{access} {', '.join(them)}".strip() for access, them in accesses.items()
            )


def audited(name: str) -> Iterator[str]:
    """How many images the rows of a published file were audited on, and how many checks that left INCOMPLETE.

    Args:
        name: Of the file.
    """
    attached = json.loads((ROOT / PUBLISHED / f"{name}.json").read_text("utf-8"))["attachments"]
    audits = {one["record"]["artifact"]: one["record"] for one in attached if one["kind"] == "audit"}
    found: dict[int, list[str]] = {}
    for row in _rows(name):
        if row.artifact in audits:
            audit = audits[row.artifact]
            incomplete = sum(one["verdict"] == "INCOMPLETE" for one in audit["findings"])
            found.setdefault(len(audit["samples"]["indices"]), []).append(f"`{row.label}` {incomplete}")
    for images in sorted(found, reverse=True):
        yield f"{images} images: {', '.join(found[images])}"


def departs(name: str) -> Iterator[str]:
    """Where recipes of the rows of a published file depart from the defaults, which are their authors' values.

    Args:
        name: Of the file.
    """
    said: dict[str, None] = {}
    for row in _rows(name):
        defaults = registry.defenses().get(row.defense.name).cls.configure().model_dump(mode="json")
        changed = {
            field: (value, defaults[field])
            for field, value in row.defense.arguments.items()
            if field in defaults and value != defaults[field] and field != "network"
        }
        if changed:
            fields = ", ".join(
                f"{field} {_shown(ours)} for {_shown(theirs)}" for field, (ours, theirs) in changed.items()
            )
            said[f"`{row.label.partition(', seed')[0]}`: {fields}"] = None
    yield from said


def _rows(name: str) -> Sequence[Row]:
    """Of the longest list of images in a published file."""
    return max(benchbox.load(ROOT / PUBLISHED / f"{name}.json").tables, key=lambda table: len(table.samples)).rows


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


LISTS = {"missing": missing, "audited": audited, "departs": departs}


def command_line() -> str:
    """The reference of every command, from its own help."""
    import typer
    from typer.cli import get_docs_for_click

    command = typer.main.get_command(build())
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="benchbox", title="The command line")
    # Examples stand two columns in: a paragraph to Markdown, and a listing once they stand four.
    return re.sub(r"(?m)^  (?=\S)", "    ", text)


def _head(block: re.Match[str]) -> str:
    return block[0].partition("\n")[0]


def _body(kind: str, words: str | None) -> str:
    if kind == "published":
        return "\n".join(_sections()) or "Nothing is published yet.\n"
    if kind == "protocols":
        return (
            "\n" + "".join(f"- `--protocol {one.name}`: {one.said}\n" for one in protocols.every().values()) + "\n"
        )
    assert words is not None, f"<!-- {kind} --> needs to say what"
    if kind == "recipes":
        return recipes(words)
    if kind in LISTS:
        return "\n" + "".join(f"- {line}\n" for line in LISTS[kind](words)) + "\n"
    if kind == "proven":
        return proven(words)
    if kind == "file":
        return _fenced((ROOT / words).read_text("utf-8"), LANGUAGES[Path(words).suffix])
    if kind == "measured":
        return measured(words)
    if kind == "figure":
        return _picture(words)
    store = re.search(r"--store (\S+\.json)", words)
    if store and not (ROOT / store[1]).exists():
        return ""
    text = output(words)
    return f"\n{text}\n" if "--format markdown" in words else _fenced(text, "text")


def _picture(pattern: str) -> str:
    found = sorted(ROOT.glob(pattern))
    alt = "What the claim survives: accuracy by access and attack, beside what the paper prints"
    return f"\n![{alt}]({found[0].relative_to(ROOT)})\n\n" if found else ""


def _sections() -> Iterator[str]:
    # The file with the most evidence first.
    for path in sorted((ROOT / PUBLISHED).glob("*.json"), key=lambda path: (-path.stat().st_size, path.name)):
        here = PUBLISHED / path.name
        yield f"\n{output(f'benchbox report --store {here} --format markdown')}\nFrom `{here}`.\n"


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```\n"


if __name__ == "__main__":
    for page in pages():
        before = page.read_text("utf-8")
        if (after := rewritten(before)) != before:
            page.write_text(after, "utf-8")
            print(page.relative_to(ROOT), file=sys.stderr)
    (ROOT / "docs" / "command-line.md").write_text(command_line(), "utf-8")
