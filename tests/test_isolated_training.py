"""A training in a process of its own: it sees nothing of this one, ends in the same weights, and can be killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from checkpoints import settle
from torch import Tensor

from benchbox import DefenseError
from benchbox.contract import registry
from benchbox.data.dataset import Dataset, Images
from benchbox.domain import ImageSpec, Spec, ThreatModel
from benchbox.draws import sample_draws
from benchbox.engine.isolation import apart
from benchbox.training.artifacts import Artifacts, Training, load_tensors
from benchbox.training.loop import Progress
from benchbox.training.workshop import Workshop

PLUGIN = '''
import os, sys
import torch
from benchbox import Card, Defense

class Pupil(Defense):
    """Notes among its weights what it sees while it is trained."""
    card = Card("pupil", "tells where it was trained")

    def __init__(self, recipe, images, classifier=None):
        super().__init__(recipe, images, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 10)))
        self.register_buffer("seen", torch.zeros(6))

    def losses(self, batch):
        frame, names = sys._getframe(), []
        while frame is not None:
            names.append(frame.f_code.co_filename)
            frame = frame.f_back
        here = [os.getpid(), sum(map(os.path.isfile, os.listdir("."))), "BENCHBOX_DATA" in os.environ,
                "conftest" in sys.modules, any(name.endswith("test_isolated_training.py") for name in names),
                len(batch.x)]
        self.seen += torch.tensor([float(one) for one in here]) - self.seen
        self.late()
        return {"classifier": {"loss": torch.nn.functional.cross_entropy(self.classifier(batch.x), batch.y)}}

    def late(self):
        pass

class Killed(Pupil):
    """Is killed in its third epoch, once."""
    card = Card("killed", "does not survive its training")

    def __init__(self, recipe, images, classifier=None):
        super().__init__(recipe, images, classifier)
        self.register_buffer("steps", torch.zeros(1))

    def late(self):
        self.steps += 1
        if self.steps >= 50 and not os.path.exists("FLAG"):
            open("FLAG", "w").close()
            os.kill(os.getpid(), 9)
'''
TINY = ImageSpec(1, 4, 10, (0.5,), (0.2,))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    settle(tmp_path, monkeypatch)
    (tmp_path / "strange.py").write_text(PLUGIN.replace("FLAG", str(tmp_path / "flag")))
    return tmp_path


def trained(folder: Path, name: str, *, isolate: bool) -> tuple[dict[str, Tensor], dict, list[Progress]]:
    """Weights, card and what was told of a training on twenty tiny images."""
    defenses, kept, told = registry.defenses(folder, local=False), Artifacts(folder / f"weights {isolate}"), []
    cls = defenses.get(name).cls
    recipe = {**cls.configure("mnist", epochs=4, batch_size=1).identity()}
    wanted = Training(Spec(name, recipe, "file"), "tiny", "", 0, ThreatModel("linf", 0.1))
    x = sample_draws(20).uniform(1, 4, 4).mul(255).to(torch.uint8)
    images = Images(x, torch.arange(20) % 10)
    dataset = Dataset("tiny", "mnist", images, images.rows([]), TINY, 0.1)
    where = torch.device("cpu")
    shop = Workshop(
        kept, defenses, dataset, where, provenance={"here": 1}, report=lambda training, at: told.append(at),
        apart=apart.Apart(TINY, kept, defenses, where) if isolate else None,
    )  # fmt: skip
    shop.obtain(wanted)
    return *load_tensors(kept.path(wanted.weights)), told


def test_it_is_trained_where_it_sees_neither_process_nor_folder_nor_frames_and_ends_in_the_same_weights(
    workspace: Path,
) -> None:
    there, card, told = trained(workspace, "strange.py:Pupil", isolate=True)
    here, usual, heard = trained(workspace, "strange.py:Pupil", isolate=False)
    assert there["seen"][0] != os.getpid() == here["seen"][0]
    assert there["seen"][1:].tolist() == [0, 0, 0, 0, 1]
    assert here["seen"][3:].tolist() == [1, 1, 1]
    for name in there.keys() - {"seen"}:
        assert torch.equal(there[name], here[name]), name
    assert card["provenance"] == {"here": 1}
    assert {**card, "seconds": 0} == {**usual, "seconds": 0}
    assert told == heard
    assert told[-1].done == told[-1].total == 80


def test_a_training_that_is_killed_there_goes_on_where_it_was(workspace: Path) -> None:
    with pytest.raises(DefenseError, match="killed by SIGKILL"):
        trained(workspace, "strange.py:Killed", isolate=True)
    _, card, told = trained(workspace, "strange.py:Killed", isolate=True)
    assert card["resumed"]
    assert len(told) < 8  # of eight in all
