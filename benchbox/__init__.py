"""benchbox measures how much robustness a defence really has, keeps the evidence, and ranks defences by it.

A plug-in needs only what is exported here. The names load on first use, so that `import benchbox`
(and with it `benchbox --help`) costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchbox.ascent import ascend as ascend
    from benchbox.attack import Attack as Attack
    from benchbox.classifier import Classifier as Classifier
    from benchbox.classifier import ClassifierRecipe as ClassifierRecipe
    from benchbox.defense import Batch as Batch
    from benchbox.defense import Defense as Defense
    from benchbox.defense import Losses as Losses
    from benchbox.defense import Optimizer as Optimizer
    from benchbox.defense import Purifier as Purifier
    from benchbox.defense import Recipe as Recipe
    from benchbox.defense import Schedule as Schedule
    from benchbox.domain import Access as Access
    from benchbox.domain import Card as Card
    from benchbox.domain import ImageSpec as ImageSpec
    from benchbox.domain import ThreatModel as ThreatModel
    from benchbox.draws import Draws as Draws
    from benchbox.errors import BenchboxError as BenchboxError
    from benchbox.pretrained import Pretrained as Pretrained
    from benchbox.pretrained import PretrainedRecipe as PretrainedRecipe
    from benchbox.view import View as View

_HOME = {
    "Access": "domain",
    "Attack": "attack",
    "Batch": "defense",
    "BenchboxError": "errors",
    "Card": "domain",
    "Classifier": "classifier",
    "ClassifierRecipe": "classifier",
    "Defense": "defense",
    "Draws": "draws",
    "ImageSpec": "domain",
    "Losses": "defense",
    "Optimizer": "defense",
    "Schedule": "defense",
    "Pretrained": "pretrained",
    "PretrainedRecipe": "pretrained",
    "Purifier": "defense",
    "Recipe": "defense",
    "ThreatModel": "domain",
    "View": "view",
    "ascend": "ascent",
}

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'benchbox' has no attribute {name!r}")
    return getattr(importlib.import_module(f"benchbox.{_HOME[name]}"), name)
