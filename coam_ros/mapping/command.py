"""Build a keyframe map from posed images, give it 3D, look into it, or fit it to another model.

Examples:
  coam map build 7scenes recording --frames map.txt --out kitchen_map
  coam map triangulate kitchen_map
  coam map info kitchen_map
  coam map describe kitchen_map --model my_model
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from coam_ros.mapping.build import add_layouts
from coam_ros.mapping.descriptors import compute_descriptors
from coam_ros.mapping.feature_cache import KeyframeFeatureCache
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.retrieval import NUM_NEIGHBOURS
from coam_ros.mapping.storage import check_target, load_map, save_map
from coam_ros.matching import CoamMatcher, Correspondences
from coam_ros.matching.command import add_model_arguments, load_matcher
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

# Fewer than this of a keyframe, and a pose from a few of them is doubtful.
_FEW_LANDMARKS = 500
_BUILD = """Make a map of posed images. `coam map build LAYOUT --help` tells about each layout.

examples:
  coam map build 7scenes recording --frames map.txt --out kitchen_map
  coam map build tum rgbd_dataset_freiburg1_desk --min-distance 0.2 --out desk_map
  coam map build colmap sparse/0 --images photos --out square_map
"""
_TRIANGULATE = """Give a map without depth images 3D: each keyframe is matched with those that look
like it, and what several of them see becomes landmarks, at the poses that the map has. The camera
must have moved sideways between them: turns on the spot give no 3D. In place; needs pycolmap.
Depth images stay and come first, landmarks stand in where they say nothing. Landmarks that are
there are replaced only with --overwrite.

example:
  coam map triangulate kitchen_map
"""
_INFO = """Check a map and print what is in it; with --picture draw it too, which needs matplotlib.

examples:
  coam map info kitchen_map
  coam map info kitchen_map --picture kitchen.png
"""
_DESCRIBE = """Compute the global descriptors of a map, in place: of one that map_recorder wrote,
or again for another model.

examples:
  coam map describe kitchen_map
  coam map describe kitchen_map --model my_model
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    actions = parser.add_subparsers(required=True, metavar='ACTION')
    add_layouts(_add(actions, 'build', 'make a map', _BUILD))

    triangulate = _add(actions, 'triangulate', 'give a map without depth 3D', _TRIANGULATE)
    triangulate.add_argument('map', type=Path, metavar='MAP', help='directory of the map')
    triangulate.add_argument(
        '--neighbours',
        type=int,
        default=NUM_NEIGHBOURS,
        metavar='N',
        help='keyframes to match with each one: more give more 3D, and take longer (%(default)s)',
    )
    triangulate.add_argument(
        '--overwrite', action='store_true', help='allow replacing landmarks that are there'
    )
    triangulate.add_argument(
        '--cache-mib',
        type=int,
        default=2048,
        metavar='MIB',
        help='memory for the features of keyframes (%(default)s)',
    )
    add_model_arguments(triangulate)
    triangulate.set_defaults(action=_triangulate)

    info = _add(actions, 'info', 'check a map and print what is in it', _INFO)
    info.add_argument('map', type=Path, metavar='MAP', help='directory of the map')
    info.add_argument(
        '--picture', type=Path, metavar='FILE', help='draw the map from above and from the side'
    )
    info.set_defaults(action=_print_info)

    describe = _add(actions, 'describe', 'compute what retrieval goes by', _DESCRIBE)
    describe.add_argument('map', type=Path, metavar='MAP', help='directory of the map')
    add_model_arguments(describe)
    describe.set_defaults(action=_describe)


def run(args: argparse.Namespace) -> int:
    """Do what the arguments chose."""
    args.action(args)
    return 0


def _add(
    actions: argparse._SubParsersAction, name: str, summary: str, description: str
) -> argparse.ArgumentParser:
    return actions.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _triangulate(args: argparse.Namespace) -> None:
    # COLMAP is an extra.
    from coam_ros.mapping.triangulation import check_request, triangulate_landmarks

    keyframe_map = load_map(args.map)
    check_request(keyframe_map, args.neighbours)
    num_there = sum(keyframe.landmark_pixels is not None for keyframe in keyframe_map)
    if num_there and not args.overwrite:
        raise ValueError(
            f'{args.map}: {num_there} of {len(keyframe_map)} keyframes have landmarks already; '
            'they were left alone. Allow replacing them with --overwrite.'
        )
    if args.cache_mib < 0:
        raise ValueError(f'--cache-mib is {args.cache_mib}, wanted 0 or more.')
    check_target(args.map, overwrite=True)
    matcher = load_matcher(args)
    describe_with_progress(keyframe_map, matcher)
    cache = KeyframeFeatureCache(matcher, args.cache_mib * 2**20)

    def match(keyframe0: Keyframe, keyframe1: Keyframe) -> Correspondences:
        encoded0, encoded1 = (cache.get(keyframe).encoded for keyframe in (keyframe0, keyframe1))
        return matcher.match_encoded(encoded0, [encoded1], both_ways=True)[0]

    with _bar('Matching keyframes') as progress:
        triangulated = triangulate_landmarks(
            keyframe_map,
            match,
            num_neighbours=args.neighbours,
            num_threads=args.threads,
            progress=progress,
        )
    numbers = [0 if k.landmark_pixels is None else len(k.landmark_pixels) for k in triangulated]
    if not any(numbers):
        raise ValueError(
            f'{args.map}: nothing to triangulate in {len(numbers)} keyframes; wanted images of '
            'one place from positions apart. Check the poses, and that the camera moved sideways.'
        )
    save_map(triangulated, args.map)
    console = Console(markup=False, soft_wrap=True)
    console.print(
        f'{args.map}: {np.count_nonzero(numbers)} of {len(numbers)} keyframes have landmarks, '
        f'{np.median(numbers):.0f} in the median one'
    )
    if np.median(numbers) < _FEW_LANDMARKS:
        console.print(
            'That is little. Where keyframes stand close to one another, their rays hardly meet: '
            'build the map with --min-distance, a seventh of the distance to what you look at.'
        )


def _print_info(args: argparse.Namespace) -> None:
    keyframe_map = load_map(args.map)
    keyframes = list(keyframe_map)
    positions_map = np.stack([keyframe.T_map_camera[:3, 3] for keyframe in keyframes])
    extent_m = np.ptp(positions_map, axis=0)
    sizes = sorted({f'{k.camera.width} x {k.camera.height}' for k in keyframes})
    num_bytes = sum(keyframe.num_bytes for keyframe in keyframes)
    table = Table(show_header=False, title=f'Map {args.map}')
    for name, value in {
        'id': keyframe_map.map_id,
        'frame': keyframe_map.frame_id,
        'keyframes': len(keyframes),
        'with depth': sum(keyframe.depth is not None for keyframe in keyframes),
        'with landmarks': sum(keyframe.landmark_pixels is not None for keyframe in keyframes),
        'with descriptor': sum(k.global_descriptor is not None for k in keyframes),
        'descriptors by': keyframe_map.descriptor_model_id or '-',
        'image sizes': ', '.join(sizes),
        'extent of positions': ' x '.join(f'{length:.2f}' for length in extent_m) + ' m',
        'size': f'{num_bytes / 2**20:.1f} MiB',
    }.items():
        table.add_row(name, str(value))
    console = Console(markup=False, soft_wrap=True)
    console.print(table)
    if args.picture is not None:
        # Matplotlib is an extra.
        from coam_ros.mapping.picture import draw_map

        with _bar('Drawing keyframes') as progress:
            draw_map(args.picture, keyframe_map, progress)
        console.print(f'Picture: {args.picture}')


def _describe(args: argparse.Namespace) -> None:
    keyframe_map = load_map(args.map)
    check_target(args.map, overwrite=True)
    matcher = load_matcher(args)
    num_computed = describe_with_progress(keyframe_map, matcher)
    if num_computed:
        save_map(keyframe_map, args.map)
    Console(markup=False, soft_wrap=True).print(
        f'{args.map}: {num_computed} of {len(keyframe_map)} descriptors computed, all of them are '
        f'by {matcher.descriptor_model_id} now'
    )


def describe_with_progress(keyframe_map: KeyframeMap, matcher: CoamMatcher) -> int:
    """Compute the descriptors that a map lacks, with a progress bar; returns how many."""
    with _bar('Describing keyframes') as progress:
        return compute_descriptors(keyframe_map, matcher, progress=progress)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar; gives what is called with (steps done, steps to do)."""
    with Progress(transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
