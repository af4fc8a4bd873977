"""`coam map build`: posed images, in the layouts in which people have them, become a map."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from coam_ros.mapping.builder import build_map
from coam_ros.mapping.importers.seven_scenes import SevenScenesSequence
from coam_ros.mapping.importers.sfm_model import SfmFrames
from coam_ros.mapping.importers.tum import TumSequence
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.storage import check_target, save_map
from coam_ros.matching.command import add_model_arguments, load_matcher
from rich.console import Console
from rich.progress import Progress

_SEVEN_SCENES = """Make a map of a directory in the layout of the 7-Scenes data set:

  frame-000012.color.jpg   image (or .png)
  frame-000012.depth.png   16-bit depth in mm, registered to the image; 0 and 65535 = none
  frame-000012.pose.txt    4 x 4 matrix from the camera to the world (optical frame: z forward)
  intrinsics.txt           3 x 3 matrix of the images, which must be free of distortion

examples:
  coam map build 7scenes recording --frames map.txt --out kitchen_map
  coam map build 7scenes recording --min-distance 0.2 --min-angle 10 --out kitchen_map
"""
_TUM = """Make a map of a directory in the layout of the TUM RGB-D data set:

  rgb.txt, depth.txt       stamp and file a line; no depth.txt without a depth camera
  groundtruth.txt          stamp tx ty tz qx qy qz qw a line, from the camera to the world
  rgb/, depth/             images; 16-bit depth registered to them, 5,000 counts a metre

Images without a pose within 0.02 s are left out.

examples:
  coam map build tum rgbd_dataset_freiburg1_desk --min-distance 0.2 --out desk_map
  coam map build tum recording --intrinsics 525,525,319.5,239.5 \\
      --distortion=-0.26,0.95,0,0,0 --out desk_map
"""
_COLMAP = """Make a map of a model of COLMAP (cameras, images, points3D; .bin or .txt), its points
as landmarks. Needs pycolmap. The map has the scale and axes of the model: bring it to metres
before, z up, for example with `colmap model_aligner`; the gates of localization are in metres.

example:
  coam map build colmap sparse/0 --images photos --out square_map
"""


@dataclass(frozen=True, eq=False)
class _Frames:
    """What a layout gives.

    Attributes:
        recording: frames, each read when it is asked for.
        indices: of the frames to choose keyframes from.
        remark: for people, or ''.
    """

    recording: Sequence[Keyframe]
    indices: Sequence[int]
    remark: str = ''


def add_layouts(parser: argparse.ArgumentParser) -> None:
    """Declare a sub-command for each layout; its `action` builds the map."""
    layouts = parser.add_subparsers(required=True, metavar='LAYOUT')

    def add(
        name: str,
        summary: str,
        description: str,
        open_frames: Callable[[argparse.Namespace], _Frames],
    ) -> argparse.ArgumentParser:
        layout = layouts.add_parser(
            name,
            help=summary,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        layout.set_defaults(action=lambda args: _build(args, open_frames))
        return layout

    seven_scenes = add('7scenes', 'layout of the 7-Scenes data set', _SEVEN_SCENES, _seven_scenes)
    seven_scenes.add_argument('directory', type=Path, metavar='DIR', help='recording')
    seven_scenes.add_argument(
        '--frames',
        type=Path,
        metavar='LIST',
        help='text file in DIR, a frame name a line (default: all frames of DIR)',
    )
    tum = add('tum', 'layout of the TUM RGB-D data set', _TUM, _tum)
    tum.add_argument('directory', type=Path, metavar='DIR', help='recording')
    tum.add_argument(
        '--intrinsics',
        type=_numbers(4),
        metavar='FX,FY,CX,CY',
        help='of the colour images [px] (default: of freiburg1, 2 or 3, by the name of DIR)',
    )
    tum.add_argument(
        '--distortion',
        type=_numbers(5),
        default=(),
        metavar='K1,K2,P1,P2,K3',
        help='with --intrinsics; written with = where the first one is negative (default: none)',
    )
    colmap = add('colmap', 'model of COLMAP', _COLMAP, _colmap)
    colmap.add_argument('reconstruction', type=Path, metavar='MODEL', help='its folder')
    colmap.add_argument(
        '--images', type=Path, required=True, metavar='DIR', help='folder of its images'
    )
    for layout in (seven_scenes, tum, colmap):
        _add_common(layout)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--out', type=Path, required=True, metavar='MAP', help='map to write')
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


def _build(args: argparse.Namespace, open_frames: Callable[[argparse.Namespace], _Frames]) -> None:
    # Before the work, not after it.
    check_target(args.out, overwrite=args.overwrite)
    source = open_frames(args)
    matcher = load_matcher(args)
    with Progress() as progress:
        task = progress.add_task('Building the map', total=len(source.indices))
        keyframe_map = build_map(
            # By index: iterating a Sequence would take an IndexError while it reads for the end.
            (source.recording[index] for index in source.indices),
            matcher,
            min_distance_m=args.min_distance,
            min_angle_deg=args.min_angle,
            frame_id=args.frame_id,
            progress=lambda count: progress.update(task, completed=count),
        )
    save_map(keyframe_map, args.out, overwrite=args.overwrite)
    console = Console(markup=False, soft_wrap=True)
    console.print(f'{args.out}: {len(keyframe_map)} keyframes of {len(source.indices)} frames.')
    if source.remark:
        console.print(source.remark)
    out = quote(str(args.out))
    if not any(k.depth is not None or k.landmark_pixels is not None for k in keyframe_map):
        console.print(
            f'None has a depth image: run coam map triangulate {out} to find the 3D that '
            'poses need.'
        )
    else:
        console.print(f'Try it: coam map info {out}, or give it to the nodes as map_path.')


def _seven_scenes(args: argparse.Namespace) -> _Frames:
    frames = SevenScenesSequence(args.directory, args.frames)
    return _Frames(frames, range(len(frames)))


def _tum(args: argparse.Namespace) -> _Frames:
    if args.distortion and args.intrinsics is None:
        raise ValueError('--distortion without --intrinsics, which it belongs to; give both.')
    calibration = None if args.intrinsics is None else (args.intrinsics, args.distortion)
    frames = TumSequence(args.directory, calibration)
    posed = frames.posed
    if not posed:
        raise ValueError(
            f'{args.directory}: none of {len(frames)} images has a pose; wanted stamps in '
            'groundtruth.txt within 0.02 s of those in rgb.txt.'
        )
    num_lost = len(frames) - len(posed)
    remark = f'{num_lost} images without a pose were left out.' if num_lost else ''
    return _Frames(frames, posed, remark)


def _colmap(args: argparse.Namespace) -> _Frames:
    # COLMAP is an extra.
    from coam_ros.mapping.importers.colmap import read_colmap_model

    frames = SfmFrames(args.images, list(read_colmap_model(args.reconstruction).values()))
    return _Frames(frames, range(len(frames)), 'Its scale is that of the model: wanted metres.')


def _numbers(count: int) -> Callable[[str], Sequence[float]]:
    def read(text: str) -> Sequence[float]:
        try:
            numbers = tuple(float(word) for word in text.split(','))
        except ValueError:
            numbers = ()
        if len(numbers) != count:
            raise argparse.ArgumentTypeError(f'got {text!r}, wanted {count} numbers with commas')
        return numbers

    return read
