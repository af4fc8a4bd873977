"""Build a keyframe map from posed images, give it 3D, look into it, or fit it to another model.

Examples:
  coam map build 7scenes recording --frames map.txt --out kitchen_map
  coam map triangulate kitchen_map
  coam map info kitchen_map
  coam map describe kitchen_map --model my_model
"""

from __future__ import annotations

import argparse
from pathlib import Path

from coam_ros.mapping.builder import build_map, compute_descriptors
from coam_ros.mapping.feature_cache import KeyframeFeatureCache
from coam_ros.mapping.importers.seven_scenes import read_frames
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
_BUILD = """Make a map of the posed images of a recording.

example:
  coam map build 7scenes recording --frames map.txt --out kitchen_map
"""
_SEVEN_SCENES = """Make a map of a directory in the layout of the 7-Scenes data set:

  frame-000012.color.jpg   image (or .png)
  frame-000012.depth.png   16-bit depth in mm, registered to the image; 0 and 65535 = none
  frame-000012.pose.txt    4 x 4 matrix from the camera to the world (optical frame: z forward)
  intrinsics.txt           3 x 3 matrix of the images, which must be free of distortion

examples:
  coam map build 7scenes recording --frames map.txt --out kitchen_map
  coam map build 7scenes recording --min-distance 0.2 --min-angle 10 --out kitchen_map
"""
_TRIANGULATE = """Give a map without depth images 3D: each keyframe is matched with those that look
like it, and what several of them see becomes landmarks, at the poses that the map has. The camera
must have moved sideways between them: turns on the spot give no 3D. In place; needs pycolmap.
Depth images stay; landmarks that are there are replaced only with --overwrite.

example:
  coam map triangulate kitchen_map
"""
_INFO = """Check a map and print what is in it.

example:
  coam map info kitchen_map
"""
_DESCRIBE = """Compute the global descriptors of a map again, for another model, in place.

example:
  coam map describe kitchen_map --model my_model
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    actions = parser.add_subparsers(required=True, metavar='ACTION')
    build = _add(actions, 'build', 'make a map', _BUILD)
    sources = build.add_subparsers(required=True, metavar='LAYOUT')
    _add_seven_scenes(_add(sources, '7scenes', 'layout of the 7-Scenes data set', _SEVEN_SCENES))

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
    info.set_defaults(action=_print_info)

    describe = _add(actions, 'describe', 'fit a map to another model', _DESCRIBE)
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


def _add_seven_scenes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('directory', type=Path, metavar='DIR', help='recording')
    parser.add_argument('--out', type=Path, required=True, metavar='MAP', help='map to write')
    parser.add_argument(
        '--frames',
        type=Path,
        metavar='LIST',
        help='text file in DIR, a frame name a line (default: all frames of DIR)',
    )
    parser.add_argument(
        '--min-distance',
        type=float,
        default=0.0,
        metavar='M',
        help='leave a frame out when a keyframe is nearer than this and turned by less than '
        '--min-angle [m] (%(default)s = take every frame)',
    )
    parser.add_argument(
        '--min-angle', type=float, default=10.0, metavar='DEG', help='see there (%(default)s)'
    )
    parser.add_argument('--frame-id', default='map', help='name of the map frame (%(default)s)')
    parser.add_argument(
        '--overwrite', action='store_true', help='allow overwriting a map that is there'
    )
    add_model_arguments(parser)
    parser.set_defaults(action=_build_seven_scenes)


def _build_seven_scenes(args: argparse.Namespace) -> None:
    # Before the work, not after it.
    check_target(args.out, overwrite=args.overwrite)
    frames = read_frames(args.directory, args.frames)
    matcher = load_matcher(args)
    with Progress() as progress:
        task = progress.add_task('Building the map', total=len(frames))
        keyframe_map = build_map(
            frames,
            matcher,
            min_distance_m=args.min_distance,
            min_angle_deg=args.min_angle,
            frame_id=args.frame_id,
            progress=lambda count: progress.update(task, completed=count),
        )
    save_map(keyframe_map, args.out, overwrite=args.overwrite)
    console = Console(markup=False, soft_wrap=True)
    console.print(f'{args.out}: {len(keyframe_map)} keyframes of {len(frames)} frames.')
    if any(keyframe.depth is not None for keyframe in keyframe_map):
        console.print(
            f'Try it: coam localize {args.directory} --frames query.txt --map {args.out}'
        )
    else:
        console.print(
            f'None has a depth image: run coam map triangulate {args.out} to find the 3D that '
            'poses need.'
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

    with Progress(transient=True) as progress:
        task = progress.add_task('Matching keyframes', total=None)
        triangulated = triangulate_landmarks(
            keyframe_map,
            match,
            num_neighbours=args.neighbours,
            num_threads=args.threads,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
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
    Console(markup=False, soft_wrap=True).print(table)


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
    with Progress(transient=True) as progress:
        task = progress.add_task('Describing keyframes', total=None)
        return compute_descriptors(
            keyframe_map,
            matcher,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
