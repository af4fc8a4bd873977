"""Match the images of a folder and write the matches for COLMAP and for hloc.

Examples:
  coam export-colmap photos --out exported
  coam export-colmap photos --pairs pairs.txt --out exported --reconstruct
  colmap mapper --database_path exported/database.db --image_path photos --output_path sparse

The folder written holds
  database.db            COLMAP: cameras, images, key points, matches, verified geometries
  features.h5 matches.h5 pairs.txt   the same in the HDF5 layout of hloc
  sparse/                COLMAP model, with --reconstruct
"""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from coam_ros.evaluation.benchmarks.matching import match_collection
from coam_ros.evaluation.benchmarks.sfm import DATABASE, measure_reconstruction, MODEL
from coam_ros.evaluation.data.image_collection import add_collection_arguments, open_collection
from coam_ros.evaluation.files import output_folder
from coam_ros.evaluation.hloc_export import check_names, FEATURES, MATCHES, PAIRS, write_hloc
from coam_ros.evaluation.matchers.choice import add_matcher_arguments, chosen_matchers
from coam_ros.mapping.colmap_database import write_database
from coam_ros.mapping.shared_keypoints import share_keypoints
from rich.console import Console
from rich.progress import track


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument('directory', type=Path, metavar='DIR', help='images, in sub-folders too')
    parser.add_argument(
        '--out',
        type=output_folder,
        required=True,
        metavar='FOLDER',
        help='where to write the files',
    )
    add_collection_arguments(parser)
    add_matcher_arguments(parser)
    parser.add_argument(
        '--reconstruct', action='store_true', help='reconstruct the scene with COLMAP at once'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='allow replacing such files that are there'
    )


def run(args: argparse.Namespace) -> int:
    """Match, write the files and say what is in them."""
    console = Console(markup=False, soft_wrap=True)
    choices = list(chosen_matchers(args))
    if len(choices) != 1:
        raise ValueError(
            f'{len(choices)} matchers, {", ".join(choice.name for choice in choices)}; wanted '
            'one, whose matches the files hold. Name it with --matcher.'
        )
    collection = open_collection(args.directory, args)
    check_names(collection.names)
    # Only a list in the folder tells them.
    is_listed = bool(collection.posed_pairs)
    source = f', of the list in {args.directory}; --neighbours does not count' if is_listed else ''
    console.print(f'{len(collection.pairs)} pairs of {len(collection.names)} images{source}')
    if not args.overwrite:
        _check_target(args.out)
    with closing(choices[0].open(args)) as matcher:
        matched = list(
            track(
                match_collection(collection, matcher),
                'Matching',
                total=len(collection.pairs),
                console=console,
            )
        )
    for pair in matched:
        if pair.failure:
            console.print(f'{matcher.model_id} failed on {" ".join(pair.names)}: {pair.failure}')
    shared = share_keypoints(matched, args.merge_radius)
    write_hloc(args.out, shared)
    if args.reconstruct:
        figures = measure_reconstruction(collection, shared, args.out, args.threads)
        if not figures['registered_images']:
            raise ValueError(
                f'COLMAP reconstructs nothing from these matches; they are in {args.out}. Look at '
                'the images: wanted some that show one place from several sides.'
            )
        for name, value in figures.items():
            # All digits of a count.
            text = f'{value:.0f}' if float(value).is_integer() else f'{value:.4g}'
            console.print(f'{name.replace("_", " ")}: {text}')
    else:
        write_database(args.out / DATABASE, args.directory, shared, collection.intrinsics)
    console.print(
        f'{args.out}: {sum(map(len, shared.matches.values()))} matches of {len(shared.matches)} '
        f'pairs of {len(shared.keypoints)} images by {matcher.model_id}'
    )
    return 0


def _check_target(folder: Path) -> None:
    """Refuse a folder with files of these names, which may be a project of COLMAP."""
    names = (DATABASE, FEATURES, MATCHES, PAIRS, MODEL)
    there = [name for name in names if (folder / name).exists()]
    if there:
        raise FileExistsError(
            f'{folder} holds {", ".join(there)} already; they were left alone. Allow replacing '
            'them with --overwrite, or choose another folder.'
        )
