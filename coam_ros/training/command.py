"""`coam train`: train a network as a config says, or adapt one to a site."""

from __future__ import annotations

import argparse

from coam_ros.training.config import load_config, shipped_configs
from coam_ros.training.config_file import to_yaml
from coam_ros.training.distributed import joined_processes
from coam_ros.training.trainer import Trainer

_EXAMPLES = """\
A config is a YAML file; keys on the command line change it. The folder `out` gets checkpoint.pt
and best.pt (for `coam export`), metrics.jsonl, events for TensorBoard, and config.yaml. The same
command goes on where a stopped training was.

configs that come with the package: {configs}

examples:
  coam train default data_root=DATA                     make the default model again
  coam train default data_root=DATA --show              all keys and their values
  coam train default data_root=DATA out=runs/wide \\
    optimizer.rate=5e-4 data.view_size='[640, 480]'     change keys
  coam train default data.sources.0.weight=0.6 ...      change one entry of a list
  coam train default \\
    'data.sources=[{{kind: photos, path: PHOTOS}}]'       ... or the whole list
  coam train adapt map=MAP                              adapt the default model to your map
  coam train my.yaml                                    your own; it may begin with `base: default`
  coam train runs/default/config.yaml out=runs/again    repeat a training
  torchrun --nproc-per-node 4 -m coam_ros.cli train default data_root=DATA
                                                        4 GPUs; `data.batch` is shared by all
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.epilog = _EXAMPLES.format(configs=', '.join(shipped_configs()))
    parser.add_argument('--show', action='store_true', help='print the whole config and stop')
    parser.add_argument('config', metavar='CONFIG', help='YAML file, or name of one as below')
    parser.add_argument(
        'overrides', nargs='*', metavar='key.sub=value', help='value in YAML; indices in lists'
    )


def run(args: argparse.Namespace) -> int:
    """Train, or go on where the checkpoint in `out` stopped."""
    config = load_config(args.config, args.overrides, leaves_unset=args.show)
    if args.show:
        print(to_yaml(config), end='')
        return 0
    with joined_processes(config.device) as processes:
        Trainer(config, processes).run()
    return 0
