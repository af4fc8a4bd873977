"""The paper's loss: closed forms, a slow reference, gradients, masks, memory, overfitting."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip('torch', reason='PyTorch is not installed')

from coam_ros.training.data.pairs import IGNORED, MATCHED, UNMATCHED  # noqa: E402
from coam_ros.training.losses import LOSS_CONFIGS, make_loss, PaperLossConfig  # noqa: E402
from coam_ros.training.losses.paper import (  # noqa: E402
    _random_points,
    distinctiveness_target,
    hinge_terms,
    squared_distances,
)
from coam_ros.training.network import DescribedImage  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

STRIDE = 4


def unit(*shape, seed=0, dim=1):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator), dim=dim)


def describe(descriptors, distinctiveness=0.0, visibility=None):
    """Maps of an image, the logits equal everywhere."""
    logits = torch.full_like(descriptors[:, :1], distinctiveness)
    visibility = None if visibility is None else torch.full_like(logits, visibility)
    return DescribedImage(descriptors, logits, visibility, descriptors)


def constant_map(axis, size=16):
    """The same unit descriptor everywhere."""
    return torch.eye(4)[axis][None, :, None, None].repeat(2, 1, size, size)


def batch_of(state, size_px=64, seed=0):
    state = torch.as_tensor(state)
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(2, *state.shape, 2, generator=generator) * (size_px - 1)
    return {'points0': points[0], 'points1': points[1], 'state': state}


def test_the_config_is_chosen_by_its_name_and_holds_the_values_of_the_paper():
    config = LOSS_CONFIGS['paper']()
    assert (config.num_positives, config.num_random, config.num_hardest) == (512, 512, 3)
    assert (config.margin, config.confuser_distance, config.tau) == (1.0, 1.0, 0.25)
    assert (config.distinctiveness_weight, config.visibility_weight) == (0.1, 0.1)


def test_images_without_any_difference_cost_what_the_formula_says():
    """All distances are 0: both hinges stand at the margin, every random point confuses."""
    batch = batch_of([[MATCHED] * 20] * 2)
    described = describe(constant_map(0), distinctiveness=0.0)
    loss, figures = make_loss(PaperLossConfig())(described, described, batch, STRIDE)
    distinctiveness = 0.5 - 512**-0.25
    assert figures['positive'] == pytest.approx(0, abs=1e-6)
    assert figures['hardest'] == pytest.approx(1)
    assert figures['negative'] == pytest.approx(1)
    assert figures['distinctiveness'] == pytest.approx(distinctiveness)
    assert loss.item() == pytest.approx(2 + 0.1 * distinctiveness)


def test_images_that_have_nothing_in_common_cost_what_the_formula_says():
    """All distances are 2, beyond the margin; nothing confuses; half of the points are seen."""
    batch = batch_of([[MATCHED, UNMATCHED, MATCHED, UNMATCHED, IGNORED]] * 2)
    described0 = describe(constant_map(0), distinctiveness=0.0, visibility=2.0)
    described1 = describe(constant_map(1), distinctiveness=0.0, visibility=-5.0)
    config = PaperLossConfig(distinctiveness_weight=0.3, visibility_weight=0.2)
    loss, figures = make_loss(config)(described0, described1, batch, STRIDE)
    visibility = 0.5 * math.log1p(math.exp(-2)) + 0.5 * math.log1p(math.exp(2))
    assert figures['positive'] == pytest.approx(2)
    assert figures['hardest'] == pytest.approx(1)
    assert figures['negative'] == pytest.approx(0)
    assert figures['distinctiveness'] == pytest.approx(0.5)
    assert figures['visibility'] == pytest.approx(visibility)
    assert loss.item() == pytest.approx(3 + 0.3 * 0.5 + 0.2 * visibility)


def reference_terms(anchors, matches, others, points, other_points, valid, config):
    """The same terms, one negative at a time, in plain Python."""
    positive, hardest, negative, target = [], [], [], []
    for a, m, o, p, q, v in zip(
        *(x.tolist() for x in (anchors, matches, others, points, other_points, valid)),
        strict=True,
    ):
        rows = [i for i, is_valid in enumerate(v) if is_valid]
        for i, partner in zip(rows, rows[1:] + rows[:1], strict=True):
            d_plus = math.dist(a[i], m[i]) ** 2
            positive.append(d_plus)
            hinges, confusers = [], 0
            for n, (descriptor, pixel) in enumerate(
                zip([*o, m[partner]], [*q, p[partner]], strict=True)
            ):
                distance = math.dist(a[i], descriptor) ** 2
                confusers += n < len(o) and distance < config.confuser_distance
                if math.dist(pixel, p[i]) < config.exclusion_px:
                    continue
                negative.append(max(0, config.margin - distance))
                hinges.append(max(0, config.margin + d_plus - distance))
            hinges = [*sorted(hinges, reverse=True), 0, 0, 0][: config.num_hardest]
            hardest.append(sum(hinges) / config.num_hardest)
            target.append(max(1, confusers) ** -config.tau)
    means = {'positive': positive, 'hardest': hardest, 'negative': negative}
    return {key: sum(values) / len(values) for key, values in means.items()}, target


def test_all_terms_agree_with_a_loop_over_single_negatives():
    config = PaperLossConfig(exclusion_px=12.0, margin=0.9, confuser_distance=1.3)
    # 3 channels: distances on both sides of every threshold.
    anchors, matches, others = (
        unit(2, n, 3, seed=seed, dim=-1) for seed, n in enumerate((9, 9, 25))
    )
    points = torch.rand(2, 9, 2, generator=torch.Generator().manual_seed(1)) * 60
    other_points = torch.rand(2, 25, 2, generator=torch.Generator().manual_seed(2)) * 60
    valid = torch.arange(9) < torch.tensor([[9], [4]])
    distances = squared_distances(anchors, others)
    terms = hinge_terms(anchors, matches, distances, points, other_points, valid, config)
    expected, target = reference_terms(
        anchors, matches, others, points, other_points, valid, config
    )
    for key, value in expected.items():
        assert terms[key].item() == pytest.approx(value, rel=1e-5), key
    torch.testing.assert_close(
        distinctiveness_target(distances, config)[valid], torch.tensor(target)
    )


def test_a_negative_near_the_true_match_is_ignored():
    """One random point, as like as can be: it counts from the exclusion's radius on."""
    config = PaperLossConfig(num_hardest=1)
    anchor = torch.tensor([[[1.0, 0.0]]])
    terms = {}
    for offset in (7.9, 8.1):
        distances = torch.zeros(1, 1, 1)
        points = torch.zeros(1, 1, 2)
        other = torch.tensor([[[offset, 0.0]]])
        valid = torch.ones(1, 1, dtype=torch.bool)
        terms[offset] = hinge_terms(anchor, anchor, distances, points, other, valid, config)
    assert (terms[7.9]['hardest'].item(), terms[7.9]['negative'].item()) == (0, 0)
    assert (terms[8.1]['hardest'].item(), terms[8.1]['negative'].item()) == (1, 1)


def test_the_margin_of_the_hard_negatives_does_not_push_the_true_match():
    anchors, matches, others = (unit(1, 6, 8, seed=s, dim=-1) for s in range(3))
    matches = matches.requires_grad_()
    distances = squared_distances(anchors, others)
    points = 20.0 * torch.arange(12).reshape(1, 6, 2)
    valid = torch.arange(6)[None] < 6
    # A margin beyond all distances: every hinge is active.
    config = PaperLossConfig(num_hardest=7, margin=10.0)
    terms = hinge_terms(anchors, matches, distances, points, points + 1000, valid, config)
    (gradient,) = torch.autograd.grad(terms['hardest'], matches)
    # Only as the negative of another point does a match have a gradient: d/db |a - b|^2.
    partner_hinge_gradient = 2 * (anchors.roll(1, 1) - matches.detach()) / (6 * 7)
    torch.testing.assert_close(gradient, partner_hinge_gradient)


def test_gradients_reach_the_maps_that_a_term_trains_and_no_other():
    descriptors = [unit(2, 8, 16, 16, seed=s).requires_grad_() for s in range(2)]
    logits = [torch.zeros(2, 1, 16, 16, requires_grad=True) for _ in range(4)]
    described0 = DescribedImage(descriptors[0], logits[0], logits[1], descriptors[0])
    described1 = DescribedImage(descriptors[1], logits[2], logits[3], descriptors[1])
    batch = batch_of([[MATCHED] * 6 + [UNMATCHED] * 3 + [IGNORED] * 3] * 2)
    loss, figures = make_loss(PaperLossConfig())(described0, described1, batch, STRIDE)
    assert not any(figure.requires_grad for figure in figures.values())
    loss.backward()
    assert all(x.grad.abs().max() > 0 for x in [*descriptors, *logits[:3]])
    # What is seen of image 1 is not known: no point of it is known to be unseen.
    assert logits[3].grad is None


def test_points_that_are_not_matched_do_not_train_descriptors():
    state = torch.tensor([[MATCHED] * 5 + [UNMATCHED] * 3 + [IGNORED] * 3] * 2)
    batch = batch_of(state)
    moved = dict(batch)
    moved['points0'] = torch.where(state[..., None] == MATCHED, batch['points0'], 1.0)
    moved['points1'] = torch.where(state[..., None] == MATCHED, batch['points1'], 0.0)
    described0, described1 = describe(unit(2, 8, 16, 16)), describe(unit(2, 8, 16, 16, seed=1))
    losses = []
    for each in (batch, moved):
        torch.manual_seed(0)
        losses.append(make_loss(PaperLossConfig())(described0, described1, each, STRIDE)[0])
    torch.testing.assert_close(*losses)


def test_no_more_than_the_wanted_positives_count_and_they_are_drawn_anew():
    batch = batch_of([[MATCHED] * 40])
    described0, described1 = describe(unit(1, 8, 16, 16)), describe(unit(1, 8, 16, 16, seed=1))
    loss = make_loss(PaperLossConfig(num_positives=1))
    distances = {
        round(loss(described0, described1, batch, STRIDE)[1]['positive'].item(), 6)
        for _ in range(10)
    }
    assert len(distances) > 3  # one positive of forty: its distance changes from draw to draw
    every = make_loss(PaperLossConfig(num_positives=100))
    distances = [every(described0, described1, batch, STRIDE)[1]['positive'] for _ in range(2)]
    torch.testing.assert_close(*distances)


def test_both_directions_compare_true_matches():
    descriptors = unit(1, 8, 16, 16)
    columns, rows = torch.meshgrid(torch.arange(3, 15), torch.arange(16), indexing='ij')
    points0 = torch.stack([columns, rows], -1).reshape(1, -1, 2) * STRIDE + 1.5
    batch = {
        'points0': points0,
        'points1': points0 - torch.tensor([2.0 * STRIDE, 0.0]),
        'state': torch.full((1, 192), MATCHED),
    }
    described = describe(descriptors), describe(descriptors.roll(-2, dims=3))
    _, figures = make_loss(PaperLossConfig())(*described, batch, STRIDE)
    assert figures['positive'] == pytest.approx(0, abs=1e-5)


def test_each_image_is_judged_at_its_own_points():
    """What is matched lies left in image 0 and right in image 1, and looks the same nowhere else.

    All of image 0 looks like the left half of image 1: half of the random points could be taken
    for a match of its points, and none for one of image 1.
    """
    is_left = (torch.arange(16) < 8).expand(2, 1, 16, 16)
    half = torch.where(is_left, constant_map(0), constant_map(1))
    left, right = torch.where(is_left, 20.0, -20.0), torch.where(is_left, -20.0, 20.0)
    state = torch.tensor([[MATCHED] * 4 + [UNMATCHED] * 4] * 2)
    rows = torch.linspace(5, 58, 8).expand(2, 8)
    columns0, columns1 = (torch.where(state == MATCHED, *x) for x in ((10.0, 50.0), (50.0, 10.0)))
    batch = {
        'points0': torch.stack([columns0, rows], -1),
        'points1': torch.stack([columns1, rows], -1),
        'state': state,
    }
    wanted = torch.tensor(256**-0.25).logit()
    described0 = DescribedImage(
        constant_map(0), torch.where(is_left, wanted, 20.0), left, constant_map(0)
    )
    described1 = DescribedImage(half, right, right, half)
    torch.manual_seed(0)
    _, figures = make_loss(PaperLossConfig())(described0, described1, batch, STRIDE)
    assert figures['distinctiveness'] == pytest.approx(0, abs=0.01)
    assert figures['visibility'] == pytest.approx(0, abs=1e-6)


def test_random_points_fill_the_image():
    points = _random_points(torch.zeros(2, 8, 16, 24), 4000, STRIDE)
    assert (points >= 0).all()
    torch.testing.assert_close(points.amax((0, 1)), torch.tensor([95.0, 63.0]), atol=0.5, rtol=0)
    assert (points <= torch.tensor([95.0, 63.0])).all()


@pytest.mark.parametrize('state', [UNMATCHED, IGNORED])
def test_a_batch_without_matches_gives_a_finite_loss_and_gradient(state):
    descriptors = unit(2, 8, 16, 16).requires_grad_()
    described = describe(descriptors, visibility=0.0)
    loss, figures = make_loss(PaperLossConfig())(
        described, described, batch_of([[state] * 4] * 2), STRIDE
    )
    assert all(figures[k] == 0 for k in ('positive', 'hardest', 'negative', 'distinctiveness'))
    assert loss.item() == pytest.approx(0.1 * math.log(2) if state == UNMATCHED else 0)
    loss.backward()
    assert (descriptors.grad == 0).all()


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation returned."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, torch.Tensor):
                self.largest = max(self.largest, x.numel())
        return result


def test_negatives_are_never_gathered():
    """Forward and backward, nothing is larger than a distance per positive and negative."""
    pairs, positives, negatives, dim = 2, 512, 513, 64
    maps = [unit(pairs, dim, 64, 64, seed=s).requires_grad_() for s in range(2)]
    batch = batch_of(torch.full((pairs, positives), MATCHED), size_px=256)
    described0, described1 = (describe(x, visibility=0.0) for x in maps)
    with LargestTensor() as memory:
        loss, _ = make_loss(PaperLossConfig())(described0, described1, batch, STRIDE)
        loss.backward()
    assert memory.largest == pairs * positives * negatives  # gathered, it would be 64 times that


def test_overfits_free_maps_of_a_pair():
    """Descriptors that start at random find their matches; distinctiveness follows its target."""
    torch.manual_seed(0)
    maps = [torch.randn(1, 16, 16, 16, requires_grad=True) for _ in range(2)]
    logits = [torch.zeros(1, 1, 16, 16, requires_grad=True) for _ in range(4)]
    shift = torch.tensor([16.0, 0.0])
    cells = torch.stack(torch.meshgrid(torch.arange(4, 16), torch.arange(16), indexing='ij'), -1)
    points0 = (cells.reshape(1, -1, 2) + 0.5) * STRIDE - 0.5
    unseen = torch.rand(1, 60, 2) * torch.tensor([14.0, 63.0])
    batch = {
        'points0': torch.cat([points0, unseen], 1),
        'points1': torch.cat([points0 - shift, torch.zeros_like(unseen)], 1),
        'state': torch.cat([torch.full((1, 192), MATCHED), torch.full((1, 60), UNMATCHED)], 1),
    }
    loss_of = make_loss(PaperLossConfig())
    optimizer = torch.optim.Adam([*maps, *logits], 0.05)
    history = []
    for _ in range(80):
        described = [
            DescribedImage(functional.normalize(maps[i], dim=1), logits[i], logits[2 + i], maps[i])
            for i in range(2)
        ]
        loss, figures = loss_of(*described, batch, STRIDE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.35 * history[0]
    assert figures['right'] > 0.95
    assert figures['visibility'] < 0.3
    with torch.no_grad():
        flat0, flat1 = (functional.normalize(x, dim=1).flatten(2)[0] for x in maps)
        best = (flat0.T @ flat1).argmax(1).reshape(16, 16)[:, 4:]
    right = best == torch.arange(256).reshape(16, 16)[:, :12]
    assert right.float().mean() > 0.95
