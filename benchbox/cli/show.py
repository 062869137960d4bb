"""`benchbox show`: everything that is known of one plug-in or of one cell."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchbox.cli import listing, options
from benchbox.cli.command import command
from benchbox.cli.console import output
from benchbox.contract.misnamed import misnamed
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from benchbox.contract.attack import Attack
    from benchbox.contract.defense import Defense
    from benchbox.contract.registry import Plugin, Registry
    from benchbox.domain import Card, Cell, Evidence


@command(
    "benchbox show pssr",
    "benchbox show pgd",
    "benchbox show pssr/white-box/pgd",
    "benchbox show 3fa9c1 --store results/benchbox.sqlite",
)
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A defence, an attack, or a stored cell: the start of its key, or DEFENSE/ACCESS/ATTACK.",
        ),
    ],
    store: options.Store = options.DEFAULT_STORE,
    no_workspace: options.NoWorkspace = False,
) -> None:
    """Show a defence with its recipe, an attack with its settings, or a stored cell.

    `benchbox list cells` has the keys of cells.
    """
    if listing.is_path(name):
        _show_cell(name, store)
        return
    defenses, attacks = options.plugins(workspace=not no_workspace)
    known = [*defenses.names(), *attacks.names()]
    if listing.CELL_KEY.fullmatch(name) and name not in known:
        _show_cell(name, store)
        return
    plugin = _plugin(name, (defenses, attacks), known)
    if hasattr(plugin.cls, "recipe_type"):
        _show_defense(plugin)
    else:
        _show_attack(plugin)


def _plugin(name: str, registries: Sequence[Registry[Any]], known: Sequence[str]) -> Plugin[Any]:
    """Of the first kind that has it; a name nobody has is compared with those of both kinds."""
    failures: list[RequestError] = []
    for registry in registries:
        try:
            return registry.get(name)
        except RequestError as error:
            if name in registry.names():
                raise
            failures.append(error)
    raise failures[0] if ":" in name else misnamed("defence, attack or cell", name, known)


def _show_defense(plugin: Plugin[Defense]) -> None:
    from benchbox.contract.defense import Defense

    cls = plugin.cls
    proves = {} if cls.certified is Defense.certified else {"proves": "its answers, in the balls that it can do"}
    facts = {
        **_card(cls.card, plugin),
        **proves,
        "randomised": "yes" if cls.randomized else "no",
        "builds on": cls.base or "nothing",
        "stand-ins": "\n".join(f"{name}: {text}" for name, text in cls.stand_ins.items()) or "none",
        "deployable": "yes" if cls.deployable else "no: it knows what no defence can know, and is never ranked",
    }
    defaults = {name: field.default for name, field in cls.recipe_type.model_fields.items()}
    output().print(_facts(facts), _fields("recipe", defaults, cls.recipe_type, cls.recipes))


def _show_attack(plugin: Plugin[Attack]) -> None:
    cls = plugin.cls
    facts = {
        **_card(cls.card, plugin),
        "needs": cls.needs,
        "run by --attacks all under": ", ".join(cls.standard) or "nothing; ask for it by name",
    }
    defaults = {
        field.name: None if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(cls)
    }
    output().print(_facts(facts), _fields("settings", {**defaults, **plugin.preset}, cls, cls.settings))


def _show_cell(name: str, store: str) -> None:
    from benchbox.store import Store

    with Store.open(store, must_exist=True) as opened:
        records = listing.found_by(name, opened, store)
        if len(records) > 1:
            listing.print_cells(records)
            raise RequestError(f"{len(records)} cells are {name!r}; give the key of one, as listed")
        found = opened.evidence(keys=[records[0].cell.key])
        transfer = opened.attached(found[0].cell.key, "transfer")
    console = output()
    console.print(_facts(_outcome(found[0])))
    for title, record in (
        ("transfer", transfer),
        ("cell", _brief(found[0].cell)),
        ("provenance", found[0].provenance),
    ):
        if record:
            console.print(f"{title}: {json.dumps(record, indent=2, ensure_ascii=False)}", soft_wrap=True)


def _brief(cell: Cell) -> dict[str, Any]:
    """Its record, without a line for each image."""
    from benchbox.report.document import listed

    record = cell.as_dict()
    return {**record, "samples": {**record["samples"], "indices": listed(cell.samples.indices)}}


def _card(card: Card, plugin: Plugin[Any]) -> dict[str, str]:
    return {
        "name": plugin.name,
        "what it is": card.summary,
        "paper": card.paper,
        "year": str(card.year or ""),
        "kind": card.kind,
        "origin": plugin.origin,
        "code": plugin.code,
    }


def _outcome(evidence: Evidence) -> dict[str, str]:
    cell, outcome = evidence.cell, evidence.outcome
    facts = {"key": cell.key, "status": evidence.status, "images": f"{len(outcome)} of {len(cell.samples)}"}
    if evidence.error:
        facts["error"] = evidence.error
    if len(outcome):
        facts |= {
            "clean accuracy": f"{outcome.clean_correct.mean():.2%}",
            "accuracy under the attack": f"{outcome.robust.mean():.2%}",
            **_certified(evidence),
            **_draws(evidence),
            "largest change of a pixel": f"{outcome.linf.max():.4f}",
            "forward + backward passes": f"{outcome.forwards.mean():.0f} + {outcome.backwards.mean():.0f}",
        }
    return {**facts, "seconds": f"{evidence.seconds:.1f}", "run": f"{evidence.run}, {evidence.created}"}


def _certified(evidence: Evidence) -> dict[str, str]:
    """What the defence proves of these images, unless this very attack refutes it."""
    from benchbox.analysis.certificate import certificate
    from benchbox.report.remarks import of_certificate

    found = certificate([evidence])
    if found is None or evidence.outcome.certified is None:
        return {}
    return {"certified": of_certificate(found) or f"{evidence.outcome.certified.mean():.2%}"}


def _draws(evidence: Evidence) -> dict[str, str]:
    """How a randomised defence was scored, and what its attacker averaged over."""
    from benchbox.analysis.score import measure

    cell, draws = evidence.cell, evidence.outcome.adversarial.shape[1]
    extra = measure(evidence).extra
    facts = {"scoring draws": str(draws)}
    for name, said in (
        ("majority_vote", f"majority vote of {draws}"),
        ("worst_of_r", f"right in all {draws}"),
        ("fixed_seed", "one fixed seed (the first draw)"),
    ):
        if name in extra:
            facts[f"  {said}"] = f"{extra[name]:.2f}%"
    if cell.eot > 1:
        facts["EOT draws"] = f"{cell.eot}, {cell.averaging or 'averaging not recorded'}"
    return facts


def _facts(facts: Mapping[str, str]) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def _fields(
    title: str, defaults: Mapping[str, Any], documented: type, departures: Mapping[str, Mapping[str, Any]]
) -> Group:
    """One row a field: its default and what each data set or family departs to; below, what it means."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    values = Table(box=box.SIMPLE_HEAD, title=f"\n{title}", title_justify="left", title_style="bold")
    for column in ("field", "default", *departures):
        values.add_column(column, overflow="fold", no_wrap=column == "field")
    for name, default in defaults.items():
        own = (_short(departures[scope].get(name, "")) for scope in departures)
        values.add_row(name, _short(default), *own)
    meanings = field_docs(documented)
    # Beside the values there is no room for words in a terminal of usual width.
    return Group(values, _facts({name: meanings.get(name, "") for name in defaults}))


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def field_docs(cls: type) -> dict[str, str]:
    """What the `Attributes:` sections of a class and of those it derives from say, by attribute."""
    found: dict[str, str] = {}
    for ancestor in reversed(cls.__mro__):
        found |= dict(_attributes(inspect.cleandoc(ancestor.__dict__.get("__doc__") or "")))
    return found


def _attributes(docstring: str) -> Iterator[tuple[str, str]]:
    _, _, section = docstring.partition("Attributes:\n")
    # The section ends where the text is no longer indented.
    indented = re.split(r"^(?=\S)", section, maxsplit=1, flags=re.MULTILINE)[0]
    for entry in re.split(r"^ {4}(?=\S)", indented, flags=re.MULTILINE):
        name, colon, text = entry.partition(":")
        if colon:
            yield name.strip(), " ".join(text.split())
