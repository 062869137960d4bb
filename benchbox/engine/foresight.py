"""Mistakes of a request that are told before torch is loaded: read from files of plug-ins, none of which is run.

Whatever is silent here is looked at again when plug-ins are loaded, in the same words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from benchbox.contract import reading
from benchbox.data.catalogue import KNOWN

if TYPE_CHECKING:
    from benchbox.contract.attack import Attack
    from benchbox.contract.defense import Defense
    from benchbox.contract.registry import Registry
    from benchbox.engine.request import Grid


def check(asked: Grid, defenses: Registry[Defense], attacks: Registry[Attack]) -> None:
    """Refuse plug-ins that cannot be loaded and settings that do not fit.

    Args:
        asked: The request.
        defenses: The plug-ins.
        attacks: The plug-ins.

    Raises:
        RequestError: A file is no Python or not there, a class is missing or does not say what it has to, a field
            is misspelt, or a value does not fit.
    """
    for registry, names in ((defenses, asked.defenses), (attacks, asked.attacks)):
        registry.read_files()
        for name in names:
            registry.read(name)
    for name, given in _settings(asked):
        for registry, names in ((defenses, asked.defenses), (attacks, asked.attacks)):
            if ".py:" in name and name not in names:
                continue
            written = registry.read(name)
            if written is not None:
                for scopes in _scopes(asked):
                    reading.fit(written, registry.kind, given, scopes)


def _settings(asked: Grid) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Plug-ins with the values of their fields, one of each axis at a time."""
    yield from asked.overrides.items()
    for axis, values in asked.axes.items():
        name, _, field = axis.rpartition(".")
        yield from ((name, {**asked.overrides.get(name, {}), field: value}) for value in values if name)


def _scopes(asked: Grid) -> Iterator[tuple[str, ...]]:
    """Data sets of the catalogue as departures are looked up by."""
    for dataset in asked.datasets:
        if dataset in KNOWN:
            yield KNOWN[dataset].family, dataset, asked.norm
