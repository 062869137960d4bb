"""What the attacks of torchattacks are, by the library's own names; read off its code, version 3.5.1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchbox import Nature

_ONE_STEP = Nature("one-step", climbs=("cross-entropy",), steps=1)
_CROSS_ENTROPY = Nature("iterative", climbs=("cross-entropy",))
_LEAST = Nature("iterative", climbs=("margin",), families=("minimum norm",))
_SCORES = Nature("score-based", climbs=("margin",))

NATURES: Mapping[str, Nature] = {
    "VANILA": Nature("control"),
    "GN": Nature("random"),
    **dict.fromkeys(("FGSM", "FFGSM"), _ONE_STEP),
    **dict.fromkeys(("BIM", "RFGSM", "PGD", "EOTPGD", "PGDL2", "PGDRS", "PGDRSL2"), _CROSS_ENTROPY),
    **dict.fromkeys(("MIFGSM", "NIFGSM", "SINIFGSM", "VMIFGSM", "VNIFGSM"), _CROSS_ENTROPY),
    **dict.fromkeys(("DIFGSM", "TIFGSM", "PIFGSM", "PIFGSMPP"), _CROSS_ENTROPY),
    **dict.fromkeys(("UPGD", "APGD"), _CROSS_ENTROPY),  # unless their `loss` says otherwise
    "TPGD": Nature("iterative", climbs=("divergence",)),
    "Jitter": Nature("iterative", climbs=("scaled squared error",)),
    "APGDT": Nature("iterative", climbs=("dlr",), families=("targeted",), targets=9),
    "JSMA": Nature("iterative", climbs=("saliency",), families=("targeted",), targets=1),
    **dict.fromkeys(("CW", "DeepFool", "EADEN", "EADL1", "SparseFool", "FAB"), _LEAST),
    **dict.fromkeys(("Square", "SPSA"), _SCORES),
    **dict.fromkeys(("OnePixel", "Pixle"), Nature("score-based", climbs=("probability",))),
}
#: The library's words for the objectives that an argument `loss` chooses.
_LOSSES = {"ce": "cross-entropy", "dlr": "dlr", "margin": "margin"}
#: The library's names of the number of gradient steps.
_STEPS = ("steps", "num_iter_set", "max_iterations")


def nature(attack: str, settings: Mapping[str, Any]) -> Nature | None:
    """What an attack is, with the effort it is set to; None for one that this file does not know.

    Args:
        attack: The library's name.
        settings: Every argument of its constructor, defaults included.
    """
    found = NATURES.get(attack)
    if found is None:
        return None
    found = replace(found, restarts=settings.get("n_restarts", 1))
    if found.kind == "score-based":
        return replace(found, queries=_queries(settings))
    if found.kind != "iterative":
        return found
    if "loss" in settings:
        # Of a function of the caller's own nothing is known but that it is one.
        found = replace(found, climbs=(_LOSSES.get(settings["loss"], "another loss"),))
    if settings.get("multi_targeted"):
        found = replace(found, families=(*found.families, "targeted"), targets=settings["n_classes"] - 1)
    return replace(found, steps=next((settings[name] for name in _STEPS if name in settings), 0))


def _queries(settings: Mapping[str, Any]) -> int:
    """Queries a sample, at least; whichever of the library's names for them it has."""
    if "n_queries" in settings:
        return int(settings["n_queries"])
    if "nb_iter" in settings:  # SPSA asks on either side of the image
        return 2 * int(settings["nb_iter"]) * int(settings["nb_sample"])
    if "popsize" in settings:  # OnePixel: a generation a step
        return int(settings["steps"]) * int(settings["popsize"])
    return int(settings["restarts"]) * int(settings["max_iterations"])
