"""Map a place, play a live camera through the real ROS 2 nodes, and report how well it went.

Without arguments: a room is rendered from photographs, with exact depth and poses. One path
through it makes the map. Then map_server and matcher start as real nodes, and the images of
ANOTHER path, in other light and with blur and noise, are published in real time. On the way the
camera is kidnapped twice and visits a room that is not in the map. About two minutes.

Examples:
  coam demo                              the rendered room
  coam demo --seed 7                     another room, other light
  coam demo --rate 10 --duration 120     a faster camera, a longer drive
  coam demo --scene recording            real images: the 7-Scenes directory "recording", mapped
                                         from its map.txt, played from its query.txt

The report folder gets report.html (open it in a browser), report.json (all figures), demo.rrd
(open it with `rerun demo.rrd`; only where the Python package rerun-sdk is installed), the map, and
the logs of the nodes. The exit status is 0 when the run came to its end, whether the bars were met
or not, and 1 when the nodes failed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
import shlex
import time

from coam_ros.demo.child_node import NodeDiedError
from coam_ros.demo.figures import describe_figures
from coam_ros.demo.player import play, PlayError
from coam_ros.demo.room_scenario import make_room_scenario
from coam_ros.demo.scene_scenario import read_scene_scenario
from coam_ros.demo.scoring import Score, score
from coam_ros.evaluation.files import write_json
from coam_ros.evaluation.metrics.localization import make_report
from coam_ros.mapping.builder import build_map
from coam_ros.mapping.storage import save_map
from coam_ros.matching import CoamMatcher
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

_NODES_FAILED = 1
_HTML, _RERUN = 'report.html', 'demo.rrd'
# They are rendered before the drive and kept in memory: 35 kB an image, measured.
_MAX_IMAGES = 20_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        '--scene',
        type=Path,
        metavar='DIR',
        help='play this recording in the 7-Scenes layout, with intrinsics.txt and two lists of '
        'frames, instead of the rendered room',
    )
    parser.add_argument(
        '--map-frames',
        metavar='LIST',
        help='with --scene: frames that make the map, a name a line (map.txt)',
    )
    parser.add_argument(
        '--live-frames',
        metavar='LIST',
        help='with --scene: frames that are played (query.txt)',
    )
    parser.add_argument(
        '--seed', type=_seed, help='of the rendered room, its light and its noise, from 0 on (0)'
    )
    parser.add_argument(
        '--rate',
        type=_number(0.5, 30.0),
        metavar='HZ',
        help='images a second, 0.5 to 30 (5; 2 with --scene, whose frames lie farther apart)',
    )
    parser.add_argument(
        '--duration',
        type=_number(10.0, 3600.0),
        metavar='S',
        help='of the drive through the rendered room, 10 to 3600 seconds (60)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('demo_report'),
        metavar='FOLDER',
        help='report folder; files of an earlier report in it are replaced (%(default)s)',
    )
    parser.add_argument('--model', type=Path, help='model folder (default: the included one)')


def run(args: argparse.Namespace) -> int:
    """Run the demo.

    Returns:
        0, or 1 when the nodes failed.

    Raises:
        ModuleNotFoundError: matplotlib is missing.
        ValueError: for options that do not fit together, or too many images.
        OSError: a recording cannot be read, or the report not be written.
    """
    _check_options(args)
    console = Console()
    started_s = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        with Progress(
            TextColumn('{task.description:<18}'),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn('{task.fields[note]}'),
            console=console,
        ) as progress:
            result = _map_play_and_report(args, progress)
    except (NodeDiedError, PlayError) as error:
        message = f'coam demo: {error}'
        Console(stderr=True).print(message, style='red', markup=False, soft_wrap=True)
        return _NODES_FAILED
    for table in _tables(result):
        console.print(table)
    written = [f'Report: {args.out / _HTML}']
    if (args.out / _RERUN).exists():
        written.append(f'Rerun recording: {args.out / _RERUN}')
    written.append(f'({time.monotonic() - started_s:.0f} s in all)')
    console.print('   '.join(written), soft_wrap=True)
    return 0


def _check_options(args: argparse.Namespace) -> None:
    if args.scene is None:
        others, wanted = ('map_frames', 'live_frames'), 'wanted it only with --scene; add --scene'
    else:
        others, wanted = ('seed', 'duration'), 'wanted it only without --scene; leave --scene out'
    for name in others:
        value = getattr(args, name)
        if value is not None:
            raise ValueError(f'{_option(name)} is {value}, {wanted} or leave out {_option(name)}.')
    num_images = round(_rate_hz(args) * _duration_s(args))
    if args.scene is None and num_images > _MAX_IMAGES:
        raise ValueError(
            f'--rate {_rate_hz(args):g} and --duration {_duration_s(args):g} make {num_images} '
            f'images, wanted at most {_MAX_IMAGES}; lower one of them.'
        )


def _rate_hz(args: argparse.Namespace) -> float:
    return args.rate or (5.0 if args.scene is None else 2.0)


def _duration_s(args: argparse.Namespace) -> float:
    return args.duration or 60.0


def _map_play_and_report(args: argparse.Namespace, progress: Progress) -> Score:
    # Not at the top: matplotlib and rerun take a second to import. Not after the drive: where one
    # is missing, a drive would be lost.
    from coam_ros.demo.html_report import make_html

    write_rerun = _import_write_rerun(progress.console)
    (args.out / _RERUN).unlink(missing_ok=True)
    if args.scene is None:
        with _bar(progress, 'Render the room') as advance:
            scenario = make_room_scenario(
                args.seed or 0, _rate_hz(args), _duration_s(args), advance
            )
    else:
        scenario = read_scene_scenario(
            args.scene,
            args.map_frames or 'map.txt',
            args.live_frames or 'query.txt',
            _rate_hz(args),
        )
    map_directory = args.out / 'map'
    with _bar(progress, 'Build the map', len(scenario.map_frames)) as advance:
        with closing(CoamMatcher.load(args.model)) as matcher:
            keyframe_map = build_map(scenario.map_frames, matcher, progress=advance)
        save_map(keyframe_map, map_directory)
    with _bar(progress, 'Live drive', len(scenario.live_frames)) as advance:
        recording = play(
            scenario,
            map_directory.resolve(),
            args.out,
            lambda sent, state: advance(sent, note=state),
            model_path=args.model and args.model.resolve(),
        )
    with _bar(progress, 'Report', 3) as advance:
        result = score(scenario, recording)
        queries = [outcome for outcome in result.outcomes if outcome is not None]
        write_json(args.out / 'report.json', make_report(result.summary, queries))
        advance(1)
        page = make_html(scenario, recording, result, keyframe_map, _command_line(args))
        (args.out / _HTML).write_text(page, encoding='utf-8')
        advance(2)
        if write_rerun is not None:
            write_rerun(args.out / _RERUN, scenario, recording, result)
        advance(3)
    return result


def _import_write_rerun(console: Console) -> Callable[..., None] | None:
    """Import what writes demo.rrd; without Rerun say so and give None."""
    try:
        from coam_ros.demo.rerun_recording import write_rerun
    except ImportError as error:
        # Rerun needs NumPy 2, which the OpenCV of Ubuntu 24.04 does not bear.
        console.print(
            f'No {_RERUN}: {error}. All else works without; pip install rerun-sdk brings it.',
            markup=False,
            soft_wrap=True,
        )
        return None
    return write_rerun


@contextmanager
def _bar(
    progress: Progress, title: str, total: int | None = None
) -> Iterator[Callable[..., None]]:
    """Show a bar; gives a function of the steps done, of all steps where not known before."""
    task = progress.add_task(title, total=total, note='')

    def advance(done: int, total: int | None = total, note: str = '') -> None:
        progress.update(task, completed=done, total=total, note=note)

    yield advance
    progress.update(task, note='')


def _command_line(args: argparse.Namespace) -> str:
    """Give the command that makes this report again."""
    words = ['./run', 'demo']
    for name, value in vars(args).items():
        if value is not None:
            words += [_option(name), f'{value}']
    return shlex.join(words)


def _option(name: str) -> str:
    return f'--{name.replace("_", "-")}'


def _tables(result: Score) -> Iterator[Table]:
    figures = Table('figure', 'value', title='Demo', title_justify='left')
    for name, value in describe_figures(result.summary):
        figures.add_row(name, value)
    yield figures
    if result.bars:
        bars = Table('bar', 'measured', 'wanted', '')
        for bar in result.bars:
            verdict = '[green]met[/green]' if bar.is_met else '[bold red]NOT met[/bold red]'
            bars.add_row(bar.name, bar.value, bar.wanted, verdict)
        yield bars


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f'{text} is below 0')
    return value


def _number(low: float, high: float) -> Callable[[str], float]:
    """Make a type for argparse: a number in a range."""

    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f'{text} is not in {low:g} .. {high:g}')
        return value

    parse.__name__ = 'number'
    return parse
