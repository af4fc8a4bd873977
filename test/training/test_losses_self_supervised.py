"""The self-supervised loss: lines, distributions, a slow reference, left-out points, learning."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='PyTorch is not installed')

from coam_ros.geometry.epipolar import fundamental_from_pose  # noqa: E402
from coam_ros.training.epipolar import (  # noqa: E402
    crosses_image,
    distance_to_lines,
    epipolar_lines,
)
from coam_ros.training.losses import (  # noqa: E402
    LOSS_CONFIGS,
    make_loss,
    SelfSupervisedConfig,
)
from coam_ros.training.losses.self_supervised import (  # noqa: E402
    draw_points,
    expected_correspondence,
)
from coam_ros.training.network import DescribedImage  # noqa: E402
from coam_ros.training.sampling import sample_descriptors, sample_map  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

STRIDE = 4


def fundamental_of_shift(x, y):
    """Give F of a camera that moves in its image plane: the line goes along (x, y)."""
    return torch.tensor([[0.0, 0.0, y], [0.0, 0.0, -x], [-y, x, 0.0]])


def lines_across(points0, fundamental, size1):
    """Give the lines of image 1, and which of them there are and cross it."""
    lines, is_line = epipolar_lines(points0, fundamental)
    return lines, is_line & crosses_image(lines, size1)


def random_map(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def describe(raw, logits):
    return DescribedImage(functional.normalize(raw, dim=1), logits, None, raw)


def test_the_config_is_chosen_by_its_name_and_holds_the_weights_of_caps():
    config = LOSS_CONFIGS['self_supervised']()
    assert (config.num_points, config.textured_share) == (500, 0.9)
    assert (config.epipolar_weight, config.fine_weight, config.cycle_weight) == (1.0, 1.0, 0.1)
    limits = (config.max_epipolar_share, config.max_cycle_share, config.max_cycle_px)
    assert limits == (0.3, 0.025, 10.0)


@pytest.mark.parametrize('scale', [1.0, -1e-7, 1e5])
def test_a_point_of_the_scene_lies_on_its_line(scale):
    rng = np.random.default_rng(0)
    T_1_0 = np.eye(4)
    T_1_0[:3, :3] = np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
    T_1_0[:3, 3] = [-2.0, 0.1, 0.3]
    K = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
    points_0 = rng.uniform([-1, -1, 3], [1, 1, 5], (50, 3))
    points_1 = points_0 @ T_1_0[:3, :3].T + T_1_0[:3, 3]
    pixels0, pixels1 = (
        torch.tensor((p @ K.T)[:, :2] / p[:, 2:], dtype=torch.float32)[None]
        for p in (points_0, points_1)
    )
    fundamental = torch.tensor(fundamental_from_pose(T_1_0, K, K) * scale, dtype=torch.float32)
    lines, known = lines_across(pixels0, fundamental[None], [320, 240])
    assert distance_to_lines(pixels1, lines).max() < 0.01
    is_inside = ((pixels1 >= 0) & (pixels1 <= torch.tensor([319.0, 239.0]))).all(-1)
    assert is_inside.any()
    assert known[is_inside].all()
    beside = pixels1 + 3.0 * lines[..., :2]
    torch.testing.assert_close(
        distance_to_lines(beside, lines), torch.full((1, 50), 3.0), atol=0.01, rtol=0
    )


def test_lines_that_miss_the_image_and_points_without_a_line_are_not_known():
    points = torch.tensor([[[5.0, 10.0], [5.0, 63.0], [5.0, 63.1], [5.0, -0.1]]])
    horizontal, nothing = fundamental_of_shift(1.0, 0.0), torch.zeros(3, 3)
    _, known = lines_across(points.expand(2, -1, -1), torch.stack([horizontal, nothing]), [96, 64])
    assert known.tolist() == [[True, True, False, False], [False] * 4]
    # The camera moves towards (20, 30): that is the epipole, where there is no line.
    forward = torch.tensor([[0.0, -1.0, 30.0], [1.0, 0.0, -20.0], [-30.0, 20.0, 0.0]])
    points = torch.tensor([[[20.0, 30.0], [20.0, 31.0]]])
    lines, known = lines_across(points, forward[None], [96, 64])
    assert known.tolist() == [[False, True]]
    assert lines.isfinite().all()


def test_expected_correspondence_of_two_equal_peaks_lies_between_them():
    feature_map = torch.zeros(1, 2, 4, 8)
    feature_map[:, 1] = 1.0
    feature_map[0, :, 2, 2] = feature_map[0, :, 2, 6] = torch.tensor([1.0, 0.0])
    found = expected_correspondence(torch.tensor([[[1.0, 0.0]]]), feature_map, STRIDE, 2, 0.01)
    # Cells 2 and 6 lie at 9.5 and 25.5 px, row 2 at 9.5 px; positions are 8 px apart.
    torch.testing.assert_close(found.expected, torch.tensor([[[17.5, 9.5]]]))
    cell = 8**2 / 12
    assert found.spread.item() == pytest.approx(math.sqrt(8**2 + cell) + math.sqrt(cell))
    assert found.best_cells.tolist() in ([[[2, 2]]], [[[6, 2]]])


def reference_loss(raw0, raw1, logits, points, fundamental, config):
    """The loss of one batch, point by point, with a graph."""
    sums = {key: [0.0, 0.0] for key in ('epipolar', 'fine', 'cycle', 'head')}
    height, width = (side * STRIDE for side in raw1.shape[-2:])
    centres = [
        (row, column)
        for row in range(0, raw1.shape[2], config.spacing_px // STRIDE)
        for column in range(0, raw1.shape[3], config.spacing_px // STRIDE)
    ]

    def correspond(descriptor, unit_map):
        similarity = torch.stack([descriptor @ unit_map[:, r, c] for r, c in centres])
        chance = torch.softmax(similarity / config.temperature, dim=0)
        pixels = torch.tensor([[c * 4 + 1.5, r * 4 + 1.5] for r, c in centres])
        mean = (chance[:, None] * pixels).sum(0)
        variance = (chance[:, None] * (pixels - mean) ** 2).sum(0)
        spread = (variance + config.spacing_px**2 / 12).sqrt().sum().item()
        return mean, spread, centres[similarity.argmax()]

    for b, start in [(pair, point) for pair, of in enumerate(points) for point in of]:
        line = fundamental[b] @ torch.tensor([*start.tolist(), 1.0])
        line = line / line[:2].norm()
        ends = [line @ torch.tensor([x, y, 1.0]) for x in (0, width - 1) for y in (0, height - 1)]
        if min(ends) > 0 or max(ends) < 0:
            continue
        unit0, unit1 = (functional.normalize(raw[b], dim=0) for raw in (raw0, raw1))
        descriptor0 = sample_descriptors(unit0[None], start[None, None], STRIDE)[0, 0]
        there, spread, (row, column) = correspond(descriptor0, unit1)
        descriptor1 = sample_descriptors(unit1[None], there[None, None], STRIDE)[0, 0]
        back, spread_back, _ = correspond(descriptor1, unit0)
        offset = (line[:2] @ there + line[2]).abs()
        cycle = (back - start).norm()
        is_consistent = bool(offset < config.max_cycle_share * min(width, height)) and bool(
            cycle < config.max_cycle_px
        )
        if offset < config.max_epipolar_share * min(width, height):
            sums['epipolar'][0] += offset / spread
            sums['epipolar'][1] += 1 / spread
        if is_consistent:
            sums['cycle'][0] += cycle / (spread * spread_back)
            sums['cycle'][1] += 1 / (spread * spread_back)
        best = torch.tensor([column * 4 + 1.5, row * 4 + 1.5])
        if (line[:2] @ best + line[2]).abs() < config.window // 2 * STRIDE:
            weights, total = 0.0, torch.zeros(2)
            for r in range(row - config.window // 2, row + config.window // 2 + 1):
                for c in range(column - config.window // 2, column + config.window // 2 + 1):
                    r_in = min(max(r, 0), unit1.shape[1] - 1)
                    c_in = min(max(c, 0), unit1.shape[2] - 1)
                    similarity = descriptor0 @ unit1[:, r_in, c_in]
                    weight = (similarity / config.window_temperature).exp()
                    weights = weights + weight
                    total = total + weight * torch.tensor([c_in * 4 + 1.5, r_in * 4 + 1.5])
            sums['fine'][0] += (line[:2] @ (total / weights) + line[2]).abs() / spread
            sums['fine'][1] += 1 / spread
        logit = sample_map(logits[b : b + 1], start[None, None], STRIDE)[0, 0, 0]
        sums['head'][0] += functional.softplus(-logit if is_consistent else logit)
        sums['head'][1] += 1
    means = {key: total / count for key, (total, count) in sums.items()}
    return (
        config.epipolar_weight * means['epipolar']
        + config.fine_weight * means['fine']
        + config.cycle_weight * means['cycle']
        + config.distinctiveness_weight * means['head']
    )


def test_loss_and_gradients_agree_with_a_loop_over_points():
    """Gradients too: the weights must have none, the way back must have one."""
    # Limits that leave out some points and keep others.
    config = SelfSupervisedConfig(
        num_points=40, window=3, temperature=0.3, max_cycle_share=0.2, max_cycle_px=25.0
    )
    raw = [random_map(2, 6, 12, 16, seed=s).requires_grad_() for s in range(2)]
    logits = [random_map(2, 1, 12, 16, seed=s).requires_grad_() for s in (2, 3)]
    images = (random_map(2, 3, 48, 64, seed=4) * 60 + 128).clamp(0, 255).byte()
    # A shear: some lines of the first pair miss the image.
    tilted = fundamental_of_shift(1.0, 0.5) @ torch.tensor(
        [[1.0, 0.0, 0.0], [0.0, 2.0, 20.0], [0.0, 0.0, 1.0]]
    )
    fundamental = torch.stack([tilted, fundamental_of_shift(0.2, 1.0)])
    batch = {'image0': images, 'fundamental': fundamental}
    torch.manual_seed(0)
    loss, figures = make_loss(config)(
        describe(raw[0], logits[0]), describe(raw[1], logits[1]), batch, STRIDE
    )
    torch.manual_seed(0)
    points = draw_points(images, config.num_points, config.textured_share)
    _, known = lines_across(points, fundamental, [64, 48])
    assert 0.1 < known[0].float().mean() < 0.9
    assert 0 < figures['consistent'] < 0.9
    expected = reference_loss(*raw, logits[0], points, fundamental, config)
    torch.testing.assert_close(loss, expected)
    trained = [*raw, logits[0]]
    for got, wanted in zip(
        torch.autograd.grad(loss, trained), torch.autograd.grad(expected, trained), strict=True
    ):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-3)
    assert not any(figure.requires_grad for figure in figures.values())


def test_a_pair_whose_lines_are_not_known_trains_nothing():
    raw = [random_map(2, 6, 12, 16, seed=s).requires_grad_() for s in range(2)]
    logits = torch.zeros(2, 1, 12, 16, requires_grad=True)
    images = torch.zeros(2, 3, 48, 64, dtype=torch.uint8)
    for fundamentals, is_trained in (
        (torch.stack([fundamental_of_shift(1.0, 0.0), torch.zeros(3, 3)]), [True, False]),
        (torch.zeros(2, 3, 3), [False, False]),
    ):
        loss, _ = make_loss(SelfSupervisedConfig())(
            describe(raw[0], logits),
            describe(raw[1], logits),
            {'image0': images, 'fundamental': fundamentals},
            STRIDE,
        )
        gradients = torch.autograd.grad(loss, [*raw, logits])
        for gradient in gradients:
            assert gradient.isfinite().all()
            assert [bool((g != 0).any()) for g in gradient] == is_trained
        assert (loss > 0) == any(is_trained)


def test_points_are_drawn_where_the_image_has_texture_and_anywhere():
    images = torch.full((2, 3, 48, 64), 100, dtype=torch.uint8)
    images[0, :, 20:30, 40:50] = torch.randint(0, 255, (10, 10)).byte()
    points = draw_points(images, 400, 0.75)
    assert points.shape == (2, 400, 2)
    assert (points >= 0).all()
    assert (points <= torch.tensor([63.0, 47.0])).all()
    on_texture = ((points[0] >= torch.tensor([39.0, 19.0])) & (points[0] <= 50)).all(-1)
    assert 300 <= on_texture.sum() < 330  # 300 of the texture, a few by chance
    assert points[1, :300, 0].unique().numel() > 50  # no texture at all: anywhere
    assert draw_points(images, 400, 0.0).shape == (2, 400, 2)


def test_a_spacing_that_the_map_does_not_have_is_refused():
    maps = describe(random_map(1, 6, 12, 16, seed=0), torch.zeros(1, 1, 12, 16))
    batch = {
        'image0': torch.zeros(1, 3, 48, 64, dtype=torch.uint8),
        'fundamental': fundamental_of_shift(1.0, 0.0)[None],
    }
    with pytest.raises(ValueError, match='stride 4 px has no cells 6 px apart'):
        make_loss(SelfSupervisedConfig(spacing_px=6))(maps, maps, batch, STRIDE)


class TinyNetwork(nn.Module):
    """A few convolutions down to stride 4, of random weights."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 5, 2, 2), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU()
        )
        self.descriptor_head = nn.Conv2d(32, 24, 3, padding=1)
        self.distinctiveness_head = nn.Conv2d(32, 1, 1)

    def forward(self, images):
        body = self.body(images.float() / 127.5 - 1)
        return describe(self.descriptor_head(body), self.distinctiveness_head(body))


def shifted_textures(count, height=64, width=96):
    """Random textures and themselves, shifted each another way, with noise of their own."""
    pad = 32
    big = torch.rand(count, 3, (height + 2 * pad) // 4, (width + 2 * pad) // 4)
    big = functional.interpolate(big, scale_factor=4, mode='bicubic').clamp(0, 1) * 255
    angles = torch.arange(count) * (2 * math.pi / count)
    shifts = torch.stack([20 * angles.cos(), 14 * angles.sin()], -1).round()
    images1 = torch.stack(
        [
            texture[:, pad - y : pad - y + height, pad - x : pad - x + width]
            for texture, (x, y) in zip(big, shifts.int().tolist(), strict=True)
        ]
    )
    images1 = (images1 + 60 * torch.randn_like(images1)).clamp(0, 255)
    batch = {
        'image0': big[:, :, pad : pad + height, pad : pad + width].byte(),
        'image1': images1.byte(),
        'fundamental': torch.stack([fundamental_of_shift(*s) for s in shifts.tolist()]),
    }
    return batch, shifts


@torch.no_grad()
def share_right(network, batch, shifts):
    """Share of the cells of image 0 whose nearest descriptor lies within 6 px of the truth."""
    maps = [network(batch[key]).descriptors for key in ('image0', 'image1')]
    height, width = maps[0].shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2) * 4 + 1.5
    best = torch.einsum('bdp,bdq->bpq', *(x.flatten(2) for x in maps)).argmax(-1)
    true = pixels + shifts[:, None]
    inside = ((true >= 0) & (true <= torch.tensor([width, height]) * 4 - 1)).all(-1)
    return ((pixels[best] - true).norm(dim=-1) < 6)[inside].float().mean().item()


def test_learns_to_match_from_relative_poses_alone():
    """Lines say nothing of the place on them, yet the matches become right, on new images too."""
    torch.manual_seed(0)
    batch, shifts = shifted_textures(4)
    unseen, unseen_shifts = shifted_textures(4)
    network = TinyNetwork()
    before = share_right(network, unseen, unseen_shifts)
    loss_of = make_loss(SelfSupervisedConfig(num_points=200))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    history = []
    for _ in range(40):
        loss, figures = loss_of(network(batch['image0']), network(batch['image1']), batch, STRIDE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append((loss.item(), figures['consistent'].item()))
    assert history[-1][0] < 0.6 * history[0][0]
    assert history[-1][1] > 3 * history[0][1]
    assert before < 0.4
    assert share_right(network, batch, shifts) > 0.7
    assert share_right(network, unseen, unseen_shifts) > 0.7
