"""The paper's networks: agreement with the authors', at other sizes, and import of their files."""

from __future__ import annotations

import argparse
from functools import cache
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='PyTorch is not installed')

from coam_ros.cli import main  # noqa: E402
from coam_ros.training.checkpoint import load_initial_weights  # noqa: E402
from coam_ros.training.coattention import CoAttention  # noqa: E402
from coam_ros.training.config import load_config  # noqa: E402
from coam_ros.training.decoders import View  # noqa: E402
from coam_ros.training.deployment import DeployedPairMatcher  # noqa: E402
from coam_ros.training.encoders import ENCODERS, load_pretrained  # noqa: E402
from coam_ros.training.encoders.efficientnet import SameConv  # noqa: E402
from coam_ros.training.network import CoamNetwork  # noqa: E402
from coam_ros.training.network_config import NetworkConfig  # noqa: E402
from torch.nn import functional  # noqa: E402

REFERENCE = Path(__file__).resolve().parents[3] / 'shared' / 'paper_model'
# What the authors call their networks, and what we do.
NAMES = {'resnet50': 'paper_resnet50', 'efficientnet-b1': 'paper_efficientnet_b1'}
# Agreement with the authors' network, in standard deviations of a map: rounding gives 1e-5, and
# what matters least, the attention's scale at stride 16 alone, 1.6e-3.
TOLERANCE = 1e-4


@cache
def network_config(name):
    return load_config(name, leaves_unset=True).network


@cache
def procedural_state(theirs):
    """Weights in the authors' naming, made from the names of the entries."""
    if not REFERENCE.is_dir():
        pytest.skip(f'the reference data of the paper is not here: {REFERENCE}')
    file = REFERENCE / 'procedural_weights.py'
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    keys = json.loads((REFERENCE / f'{theirs}_keys.json').read_text())
    return {k: torch.from_numpy(x) for k, x in module.procedural_state(keys, seed=1).items()}


def import_state(state, folder):
    """Write a checkpoint as the authors do and import it by the command; its exit status."""
    opts = argparse.Namespace(lr=1e-4, W=256, use_nocs=False)
    file = folder / 'published.pth'
    torch.save({'epoch': 3, 'loss': np.float64(0.5), 'opts': opts, 'state_dict': state}, file)
    return main(['import-checkpoint', str(file), '--out', str(folder / 'out')])


@pytest.fixture(scope='module', params=NAMES)
def theirs(request):
    return request.param


@pytest.fixture(scope='module')
def network(theirs, tmp_path_factory):
    """Our network, started from an imported checkpoint as a training does it."""
    folder = tmp_path_factory.mktemp(theirs)
    assert import_state(procedural_state(theirs), folder) == 0
    network = CoamNetwork(network_config(NAMES[theirs]))
    load_initial_weights(network, str(folder / 'out' / 'checkpoint.pt'))
    return network.eval()


@torch.no_grad()
def describe_both(network, image0, image1):
    features0, features1 = network.encode(image0)[0], network.encode(image1)[0]
    return network.describe_pair(View(features0, None), View(features1, None))


def images(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 255 * torch.rand(1, 3, height, width, generator=generator)


def test_answers_are_those_of_the_authors_network(network, theirs):
    wanted = np.load(REFERENCE / f'{theirs}.npz', allow_pickle=False)
    # The reference is normalised; ours takes 0 to 255.
    image1, image2 = (torch.from_numpy(wanted[k] + 1) * 127.5 for k in ('image1', 'image2'))
    for index, described in enumerate(describe_both(network, image1, image2), start=1):
        found = {
            f'descriptor_map{index}': described.raw_descriptors[:, :, ::8, ::8],
            f'distinctiveness{index}': described.distinctiveness_logits.sigmoid(),
        }
        for name, value in found.items():
            error = np.abs(value.numpy() - wanted[name]).max() / wanted[name].std()
            assert error <= TOLERANCE, name


def test_images_may_have_other_sizes_and_differ_in_it(network):
    described0, described1 = describe_both(network, images(64, 96), images(96, 32, seed=1))
    for described, size in ((described0, (64, 96)), (described1, (96, 32))):
        descriptors, distinctiveness, visibility, raw = described
        assert descriptors.shape == raw.shape == (1, 64, *size)
        assert distinctiveness.shape == visibility.shape == (1, 1, *size)
        assert torch.isfinite(raw).all()
        torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(1, *size))
        torch.testing.assert_close(descriptors, raw / raw.norm(dim=1, keepdim=True))


@torch.no_grad()
def test_order_of_the_other_images_positions_does_not_matter_but_their_content_does(network):
    own, _ = network.encode(images(64, 96))
    generator = torch.Generator().manual_seed(0)
    # Features of another size, as strong as the own ones but of no image.
    other = {
        s: own[s].std() * torch.randn(*own[s].shape[:2], 96 // s, 32 // s, generator=generator)
        for s in own
    }
    shuffled = {
        s: x.flatten(2)[..., torch.randperm(x[0, 0].numel(), generator=generator)].view_as(x)
        for s, x in other.items()
    }
    plain, permuted, alone = (
        network.describe_pair(View(own, None), View(x, None))[0].raw_descriptors
        for x in (other, shuffled, own)
    )
    assert (permuted - plain).abs().max() < TOLERANCE * plain.std()
    assert (alone - plain).abs().max() > 0.1 * plain.std()


@torch.no_grad()
def test_padding_of_the_other_image_does_not_count():
    torch.manual_seed(0)
    network = CoamNetwork(network_config('paper_efficientnet_b1')).eval()
    own, other = (network.encode(images(64, 96, seed))[0] for seed in range(2))
    changed = {s: x.clone() for s, x in other.items()}
    for stride, x in changed.items():
        x[..., 64 // stride :] += 10
    size, padded = torch.tensor([[96.0, 64.0]]), torch.tensor([[64.0, 64.0]])
    plain, disturbed, unmasked = (
        network.describe_pair(View(own, size), View(x, other_size))[0].raw_descriptors
        for x, other_size in ((other, padded), (changed, padded), (changed, size))
    )
    torch.testing.assert_close(disturbed, plain)
    assert (unmasked - plain).abs().max() > 1e-3 * plain.std()


@torch.no_grad()
def test_a_decoder_to_stride_four_is_the_start_of_the_full_one(network):
    config = network.config
    short = CoamNetwork(
        NetworkConfig(**{**vars(config), 'output_stride': 4, 'decoder_dims': (256, 256, 128)})
    ).eval()
    features, _ = network.encode(images(64, 96))
    short_features, _ = short.encode(images(64, 96))
    assert set(features) == {2, 4, 8, 16, 32}
    assert set(short_features) == {4, 8, 16, 32}
    view = View(short_features, None)
    described, _ = short.describe_pair(view, view)
    assert described.descriptors.shape == (1, 64, 16, 24)
    shared = {
        k: x
        for k, x in network.decoder.state_dict().items()
        if not k.startswith(('blocks.3', 'blocks.4'))
    }
    short.decoder.load_state_dict(shared, strict=True)
    stages = []
    network.decoder.blocks[2].register_forward_hook(lambda *args: stages.append(args[-1]))
    network.decoder(View(features, None), View(features, None))
    features.pop(2)
    decoded, _ = short.decoder(View(features, None), View(features, None))
    torch.testing.assert_close(decoded, stages[0])


@torch.no_grad()
def test_the_deployed_matcher_takes_maps_of_full_resolution():
    """So that validation judges the paper's networks too: an image is its own best match."""
    torch.manual_seed(0)
    network = CoamNetwork(network_config('paper_efficientnet_b1')).eval()
    features, _ = network.encode(images(64, 96))
    view = View(features, torch.tensor([[96.0, 64.0]]))
    query, keyframe, scores, similarities, distinctiveness = DeployedPairMatcher(
        network, 40
    ).match(view, view)
    is_match = scores[0] > 0
    assert is_match.sum() > 20
    assert (query - keyframe)[0, is_match].abs().median() < 4
    # The score is the paper's, read at the refined point.
    paper = (similarities * distinctiveness)[0, is_match]
    torch.testing.assert_close(scores[0, is_match], paper, atol=0.1, rtol=0)


def test_scalar_heads_do_not_train_the_descriptors():
    network = CoamNetwork(network_config('paper_efficientnet_b1')).train()
    features, _ = network.encode(images(64, 96))
    described, _ = network.describe_pair(View(features, None), View(features, None))
    (described.distinctiveness_logits + described.visibility_logits).square().sum().backward()
    trained = {name for name, x in network.named_parameters() if x.grad is not None}
    assert trained
    assert all(name.startswith(('distinctiveness_head', 'visibility_head')) for name in trained)


@pytest.mark.parametrize('scale', [1.0, None], ids=['paper', 'light'])
@torch.no_grad()
def test_coattention_is_a_softmax_over_the_other_images_positions(scale):
    torch.manual_seed(0)
    attention = CoAttention(6, 4, scale, is_on=True)
    own, other = torch.randn(2, 6, 3, 5), torch.randn(2, 6, 4, 2)
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[1, 5:] = False

    def project(x, layer):
        return (
            torch.einsum('dc,bchw->bdhw', layer.weight[..., 0, 0], x) + layer.bias[:, None, None]
        )

    query, key = project(own, attention.query), project(other, attention.key)
    logits = torch.einsum('bdhw,bdij->bhwij', query, key) * (0.5 if scale is None else scale)
    weight = logits.exp() * mask.reshape(2, 1, 1, 4, 2)
    weight = weight / weight.sum((-1, -2), keepdim=True)
    wanted = torch.einsum('bhwij,bcij->bchw', weight, other)
    torch.testing.assert_close(attention(own, other, other, mask), wanted)


def test_coattention_keeps_its_logits_exact_under_mixed_precision():
    torch.manual_seed(0)
    attention = CoAttention(32, 64, 1.0, is_on=True)
    own, other = 20 * torch.randn(1, 32, 4, 4), 20 * torch.randn(1, 32, 4, 4)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = attention(own, other, other, None)
    torch.testing.assert_close(mixed, attention(own, other, other, None))


@pytest.mark.parametrize('kernel', [3, 5])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [(32, 32), (96, 50)])
def test_efficientnet_pads_an_even_input_so_that_ceil_of_its_size_is_left(kernel, stride, size):
    torch.manual_seed(0)
    layer = SameConv(2, 3, kernel, stride)
    x = torch.randn(1, 2, *size)
    total = [(-(-n // stride) - 1) * stride + kernel - n for n in size]
    margins = [m for t in reversed(total) for m in (t // 2, t - t // 2)]
    wanted = functional.conv2d(functional.pad(x, margins), layer.weight, stride=stride)
    assert wanted.shape[-2:] == tuple(n // stride for n in size)
    torch.testing.assert_close(layer(x), wanted)


def published_encoder(theirs):
    """An ImageNet state dict as torchvision or efficientnet-pytorch write it."""
    prefix = 'features.encoder.'
    state = {
        k.removeprefix(prefix): x
        for k, x in procedural_state(theirs).items()
        if k.startswith(prefix)
    }
    classifier = 'fc' if theirs == 'resnet50' else '_fc'
    return state | {f'{classifier}.weight': torch.zeros(2, 2), f'{classifier}.bias': torch.ones(2)}


def test_encoder_loads_imagenet_weights_of_its_publisher(network, theirs, tmp_path):
    state = published_encoder(theirs)
    # torchvision's file is older than the batch counters.
    state = {k: x for k, x in state.items() if not k.endswith('num_batches_tracked')}
    torch.save(state, tmp_path / 'imagenet.pth')
    encoder = ENCODERS[network.config.encoder]()
    load_pretrained(encoder, tmp_path / 'imagenet.pth')
    for name, value in network.encoder.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value), name


def test_encoder_refuses_weights_with_other_names_or_shapes(theirs, tmp_path):
    state = published_encoder(theirs)
    first = next(iter(state))
    state['renamed.weight'] = state.pop(first)
    bias = next(name for name in state if name.endswith('bn1.bias'))
    state[bias] = torch.zeros(7)
    torch.save(state, tmp_path / 'imagenet.pth')
    with pytest.raises(ValueError, match='missing') as error:
        load_pretrained(
            ENCODERS[network_config(NAMES[theirs]).encoder](), tmp_path / 'imagenet.pth'
        )
    for words in (f'missing: {first.strip("_")}', 'unknown: renamed.weight', '(7,) instead of'):
        assert words in str(error.value)


def test_a_frozen_encoder_without_weights_is_refused():
    network = CoamNetwork(network_config('paper_efficientnet_b1'))
    with pytest.raises(ValueError, match=r'network\.encoder_weights is not set'):
        network.load_pretrained_encoder()


@pytest.mark.parametrize(
    ('preset', 'changes', 'words'),
    [
        ('default', {'output_stride': 1, 'has_refiner': False}, 'choose decoder unet'),
        ('paper_efficientnet_b1', {'decoder_dims': (256, 256)}, 'needs 5 decoder_dims'),
    ],
)
def test_parts_that_do_not_fit_are_refused(preset, changes, words):
    config = NetworkConfig(**{**vars(network_config(preset)), **changes})
    with pytest.raises(ValueError, match=words):
        CoamNetwork(config)


def refused(capsys, arguments):
    """Run the import, which must end with a user's error; returns its message."""
    assert main(['import-checkpoint', *map(str, arguments)]) == 2
    message = capsys.readouterr().err
    assert 'Traceback' not in message
    assert 'weights_only' not in message  # torch's own advice on how to load it all the same
    return message


def test_import_names_missing_and_unknown_entries_and_writes_nothing(tmp_path, capsys):
    state = dict(procedural_state('efficientnet-b1'))
    state['fp3L.weight'] = state.pop('fp1L.weight')
    state['features.encoder.extra.weight'] = torch.zeros(1)
    assert import_state(state, tmp_path) == 2
    message = capsys.readouterr().err
    for words in ('attention.32.query.weight', 'fp3L.weight', 'encoder.extra.weight'):
        assert words in message
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ({'state_dict': {'conv1.weight': torch.zeros(1)}}, 'conv1.weight'),
        ({'model': {}}, 'state_dict'),
        ({'state_dict': {'conv1.weight': 3}}, 'no tensors'),
        ([1, 2], 'state_dict'),
    ],
)
def test_import_refuses_a_file_of_something_else(content, words, tmp_path, capsys):
    torch.save(content, tmp_path / 'file.pth')
    assert words in refused(capsys, [tmp_path / 'file.pth', '--out', tmp_path / 'out'])
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('is_zip', [True, False], ids=['new format', 'old format'])
@pytest.mark.parametrize('share', [0.0, 0.01, 0.5, 0.999])
def test_import_says_that_a_truncated_file_is_damaged(share, is_zip, tmp_path, capsys):
    file = tmp_path / 'file.pth'
    torch.save(
        {'state_dict': {'weight': torch.zeros(999)}}, file, _use_new_zipfile_serialization=is_zip
    )
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    message = refused(capsys, [file, '--out', tmp_path / 'out'])
    assert f'{file} ({int(share * len(content))} bytes) is damaged' in message


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize('is_zip', [True, False], ids=['new format', 'old format'])
def test_import_refuses_a_pickle_that_runs_code_and_does_not_run_it(is_zip, tmp_path, capsys):
    file, trace = tmp_path / 'file.pth', tmp_path / 'trace'
    content = {'state_dict': {'weight': torch.zeros(1)}, 'opts': Malicious(trace)}
    torch.save(content, file, _use_new_zipfile_serialization=is_zip)
    assert 'mkdir' in refused(capsys, [file, '--out', tmp_path / 'out'])
    assert not trace.exists()
    torch.load(file, weights_only=False)  # it does run where a pickle is trusted
    assert trace.exists()


def test_import_leaves_a_checkpoint_that_is_there(tmp_path, capsys):
    there = tmp_path / 'checkpoint.pt'
    there.write_bytes(b'of a training')
    assert 'another folder' in refused(capsys, [tmp_path / 'file.pth', '--out', tmp_path])
    assert there.read_bytes() == b'of a training'


def test_import_says_that_a_file_is_not_there(tmp_path, capsys):
    message = refused(capsys, [tmp_path / 'none.pth', '--out', tmp_path])
    assert 'none.pth' in message
