"""benchbox measures how much robustness a defence really has, keeps the evidence, and ranks defences by it.

`evaluate`, `attack`, `compare` and `load` are the way in from Python; a plug-in needs only the classes that are
exported here. The names load on first use, so that `import benchbox`
(and with it `benchbox --help`) costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchbox.api import attack as attack
    from benchbox.api import compare as compare
    from benchbox.api import evaluate as evaluate
    from benchbox.api import load as load
    from benchbox.contract.ascent import ascend as ascend
    from benchbox.contract.attack import Attack as Attack
    from benchbox.contract.classifier import Classifier as Classifier
    from benchbox.contract.classifier import ClassifierRecipe as ClassifierRecipe
    from benchbox.contract.defense import Batch as Batch
    from benchbox.contract.defense import Defense as Defense
    from benchbox.contract.defense import Losses as Losses
    from benchbox.contract.defense import Optimizer as Optimizer
    from benchbox.contract.defense import Purifier as Purifier
    from benchbox.contract.defense import Recipe as Recipe
    from benchbox.contract.defense import Schedule as Schedule
    from benchbox.contract.pretrained import Pretrained as Pretrained
    from benchbox.contract.pretrained import PretrainedRecipe as PretrainedRecipe
    from benchbox.contract.view import View as View
    from benchbox.domain import Access as Access
    from benchbox.domain import Card as Card
    from benchbox.domain import ImageSpec as ImageSpec
    from benchbox.domain import Nature as Nature
    from benchbox.domain import ThreatModel as ThreatModel
    from benchbox.draws import Draws as Draws
    from benchbox.errors import BenchboxError as BenchboxError
    from benchbox.result import Result as Result

_HOME = {
    "Access": "domain",
    "Attack": "contract.attack",
    "Batch": "contract.defense",
    "BenchboxError": "errors",
    "Card": "domain",
    "Classifier": "contract.classifier",
    "ClassifierRecipe": "contract.classifier",
    "Defense": "contract.defense",
    "Draws": "draws",
    "ImageSpec": "domain",
    "Nature": "domain",
    "Losses": "contract.defense",
    "Optimizer": "contract.defense",
    "Schedule": "contract.defense",
    "Pretrained": "contract.pretrained",
    "PretrainedRecipe": "contract.pretrained",
    "Purifier": "contract.defense",
    "Recipe": "contract.defense",
    "ThreatModel": "domain",
    "View": "contract.view",
    "Result": "result",
    "ascend": "contract.ascent",
    "attack": "api",
    "compare": "api",
    "evaluate": "api",
    "load": "api",
}

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'benchbox' has no attribute {name!r}")
    return getattr(importlib.import_module(f"benchbox.{_HOME[name]}"), name)
