"""Match two images and draw the matches side by side.

Two images of different places have matches too: only a geometry that they agree on tells
(`coam localize`, the nodes).

Example:
  coam match left.jpg right.jpg --out matches.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from coam_ros.inference.model import BACKENDS
from coam_ros.matching.drawing import draw_matches
from coam_ros.matching.image_files import check_image_name, read_image, write_image
from coam_ros.matching.matcher import CoamMatcher
from rich.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument('image0', type=Path, metavar='IMAGE0', help='drawn left')
    parser.add_argument('image1', type=Path, metavar='IMAGE1', help='drawn right')
    parser.add_argument(
        '--out', type=Path, default=Path('matches.png'), help='picture to write (%(default)s)'
    )
    parser.add_argument(
        '--max-lines', type=int, default=150, metavar='N', help='matches to draw (%(default)s)'
    )
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Match, draw and say how many matches there are."""
    if args.max_lines < 1:
        raise ValueError(f'--max-lines is {args.max_lines}, wanted 1 or more.')
    # Before the work, not after it.
    check_image_name(args.out)
    image0, image1 = read_image(args.image0), read_image(args.image1)
    matcher = load_matcher(args)
    found = matcher.match(image0, image1)
    best = slice(args.max_lines)
    picture = draw_matches(
        image0, image1, found.points0[best], found.points1[best], max_matches=args.max_lines
    )
    write_image(args.out, picture)
    Console(markup=False, soft_wrap=True).print(
        f'{len(found)} matches by {matcher.model_id} on {matcher.backend_name}; the best '
        f'{len(found.scores[best])} are drawn in {args.out}'
    )
    return 0


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which model runs, and on what; `load_matcher` takes them."""
    group = parser.add_argument_group('model')
    group.add_argument('--model', type=Path, help='folder (default: the included one)')
    group.add_argument(
        '--backend',
        default='auto',
        choices=BACKENDS,
        help='what runs it (%(default)s = the fastest)',
    )
    group.add_argument(
        '--image-area',
        type=int,
        metavar='PX',
        help="images are resized to this area (default: the model's, about 640 x 480; "
        'at least 64 px for each point that the model selects)',
    )
    group.add_argument(
        '--threads', type=int, metavar='N', help='CPU threads (default: one a physical core)'
    )


def load_matcher(args: argparse.Namespace) -> CoamMatcher:
    """Load the model that the arguments name."""
    return CoamMatcher.load(
        args.model,
        backend=args.backend,
        image_area_px=args.image_area,
        num_threads=args.threads,
    )
