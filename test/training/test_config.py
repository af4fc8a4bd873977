"""Configs: files, overrides, and what is said of wrong ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip('torch', reason='PyTorch is not installed')

from coam_ros.cli import main
from coam_ros.training.config import (
    ExperimentConfig,
    load_config,
    ScheduleConfig,
    shipped_configs,
)
from coam_ros.training.config_file import build, differences, to_values
from coam_ros.training.data import (
    PhotoSourceConfig,
    PosedImageSourceConfig,
    TrackSourceConfig,
)
from coam_ros.training.data.views import CropConfig
from coam_ros.training.losses import CrossEntropyConfig, PaperLossConfig
import yaml

ROOTS = ['data_root=/data', 'map=/map']


@pytest.mark.parametrize('name', shipped_configs())
def test_every_shipped_config_is_whole_and_comes_back_from_its_values(name):
    config = load_config(name, ROOTS)
    assert config.name == name
    assert config.out == f'runs/{name}'
    assert build(ExperimentConfig, yaml.safe_load(yaml.safe_dump(to_values(config)))) == config


def test_the_shipped_configs_are_those_of_the_project():
    assert set(shipped_configs()) >= {
        'adapt',
        'default',
        'paper_efficientnet_b1',
        'paper_resnet50',
        'self_supervised',
    }


def test_the_paper_configs_hold_the_constants_of_the_paper():
    config = load_config('paper_resnet50', ROOTS)
    assert (config.optimizer.kind, config.optimizer.rate) == ('adam', 1e-4)
    assert config.optimizer.weight_decay == 5e-4
    assert (config.data.batch, config.data.view_size) == (8, (256, 256))
    assert config.loss == PaperLossConfig()
    (source,) = config.data.sources
    assert (source.min_overlap, source.photometric_strength) == (0.2, 0)
    assert config.data.points == 'pixels'
    assert config.schedule.factor(1) == config.schedule.factor(config.schedule.steps) == 1
    other = load_config('paper_efficientnet_b1', ROOTS)
    changed = replace(config.network, encoder='efficientnet_b1')
    assert other == replace(
        config, name='paper_efficientnet_b1', out='runs/paper_efficientnet_b1', network=changed
    )


def test_adaptation_has_the_default_network_and_holds_keyframes_back():
    adapt = load_config('adapt', ['map=/my/map'])
    assert adapt.network == load_config('default', ROOTS).network
    assert adapt.init == 'default'
    (trained,), (judged,) = adapt.data.sources, adapt.validation.sources
    assert trained.path == judged.path == '/my/map'
    assert (trained.part, judged.part) == ('training', 'held_back')
    assert trained.hold_back_every == judged.hold_back_every


def test_a_config_is_found_by_name_by_shipped_path_and_by_path(tmp_path):
    (tmp_path / 'mine.yaml').write_text('base: default\nname: mine\nseed: 3\n')
    default = load_config('default', ROOTS)
    assert load_config('configs/default.yaml', ROOTS) == default
    mine = load_config(str(tmp_path / 'mine.yaml'), ROOTS)
    assert mine == replace(default, name='mine', out='runs/mine', seed=3)


def test_overrides_change_keys_entries_of_lists_and_whole_lists():
    config = load_config(
        'default',
        [
            *ROOTS,
            'optimizer.rate=3e-4',  # text for YAML 1.1, a number for us
            'data.sources.0.weight=0.7',
            'data.sources.0.crop.min_extent=0.5',
            'data.view_size=[640, 480]',
            'optimizer.clip_norm=null',
            'network.uses_coattention=false',
            'network.decoder_dims.1=32',  # of a list that the file does not have
        ],
    )
    assert config.optimizer.rate == 3e-4
    assert config.data.sources[0].weight == 0.7
    assert config.data.sources[0].crop.min_extent == 0.5
    assert len(config.data.sources) == len(load_config('default', ROOTS).data.sources)
    assert config.data.view_size == (640, 480)
    assert config.optimizer.clip_norm is None
    assert config.network.uses_coattention is False
    assert config.network.decoder_dims == (96, 32, 64)
    sources = 'data.sources=[{kind: photos, path: a}, {kind: tracks, path: b, weight: 2}]'
    assert load_config('default', [sources]).data.sources == (
        PhotoSourceConfig(path='a'),
        TrackSourceConfig(path='b', weight=2.0),
    )


def test_a_part_of_a_mapping_in_a_file_leaves_the_rest_at_the_default_of_its_source(tmp_path):
    file = tmp_path / 'mine.yaml'
    file.write_text(
        'base: self_supervised\nname: mine\ndata:\n  sources:\n'
        '    - {kind: posed_images, path: a, crop: {min_extent: 0.6}}\n'
    )
    (source,) = load_config(str(file)).data.sources
    assert source == PosedImageSourceConfig(
        path='a', crop=CropConfig(min_extent=0.6, rotation_std_deg=0.0)
    )


def test_another_kind_drops_the_constants_of_the_former_one():
    words = [*ROOTS, 'loss.temperature=0.1']
    assert load_config('default', words).loss == CrossEntropyConfig(temperature=0.1)
    words += ['network.has_refiner=false', 'loss.kind=paper', 'loss.tau=0.5']
    assert load_config('default', words).loss == PaperLossConfig(tau=0.5)


@pytest.mark.parametrize(
    ('word', 'wanted'),
    [
        ('optimzer.rate=1', "optimzer: unknown key. Did you mean 'optimizer'?"),
        ('optimizer.rte=1', "optimizer.rte: unknown key. Did you mean 'rate'?"),
        ('max_steps=2', "max_steps: unknown key. Did you mean 'schedule.steps'?"),
        ('data.sources.0.wieght=1', "data.sources.0.wieght: unknown key. Did you mean 'weight'?"),
        ('loss.kind=papr', "loss.kind is 'papr'. Did you mean 'paper'?"),
        ('optimizer.kind=adam2', "optimizer.kind is 'adam2'. Did you mean 'adam'?"),
        ('optimizer.rate=fast', "optimizer.rate is str 'fast', wanted a number"),
        ('optimizer.rate=0', 'optimizer.rate is 0.0, wanted more than 0'),
        ('optimizer.clip_norm=0', 'optimizer.clip_norm is 0.0, wanted more than 0'),
        ('optimizer.encoder_rate=-1', 'optimizer.encoder_rate is -1.0, wanted at least 0'),
        ('schedule.final_share=-1', 'schedule.final_share is -1.0, wanted at least 0'),
        ('optimizer.ema_decay=1', 'optimizer.ema_decay is 1.0, wanted 0 <= ema_decay < 1'),
        ('schedule.steps=1.5', 'schedule.steps is float 1.5, wanted a whole number'),
        ('schedule.steps=true', 'schedule.steps is bool True, wanted a whole number'),
        ('schedule.steps=0', 'schedule.steps is 0, wanted at least 1'),
        ('tensorboard=1', 'tensorboard is int 1, wanted true or false'),
        ('data=3', 'data is int 3, wanted keys and values'),
        ('data.sources=photos', "data.sources is str 'photos', wanted a list"),
        ('data.sources=[]', 'data.sources is empty'),
        ('data.sources=[{path: a}]', 'data.sources.0.kind is None. Wanted one of: keyframe_map,'),
        ('data.sources=[{kind: photos}]', 'data.sources.0.path is missing'),
        (
            'data.sources.0.weight=-1',
            'data.sources.0: weight is -1.0, wanted a number of at least',
        ),
        ('data.sources.99.weight=1', 'data.sources.99: data.sources has 10 entries'),
        ('data.view_size=[320]', 'data.view_size is [320]: 1 entries, wanted 2'),
        ('data.view_size=[320, 250]', 'wanted width and height as multiples of 32 px'),
        ('network.decoder=unett', "network.decoder is 'unett'. Did you mean 'unet'?"),
        ('network.encoder=resnet5', "network.encoder is 'resnet5'. Did you mean 'resnet50'?"),
        ('network.distinctiveness=none', "network.distinctiveness is 'none'. Wanted one of: line"),
        ('network.output_stride=3', 'network.output_stride is 3. Wanted one of: 1, 2, 4.'),
        ('network.output_stride=true', 'network.output_stride is True. Wanted one of: 1, 2, 4.'),
        ('network.output_stride=2', 'network.has_refiner needs output_stride 4, got 2'),
        ('network.attention_dims=[64]', 'network.attention_dims is [64]: 1 entries, wanted 2'),
        ('validation.seed=0', 'seed and validation.seed are both 0'),
        ('validation.num_matches=4000', 'wanted at most the 1728 candidates'),
        ('loss.kind=self_supervised', 'data.sources.0 has correspondences, wanted a source of'),
        (
            'data.sources.0.crop.rotation_std_deg=-1',
            'data.sources.0.crop: rotation_std_deg is -1.0, wanted a number of at least 0',
        ),
        (
            'data.sources.0.homography.max_shift=-1',
            'data.sources.0.homography: max_shift is -1.0, wanted a number of at least 0',
        ),
        (
            'data.sources.4.min_size_m=[10, 10, 3]',
            'data.sources.4: Rooms are [10.0, 10.0, 3.0] to [9.0, 7.0, 3.6] m large, wanted',
        ),
        (
            'data.sources.4.roll_std_deg=-1',
            'data.sources.4: roll_std_deg is -1.0, wanted a number of at least 0',
        ),
        ('data.sources.5.min_tracks=0', 'data.sources.5: min_tracks is 0, wanted at least 1'),
        (
            'data.sources.0={kind: keyframe_map, path: a, min_landmarks: 0}',
            'data.sources.0: min_landmarks is 0, wanted at least 1',
        ),
        ('network.descriptor_kernel=2', 'network.descriptor_kernel is 2, wanted an odd number'),
        ('network.descriptor_dim=0', 'network.descriptor_dim is 0, wanted at least 1'),
        ('loss.temperature=0', 'loss.temperature is 0.0, wanted at least 0.001'),
        ('loss={kind: paper, num_hardest: 0}', 'loss.num_hardest is 0, wanted at least 1'),
        (
            'loss={kind: paper, num_random: 2, num_hardest: 4}',
            'loss.num_hardest is 4, wanted at most the 3 negatives of a positive',
        ),
        (
            'data.points=pixels',
            "data.points is 'pixels', wanted blocks for the loss cross_entropy",
        ),
        ('loss={kind: paper}', 'network.has_refiner is true, and this loss does not train it'),
        ('rate', "'rate' is no override, wanted key=value"),
        ('optimizer.rate=[', 'is no YAML'),
    ],
)
def test_a_wrong_word_is_refused_by_its_name(word, wanted, capsys):
    assert main(['train', 'default', *ROOTS, word]) == 2
    message = capsys.readouterr().err
    assert wanted in message
    assert 'Traceback' not in message


def test_a_loss_that_wants_correspondences_gets_no_source_without(capsys):
    assert main(['train', 'self_supervised', *ROOTS, 'loss.kind=cross_entropy']) == 2
    assert 'data.sources.0 has no correspondences' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('word', 'wanted'),
    [
        ('loss.window=4', 'loss.window is 4, wanted an odd number'),
        ('loss.textured_share=90', 'loss.textured_share is 90.0, wanted a share from 0 to 1'),
        ('data.sources.0.min_baseline_m=0', 'data.sources.0: min_baseline_m is 0.0, wanted more'),
        ('loss.window_temperature=0', 'loss.window_temperature is 0.0, wanted at least 0.001'),
    ],
)
def test_constants_of_self_supervised_training_are_checked(word, wanted, capsys):
    assert main(['train', 'self_supervised', *ROOTS, word]) == 2
    assert wanted in capsys.readouterr().err


def test_a_refiner_of_a_checkpoint_is_kept_by_a_loss_that_does_not_train_it():
    words = [*ROOTS, 'loss.kind=paper', 'init=default']
    assert load_config('default', words).network.has_refiner


def test_a_base_is_looked_for_beside_its_file(tmp_path):
    folder = tmp_path / 'mine'
    folder.mkdir()
    (folder / 'common.yaml').write_text('base: default\nname: common\nseed: 7\n')
    (folder / 'long.yaml').write_text('base: common.yaml\nname: long\n')
    config = load_config(str(folder / 'long.yaml'), ['data_root=/data'])
    assert (config.name, config.seed) == ('long', 7)


def test_a_root_that_is_not_set_is_asked_for_after_misspelt_keys(capsys):
    assert main(['train', 'adapt']) == 2
    message = capsys.readouterr().err
    assert 'data.sources.0.path needs map, which is not set' in message
    assert 'map=...' in message
    assert main(['train', 'adapt', 'mpa=x']) == 2
    assert "Did you mean 'map'?" in capsys.readouterr().err


def test_a_file_that_is_none_is_refused(tmp_path, capsys):
    assert main(['train', str(tmp_path / 'none.yaml')]) == 2
    assert 'default' in capsys.readouterr().err
    for content, wanted in (
        ('a: [', 'is no YAML file'),
        ('- 1', 'wanted keys and values'),
        ('base: 3\n', 'base is 3 in '),
        ('base: mine.yaml\n', 'the bases go round'),
    ):
        path = tmp_path / 'mine.yaml'
        path.write_text(content.replace('mine.yaml', str(path)))
        assert main(['train', str(path)]) == 2
        assert wanted in capsys.readouterr().err


def test_show_prints_a_config_that_is_the_same_again(tmp_path, capsys):
    assert main(['train', 'default', 'data_root=/data', 'seed=5', '--show']) == 0
    (tmp_path / 'shown.yaml').write_text(capsys.readouterr().out)
    assert load_config(str(tmp_path / 'shown.yaml')) == load_config(
        'default', ['data_root=/data', 'seed=5']
    )
    assert main(['train', 'default', '--show']) == 0
    assert 'path: ${data_root}/photos' in capsys.readouterr().out


def test_help_teaches_by_examples(capsys):
    with pytest.raises(SystemExit):
        main(['train', '--help'])
    shown = capsys.readouterr().out
    for words in (
        *shipped_configs(),
        'coam train adapt map=MAP',
        'data.sources.0.weight',
        '--show',
    ):
        assert words in shown


def test_differences_are_named_with_both_values():
    old = {'a': 1, 'b': {'c': [1, 2], 'd': 3}, 'gone': 1}
    new = {'a': 1, 'b': {'c': [1, 5], 'd': 4}, 'new': [1]}
    assert differences(old, new) == [
        'b.c.1: 2 -> 5',
        'b.d: 3 -> 4',
        'gone: 1 -> None',
        'new: None -> [1]',
    ]


def test_the_rate_warms_up_and_falls_as_a_cosine():
    schedule = ScheduleConfig(steps=110, warmup_steps=10, final_share=0.02)
    assert [schedule.factor(step) for step in (0, 5, 10)] == [0, 0.5, 1]
    assert schedule.factor(60) == pytest.approx(0.51)
    assert schedule.factor(110) == pytest.approx(0.02)
