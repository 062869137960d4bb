"""Networks: sizes known from the literature, ranges, and independence of the rest of the batch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from benchbox.plugins.defenses._pix2pix import PatchGAN, UNet, _Norm
from torch import Tensor, nn

from benchbox import nets
from benchbox.domain import ImageSpec
from benchbox.draws import Draws, sample_draws
from benchbox.errors import RequestError
from benchbox.nets.normalize import Normalize

GREY = ImageSpec(1, 28, 10, (0.1307,), (0.3081,))
COLOUR = ImageSpec(3, 32, 10, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On busy cores the threads of many small operations wait for each other, longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def images(n: int, spec: ImageSpec) -> Tensor:
    return sample_draws(n).uniform(spec.channels, spec.size, spec.size)


@pytest.mark.parametrize(
    ("name", "spec", "count"),
    [
        ("lenet5", GREY, 320 + 18_496 + 627_400 + 2_010),
        ("mishcnn", GREY, 272 + 8_224 + 156_900 + 1_010 + 2 * (16 + 32 + 100)),
        ("resnet18", COLOUR, 11_173_962),  # as every CIFAR ResNet-18 of the literature
        ("resnet18-64", COLOUR, 11_173_962),
        ("resnet18-16", COLOUR, 701_466),
        (
            "densenet121",
            COLOUR,
            7_978_856 - 990 * 1_025 - 64 * 3 * (49 - 9),
        ),  # torchvision's less head and stem
        ("wrn-28-10", COLOUR, 36_479_194),  # the authors' code and RobustBench
    ],
)
def test_parameter_counts(name: str, spec: ImageSpec, count: int) -> None:
    with torch.device("meta"):
        network = nets.build(name, spec)
    assert parameters(network) == count


@pytest.mark.parametrize("name", ["lenet5", "mishcnn", "resnet18", "resnet18-16", "densenet121", "wrn-10-1"])
@pytest.mark.parametrize("spec", [GREY, COLOUR, ImageSpec(3, 40, 7)], ids=["grey", "colour", "odd"])
def test_logits_of_one_image_ignore_the_others(name: str, spec: ImageSpec) -> None:
    network = nets.build(name, spec).eval()
    x = images(3, spec)
    with torch.no_grad():
        together = network(x)
        alone = torch.cat([network(row[None]) for row in x])
    assert together.shape == (3, spec.classes)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1])


def test_lenet_is_advertorchs_though_it_pools_first() -> None:
    network = nets.build("lenet5", GREY)
    first, _, _, second, _, _, flatten, hidden, _, last = network.layers
    features = (first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.MaxPool2d(2))
    advertorch = nn.Sequential(*features, flatten, hidden, nn.ReLU(), last)
    ours, theirs = images(4, GREY).requires_grad_(), images(4, GREY).requires_grad_()
    logits, expected = network(ours), advertorch(theirs)
    assert torch.equal(logits, expected)
    weights = list(network.parameters())
    found = torch.autograd.grad(logits.square().sum(), [ours, *weights])
    for got, wanted in zip(found, torch.autograd.grad(expected.square().sum(), [theirs, *weights]), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "resnet18-16", "densenet121", "wrn-10-1"])
def test_head_gives_the_logits(name: str) -> None:
    network = nets.build(name, GREY).eval()
    head = nets.head(network)
    seen: list[tuple[Tensor, Tensor]] = []
    head.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    logits = network(images(2, GREY))
    ((features, output),) = seen
    assert torch.equal(output, logits)
    assert features.shape == (2, head.in_features)
    assert head.out_features == 10


def test_head_of_a_network_without_linear_layer() -> None:
    with pytest.raises(RequestError, match=r"Flatten has no nn\.Linear"):
        nets.head(nn.Flatten())


@pytest.mark.parametrize("name", ["resnet18", "resnet18-16", "densenet121", "wrn-10-1"])
def test_networks_normalise_with_the_statistics_of_the_data(name: str) -> None:
    network = nets.build(name, COLOUR).eval()
    (normalize,) = (module for module in network.modules() if isinstance(module, Normalize))
    mean = torch.tensor(COLOUR.mean).view(1, 3, 1, 1)
    assert torch.equal(normalize(mean), torch.zeros(1, 3, 1, 1))
    torch.testing.assert_close(normalize(mean + torch.tensor(COLOUR.std).view(1, 3, 1, 1)), torch.ones(1, 3, 1, 1))
    assert {"mean", "std"} <= {key.rsplit(".", 1)[-1] for key in network.state_dict()}
    seen: list[Tensor] = []
    normalize.register_forward_hook(lambda *_: seen.append(torch.empty(0)))
    network(images(1, COLOUR))
    assert len(seen) == 1


def test_without_statistics_images_pass_unchanged() -> None:
    x = images(2, COLOUR)
    assert torch.equal(Normalize(ImageSpec(3, 32, 10))(x), x)


def test_the_cifar_stem_keeps_the_resolution() -> None:
    sizes: list[int] = []
    for name, last in (("resnet18", 4), ("resnet18-16", 4), ("densenet121", 4), ("wrn-10-1", 8)):
        network = nets.build(name, COLOUR).eval()
        maps = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
        maps[0].register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
        maps[-1].register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
        network(images(1, COLOUR))
        assert sizes[-2:] == [32, last]


def test_a_resnet_of_width_64_is_torchvisions() -> None:
    ours, theirs = nets.build("resnet18-64", COLOUR).eval(), nets.build("resnet18", COLOUR).eval()
    # Registered in the same order, whatever the names.
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    assert torch.equal(ours(images(2, COLOUR)), theirs(images(2, COLOUR)))


def test_stems_are_initialised_as_torchvision_initialises() -> None:
    torch.manual_seed(0)
    resnet, densenet = nets.build("resnet18", COLOUR), nets.build("densenet121", COLOUR)
    stems = [next(m for m in n.modules() if isinstance(m, nn.Conv2d)) for n in (resnet, densenet)]
    fan_out, fan_in = 64 * 9, 3 * 9
    assert float(stems[0].weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    assert float(stems[1].weight.detach().std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)


def test_unknown_network_names_the_closest() -> None:
    with pytest.raises(RequestError, match="unknown network 'resnet81'; did you mean resnet18"):
        nets.build("resnet81", GREY)
    with pytest.raises(RequestError, match="there is no wrn-29-10; the depth is 6n"):
        nets.build("wrn-29-10", COLOUR)
    with pytest.raises(RequestError, match="there is no resnet18-0; the width is at least 1"):
        nets.build("resnet18-0", COLOUR)
    with pytest.raises(RequestError, match="at least 4×4"):
        nets.build("lenet5", ImageSpec(1, 3, 10))


@pytest.mark.parametrize(
    ("size", "depth", "bottom"), [(28, 2, 7), (28, 1, 14), (32, 2, 8), (32, 5, 1), (160, 4, 10)]
)
def test_unet_shapes_and_range(size: int, depth: int, bottom: int) -> None:
    unet = UNet(2, 3, size, width=4, depth=depth)
    x = sample_draws(2).uniform(2, size, size) * 20 - 10
    maps = unet.encode(x)
    assert [m.shape[-1] for m in maps] == [size // 2**level for level in range(1, depth + 1)]
    assert maps[-1].shape[-1] == bottom
    out = unet(x).detach()
    assert out.shape == (2, 3, size, size)
    assert 0 <= float(out.min()) <= float(out.max()) <= 1


@pytest.mark.parametrize(
    ("size", "depth", "remedy"),
    [(28, 3, "use depth 2"), (25, 2, "resize the images to 24"), (3, 2, "to 4"), (28, 0, "once")],
)
def test_unet_refuses_sizes_it_cannot_halve(size: int, depth: int, remedy: str) -> None:
    with pytest.raises(RequestError, match=remedy):
        UNet(1, 1, size, depth=depth)


@pytest.mark.parametrize("training", [True, False])
def test_unet_treats_each_image_alone(training: bool) -> None:
    unet = UNet(1, 1, 28, width=8).train(training)
    x, draws = images(4, GREY), sample_draws(4)
    whole = unet(x, draws)
    part = unet(x[2:], draws.rows(torch.tensor([2, 3])))
    torch.testing.assert_close(whole[2:], part, rtol=1e-4, atol=1e-6)


def test_dropout_differs_by_pass_repeats_by_draws_and_rests_in_evaluation() -> None:
    unet, x, draws = UNet(1, 1, 28, width=8), images(2, GREY), sample_draws(2)
    maps = unet.encode(x)
    first, second = (unet.decode(maps, draws.at("pass", k)) for k in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, unet.decode(maps, draws.at("pass", 0)))
    assert not torch.equal(first, unet(x))
    assert torch.equal(unet.eval()(x, draws), unet(x))
    assert torch.equal(UNet(1, 1, 28, width=8, dropout=0.0).train()(x, draws).isnan(), torch.zeros_like(x).bool())
    with pytest.raises(RequestError, match=r"less than 1, got 1\.0"):
        UNet(1, 1, 28, dropout=1.0)


def test_dropout_leaves_the_global_random_state_alone() -> None:
    unet, x = UNet(1, 1, 28, width=8), images(2, GREY)
    before = torch.get_rng_state()
    unet(x, sample_draws(2))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_dropoutdrops_its_share_and_keeps_the_mean(share: float) -> None:
    from benchbox.plugins.defenses._pix2pix import drop

    dropped = drop(torch.ones(50, 7, 11, 13), share, sample_draws(50))
    assert float((dropped == 0).float().mean()) == pytest.approx(share, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.03)
    layout = drop(torch.ones(50, 7, 11, 13).to(memory_format=torch.channels_last), share, sample_draws(50))
    assert torch.equal(dropped, layout)


def test_norms_are_given_channels_first_and_answer_in_the_layout_they_were_asked_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[bool] = []

    def group_norm(x: torch.Tensor, *rest: object) -> torch.Tensor:
        given.append(x.is_contiguous())
        return torch.group_norm(x, *rest)

    monkeypatch.setattr(torch.nn.functional, "group_norm", group_norm)
    x = sample_draws(3).uniform(16, 5, 7) - 0.5
    for layout in (torch.contiguous_format, torch.channels_last):
        found = _Norm(16)(x.contiguous(memory_format=layout))
        assert found.is_contiguous(memory_format=layout)
        torch.testing.assert_close(found, torch.group_norm(x, 8))
    assert given == [True, True]


def test_patchgan_judges_patches() -> None:
    judge = PatchGAN(2, width=8)
    a, b = images(3, GREY), images(3, GREY).flip(0)
    logits = judge(a, b)
    assert logits.shape == (3, 1, 6, 6)
    assert not torch.allclose(logits, judge(b, a))
    torch.testing.assert_close(judge(a[:1], b[:1]), logits[:1], rtol=1e-4, atol=1e-6)


def test_a_patch_is_22_pixels_wide() -> None:
    # Without normalisation, which sees whole maps, a logit has the receptive field of its convolutions.
    judge = PatchGAN(2, width=8)
    for index, layer in enumerate(judge.layers):
        if isinstance(layer, nn.GroupNorm):
            judge.layers[index] = nn.Identity()
    a = images(1, ImageSpec(1, 64, 10)).requires_grad_()
    judge(a, a)[0, 0, 7, 7].backward()
    assert a.grad is not None
    touched = a.grad[0, 0].ne(0).nonzero()
    assert (touched.amax(0) - touched.amin(0) + 1).tolist() == [22, 22]


def test_unet_learns_to_remove_noise() -> None:
    torch.manual_seed(0)
    unet = UNet(1, 1, 28, width=8)
    optimizer = torch.optim.Adam(unet.parameters(), 1e-2)
    # Bright squares: the position of each is its own, so copying a constant image cannot succeed.
    corner = sample_draws(64).integers(16, 2)
    x = torch.zeros(64, 1, 28, 28)
    for row, (top, left) in enumerate(corner.tolist()):
        x[row, 0, top : top + 12, left : left + 12] = 1
    noisy = (x + 0.3 * sample_draws(64).uniform(1, 28, 28, low=-1, high=1).sign()).clamp(0, 1)
    for step in range(30):
        loss = F.l1_loss(unet(noisy, Draws(torch.arange(64), step)), x)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        assert float(F.l1_loss(unet.eval()(noisy), x)) < 0.5 * float(F.l1_loss(noisy, x))


def test_what_carso_records_of_its_authors_network() -> None:
    """4,814 numbers of four layers, as their purifier is fed."""
    from benchbox.plugins.defenses._activations import outputs_of, weighted_layers

    network = nets.build("mishcnn", GREY).eval()
    layers = weighted_layers(network)
    assert len(layers) == 4
    assert sum(output[0].numel() for output in outputs_of(network, layers, images(1, GREY))) == 4_814
