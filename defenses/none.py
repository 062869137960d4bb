"""No defence: the plainly trained classifier that the others are measured against.

X. Fu, Y. Zhou, L. Ma, L. Zhang. Invariance-powered Trustworthy Defense via Remove Then Restore.
arXiv 2402.00304, 2024: the target model F_w of section 4.1, trained with Adam, 1e-3, 200 epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F

from benchbox import Batch, Card, Classifier, Losses


class Undefended(Classifier):
    """A classifier trained with cross-entropy on clean images."""

    card = Card(
        "none", "the undefended classifier", paper="arXiv 2402.00304, section 4.1", year=2024, kind="baseline"
    )
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **Classifier.recipes,
        # 200 epochs change nothing any more at the third decimal of MNIST accuracy; five with a decaying
        # rate reach it in a minute on a laptop.
        "mnist": {"epochs": 5, "schedule": "onecycle"},
        # 1,437 images: twenty epochs are 460 steps, about as many as one epoch of MNIST.
        "digits": {"epochs": 20, "batch_size": 64},
        # The paper's 200 epochs get 88.89 % of the test images right. An epoch on two cores takes 10 minutes.
        "cifar10": {"epochs": 15, "batch_size": 256, "schedule": "onecycle"},
        "cifar100": {"network": "densenet121", "epochs": 60, "schedule": "onecycle"},
    }

    def losses(self, batch: Batch) -> Losses:
        """Cross-entropy."""
        return {"classifier": {"ce": F.cross_entropy(self.classifier(batch.x), batch.y)}}
