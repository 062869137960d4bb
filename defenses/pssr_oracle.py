"""Pixel surgery on the perturbation alone: x + δ·M_t, by an oracle that knows the clean image x.

X. Fu, Y. Zhou, L. Ma, L. Zhang. Invariance-powered Trustworthy Defense via Remove Then Restore.
arXiv 2402.00304, 2024: the trivial attack of Fig. 1, with the mask M_t of Eq. 3-6 taken on x + δ.

Surgery removes content together with perturbation (Eq. 7); here it removes perturbation only, so benign images
stay as they are, as in the "+PS" row of Table 4. No defence can do it: never ranked. `pssr:oracle+cae` regenerates
what the oracle leaves, where the paper has "+PS&CAE".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from benchbox import Batch, Card, DefenseError, Draws, ImageSpec, stand_in, straight_through

from ._surgery import trivial_mask
from .pssr import PixelSurgery, S, WithoutARD, WithoutARDRecipe


class Oracle(PixelSurgery[S]):
    """Takes back the perturbation of the salient pixels; nothing is trained.

    The clean images are those that `reveal` was last shown, found by the indices of the draws. Images without
    draws belong to nobody: they are taken to be clean.
    """

    card = Card(
        "pssr:oracle", "surgery that knows the clean image; no defence", "arXiv 2402.00304", 2024, "oracle"
    )
    deployable: ClassVar[bool] = False

    def __init__(self, recipe: S, images: ImageSpec, classifier: nn.Module) -> None:
        super().__init__(recipe, images, classifier)
        self._shown = torch.empty(0, images.channels, images.size, images.size)
        self._indices = torch.empty(0, dtype=torch.int64)

    def reveal(self, x: Tensor, draws: Draws) -> None:
        """Keep the clean images until the next are shown."""
        self._shown, self._indices = x, draws.indices

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        """Logits (N, K) of what the oracle leaves; without draws, of the images as they are."""
        return self.classifier(x) if draws is None else super().forward(x, draws)

    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        """x + δ·M_t, and what is regenerated from it where anything is.

        Raises:
            DefenseError: The clean image of one of them was not shown.
        """
        return self.regenerate(*self.take_back(x, draws), x)

    def take_back(self, x: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """x + δ·M_t, the perturbed pixel where the surgery keeps it, the clean one where it does not; and M_t."""
        mask = trivial_mask(*self.saliency(x), self.recipe, self.threshold)
        return torch.where(mask.bool(), x, self._clean(x, draws)), mask

    def stages(self, x: Tensor, draws: Draws) -> Mapping[str, Tensor]:
        """M_t, x + δ·M_t, and what is regenerated from it."""
        left, mask = self.take_back(x, draws)
        return {"trivial mask": mask, "trivial component": left, "regenerated": self.regenerate(left, mask, x)}

    @stand_in("mask-constant", "the mask is held constant, its exact gradient almost everywhere", exact=True)
    def autograd(self, x: Tensor, draws: Draws) -> Tensor:
        """V0 of the surgery."""
        return self.forward(x, draws)

    @stand_in(
        "identity-removal", "the removal's backward pass is the identity, so pixels taken back get a gradient"
    )
    def identity(self, x: Tensor, draws: Draws) -> Tensor:
        """V1 of the surgery."""
        left, mask = self.take_back(x.detach(), draws)
        return self.classifier(self.regenerate(straight_through(x, left), mask, x))  # type: ignore[no-any-return]

    def soft(self, x: Tensor, draws: Draws) -> Tensor:
        """No stand-in: what is taken back is none of the attacker's pixels."""
        return self.forward(x, draws)

    def _clean(self, x: Tensor, draws: Draws) -> Tensor:
        match = draws.indices[:, None] == self._indices
        if len(draws) != len(x) or not bool(match.any(1).all()):
            raise DefenseError(
                f"{self.card.name} was not shown the clean image of each of these {len(x)}; `benchbox run` shows "
                "them, to attacks that say which images they ask for"
            )
        return self._shown[match.long().argmax(1)]


class RegeneratingOracle(Oracle[WithoutARDRecipe], WithoutARD):
    """Takes back the perturbation of the salient pixels and regenerates the image from what that leaves."""

    card = Card(
        "pssr:oracle+cae",
        "the oracle's images, regenerated; no defence",
        "arXiv 2402.00304",
        2024,
        "oracle",
    )
    ablations: ClassVar[tuple[str, ...]] = ("pssr:oracle",)

    def training_input(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """x + δ·M_t and M_t of each image as it was drawn, and that image."""
        mask, drawn = self.training_mask(batch), self.drawn_images(batch)
        return torch.where(mask.bool(), drawn, batch.x), mask, drawn
