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
    from benchbox.contract.absent import supplied as supplied
    from benchbox.contract.ascent import LOOK as LOOK
    from benchbox.contract.ascent import Loss as Loss
    from benchbox.contract.ascent import ascend as ascend
    from benchbox.contract.ascent import cross_entropy as cross_entropy
    from benchbox.contract.ascent import direction as direction
    from benchbox.contract.ascent import margin as margin
    from benchbox.contract.ascent import sparse_sign as sparse_sign
    from benchbox.contract.ascent import unit as unit
    from benchbox.contract.attack import Attack as Attack
    from benchbox.contract.classifier import Classifier as Classifier
    from benchbox.contract.classifier import ClassifierRecipe as ClassifierRecipe
    from benchbox.contract.deciding import DecidingPurifier as DecidingPurifier
    from benchbox.contract.defense import Batch as Batch
    from benchbox.contract.defense import Defense as Defense
    from benchbox.contract.defense import Losses as Losses
    from benchbox.contract.defense import Purifier as Purifier
    from benchbox.contract.pretrained import Pretrained as Pretrained
    from benchbox.contract.pretrained import PretrainedRecipe as PretrainedRecipe
    from benchbox.contract.pretrained import Shelf as Shelf
    from benchbox.contract.pretrained import weights_file as weights_file
    from benchbox.contract.ranges import Count as Count
    from benchbox.contract.ranges import NonNegative as NonNegative
    from benchbox.contract.ranges import Positive as Positive
    from benchbox.contract.ranges import Share as Share
    from benchbox.contract.ranges import Whole as Whole
    from benchbox.contract.recipe import Optimizer as Optimizer
    from benchbox.contract.recipe import Recipe as Recipe
    from benchbox.contract.recipe import Schedule as Schedule
    from benchbox.contract.stand_ins import stand_in as stand_in
    from benchbox.contract.stand_ins import straight_through as straight_through
    from benchbox.contract.stepwise import StepwisePurifier as StepwisePurifier
    from benchbox.contract.view import MEAN_GRADIENT as MEAN_GRADIENT
    from benchbox.contract.view import Trail as Trail
    from benchbox.contract.view import View as View
    from benchbox.contract.weightfile import read_weights as read_weights
    from benchbox.domain import TOLERANCE as TOLERANCE
    from benchbox.domain import Access as Access
    from benchbox.domain import Card as Card
    from benchbox.domain import ImageSpec as ImageSpec
    from benchbox.domain import Nature as Nature
    from benchbox.domain import Norm as Norm
    from benchbox.domain import ThreatModel as ThreatModel
    from benchbox.draws import Draws as Draws
    from benchbox.draws import sample_draws as sample_draws
    from benchbox.errors import ArtifactError as ArtifactError
    from benchbox.errors import AttackError as AttackError
    from benchbox.errors import BenchboxError as BenchboxError
    from benchbox.errors import DataError as DataError
    from benchbox.errors import DefenseError as DefenseError
    from benchbox.errors import RequestError as RequestError
    from benchbox.errors import StoreError as StoreError
    from benchbox.errors import uninstalled as uninstalled
    from benchbox.errors import unknown as unknown
    from benchbox.result import Result as Result

#: Where each name comes from.
HOME = {
    "attack": "api",
    "compare": "api",
    "evaluate": "api",
    "load": "api",
    "supplied": "contract.absent",
    "LOOK": "contract.ascent",
    "ascend": "contract.ascent",
    "sparse_sign": "contract.ascent",
    "unit": "contract.ascent",
    "cross_entropy": "contract.ascent",
    "Loss": "contract.ascent",
    "direction": "contract.ascent",
    "margin": "contract.ascent",
    "Attack": "contract.attack",
    "Classifier": "contract.classifier",
    "ClassifierRecipe": "contract.classifier",
    "DecidingPurifier": "contract.deciding",
    "Batch": "contract.defense",
    "Defense": "contract.defense",
    "Losses": "contract.defense",
    "Optimizer": "contract.recipe",
    "Purifier": "contract.defense",
    "Recipe": "contract.recipe",
    "Schedule": "contract.recipe",
    "Pretrained": "contract.pretrained",
    "PretrainedRecipe": "contract.pretrained",
    "read_weights": "contract.weightfile",
    "Shelf": "contract.pretrained",
    "weights_file": "contract.pretrained",
    "Count": "contract.ranges",
    "NonNegative": "contract.ranges",
    "Positive": "contract.ranges",
    "Share": "contract.ranges",
    "Whole": "contract.ranges",
    "stand_in": "contract.stand_ins",
    "straight_through": "contract.stand_ins",
    "StepwisePurifier": "contract.stepwise",
    "MEAN_GRADIENT": "contract.view",
    "Trail": "contract.view",
    "View": "contract.view",
    "Access": "domain",
    "Card": "domain",
    "ImageSpec": "domain",
    "Nature": "domain",
    "TOLERANCE": "domain",
    "Norm": "domain",
    "ThreatModel": "domain",
    "Draws": "draws",
    "sample_draws": "draws",
    "ArtifactError": "errors",
    "AttackError": "errors",
    "BenchboxError": "errors",
    "DataError": "errors",
    "DefenseError": "errors",
    "RequestError": "errors",
    "StoreError": "errors",
    "uninstalled": "errors",
    "unknown": "errors",
    "Result": "result",
}

__all__ = sorted(HOME)
__version__ = "0.1.0"


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in HOME:
        raise AttributeError(f"module 'benchbox' has no attribute {name!r}")
    return getattr(importlib.import_module(f"benchbox.{HOME[name]}"), name)
