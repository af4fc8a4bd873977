"""`coam export`: a checkpoint to a model folder: the ONNX pair, its manifest and the weights.

What ONNX Runtime answers is compared with PyTorch before the folder is put in its place. The pair
matcher comes in int8 too, for CPUs without bfloat16, if the gate of `coam check-engine` takes it.

Examples:
  coam export runs/default/best.pt --photos DATA/photos --out models/default
  coam export runs/adapt/best.pt --out models/kitchen      # retrieval as in the default model
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
import hashlib
import logging
import math
from pathlib import Path
import shutil
import tempfile
from typing import Any
import warnings

from coam_ros.inference import default_model_directory
from coam_ros.inference.files import replace_folder, sha256_of
from coam_ros.inference.manifest import (
    BLOCK_PX,
    FORMAT_VERSION,
    Manifest,
    MANIFEST_NAME,
    NetworkFile,
)
from coam_ros.inference.model import (
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
    PAIR_MATCHER_INPUTS,
    PAIR_MATCHER_OUTPUTS,
)
from coam_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
from coam_ros.matching.image_files import read_image
from coam_ros.matching.preprocessing import Resizing
from coam_ros.training.checkpoint import DEFAULT_WEIGHTS, save_checkpoint
from coam_ros.training.config_file import build, to_values
from coam_ros.training.data.reading import list_photos
from coam_ros.training.deployment import DeployedEncoder, DeployedPairMatcher
from coam_ros.training.global_descriptor import DIM, GlobalDescriptor
from coam_ros.training.network import CoamNetwork
from coam_ros.training.network_config import NetworkConfig
from coam_ros.training.quantization import quantize_pair_matcher
from coam_ros.training.weights import load_strictly, read_torch_file
import numpy as np
import onnx
import torch
from torch import nn
from tqdm import tqdm

SIZE_MULTIPLE = 32
# What a model has unless it is told otherwise.
IMAGE_AREA_PX, NUM_MATCHES = 640 * 480, 2048
_OPSET = 18
# Photos that teach the global descriptor, drawn where there are more: 1.2 MB each in memory.
_MOST_PHOTOS = 2000
# Largest disagreement of ONNX Runtime and torch that still passes, relative to the largest value:
# features travel as float16, whose step is 1e-3.
_TOLERANCE = 2e-3
# Ties in the selection may fall either way: share of the values that may differ by more.
_MAX_DIFFERING = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        'checkpoint',
        metavar='CHECKPOINT',
        type=Path,
        help='best.pt or checkpoint.pt of `coam train`, or weights.pt',
    )
    parser.add_argument('--out', type=Path, required=True, help='model folder to write')
    parser.add_argument('--name', default='coam-xfeat', help='name of the model')
    parser.add_argument(
        '--photos',
        type=Path,
        help=f'at least {2 * DIM} photos that teach the global descriptor anew; default: as in '
        'the default model',
    )
    parser.add_argument('--area', type=int, default=IMAGE_AREA_PX, help='image area [px]')
    parser.add_argument(
        '--matches', type=int, default=NUM_MATCHES, help='selected points an image'
    )


def run(args: argparse.Namespace) -> int:
    """Export; the folder is replaced only when everything agreed."""
    is_empty = not args.out.exists() or (args.out.is_dir() and not any(args.out.iterdir()))
    if not is_empty and not (args.out / MANIFEST_NAME).is_file():
        raise FileExistsError(
            f'{args.out} holds no model but something else, which would be replaced; give --out a '
            'new folder, or that of a model.'
        )
    if not 1 <= args.matches <= args.area // BLOCK_PX**2:
        raise ValueError(
            f'--matches is {args.matches}, wanted 1 to {args.area // BLOCK_PX**2}, the blocks of '
            f'{BLOCK_PX} x {BLOCK_PX} px in --area {args.area}; lower it or raise --area.'
        )
    content = read_torch_file(args.checkpoint)
    network = _load_network(content, args.checkpoint)
    descriptor = GlobalDescriptor()
    if args.photos is None:
        shipped = default_model_directory() / DEFAULT_WEIGHTS
        load_strictly(descriptor, read_torch_file(shipped)['global_descriptor'], shipped)
    else:
        descriptor.fit(_local_features(network, args.photos, args.area))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix='.export-', dir=args.out.parent))
    aside.chmod(0o755)  # mkdtemp makes it private
    try:
        networks = _export_networks(network, descriptor, args.matches, aside)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=args.name,
            **networks,
            pair_matcher_int8=None,
            image_area_px=args.area,
            size_multiple=SIZE_MULTIPLE,
            num_matches=args.matches,
            global_descriptor_dim=DIM,
            global_descriptor_sha256=_descriptor_sha256(network, descriptor),
            normalization='uint8 RGB in; grey, zero mean and unit variance inside the encoder',
            precision='float32, features between the networks float16',
            training={'steps': content['step'], **content.get('provenance', {})},
        )
        int8 = quantize_pair_matcher(aside, manifest)
        replace(manifest, pair_matcher_int8=int8).save(aside)
        save_checkpoint(
            aside / DEFAULT_WEIGHTS,
            {
                'average': network.state_dict(),
                'global_descriptor': descriptor.state_dict(),
                'config': {'network': to_values(network.config)},
                'step': content['step'],
                'provenance': content.get('provenance', {}),
            },
        )
        replace_folder(args.out, aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(f'{args.out}: ONNX Runtime agrees with PyTorch')
    return 0


def _load_network(content: Any, path: Path) -> CoamNetwork:  # noqa: ANN401
    if not isinstance(content, dict) or not {'average', 'config', 'step'} <= content.keys():
        raise ValueError(
            f'{path} is no checkpoint: wanted the entries average, config and step; give the '
            'best.pt of `coam train`.'
        )
    config = build(NetworkConfig, content['config']['network'], 'network')
    network = CoamNetwork(config)
    if not network.encoder.local_channels:
        raise ValueError(
            f'{path} is a network with encoder {config.encoder}; the engine wants an encoder with '
            'local features (xfeat), which retrieval needs. The networks of the paper are for '
            'comparison in PyTorch.'
        )
    load_strictly(network, content['average'], path)
    return network.eval()


def _descriptor_sha256(network: CoamNetwork, descriptor: GlobalDescriptor) -> str:
    digest = hashlib.sha256()
    for part in (network.encoder, descriptor):
        for name, values in part.state_dict().items():
            digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _local_features(network: CoamNetwork, photos: Path, area_px: int) -> list[torch.Tensor]:
    """Encode photos at the size at which the encoder will see them."""
    paths = list(list_photos(photos))
    drawn = np.random.default_rng(0).permutation(len(paths))[:_MOST_PHOTOS]
    local_maps = []
    for index in tqdm(np.sort(drawn), desc='global descriptor', unit='photo'):
        photo = read_image(paths[index])
        image = Resizing.fit(photo.shape[1::-1], area_px, SIZE_MULTIPLE).apply(photo)
        batch = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        local_maps.append(network.encode(batch)[1])
    return local_maps


def _export_networks(
    network: CoamNetwork, descriptor: GlobalDescriptor, num_matches: int, directory: Path
) -> dict[str, NetworkFile]:
    encoder = DeployedEncoder(network, descriptor).eval()
    matcher = DeployedPairMatcher(network, num_matches).eval()
    # The smallest of the images has to hold the matches.
    times = math.ceil(math.sqrt(num_matches * BLOCK_PX**2 / (512 * 576)))
    # The first is traced. The second differs in all that may differ.
    examples = [
        _example(encoder, (480 * times, 640 * times), (512 * times, 576 * times), num_keyframes=2),
        _example(encoder, (448 * times, 704 * times), (480 * times, 640 * times), num_keyframes=1),
    ]
    encoder_inputs, matcher_inputs = zip(*examples, strict=True)
    return {
        'encoder': _export(
            directory / 'encoder.onnx',
            encoder,
            encoder_inputs,
            ENCODER_INPUTS,
            ENCODER_OUTPUTS,
        ),
        'pair_matcher': _export(
            directory / 'pair_matcher.onnx',
            matcher,
            matcher_inputs,
            PAIR_MATCHER_INPUTS,
            PAIR_MATCHER_OUTPUTS,
        ),
    }


def _example(
    encoder: DeployedEncoder,
    query_shape: tuple[int, int],
    keyframe_shape: tuple[int, int],
    *,
    num_keyframes: int,
) -> tuple[tuple, tuple]:
    """Make inputs of both networks: a query and keyframes of another size, with padding."""
    generator = torch.Generator().manual_seed(0)

    def image(height: int, width: int) -> torch.Tensor:
        noise = torch.randint(0, 256, (1, height // 8, width // 8, 3), generator=generator)
        return noise.repeat_interleave(8, 1).repeat_interleave(8, 2).to(torch.uint8)

    query = image(*query_shape)
    with torch.no_grad():
        query_features = encoder(query)[:-1]
        encoded = [encoder(image(*keyframe_shape))[:-1] for _ in range(num_keyframes)]
    keyframe_features = [torch.cat(level) for level in zip(*encoded, strict=True)]
    padding = torch.tensor([[20.0, 10.0]])
    matcher_inputs = (
        *query_features,
        torch.tensor([query_shape[::-1]]) - padding,
        *keyframe_features,
        torch.tensor([keyframe_shape[::-1]] * num_keyframes) - padding,
    )
    return (query,), matcher_inputs


def _export(
    path: Path,
    module: nn.Module,
    examples: tuple[tuple, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> NetworkFile:
    """Export one network and compare ONNX Runtime with torch on the examples."""
    print(f'{path.name}: exporting')
    with _quiet_exporter():
        torch.onnx.export(
            module,
            examples[0],
            str(path),
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=tuple(_free_axes(name) for name in input_names),
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    _forget_source(path)
    print(f'{path.name}: comparing ONNX Runtime with PyTorch')
    backend = OnnxRuntimeBackend(path)
    for inputs in examples:
        found = backend.run(
            {name: value.numpy() for name, value in zip(input_names, inputs, strict=True)}
        )
        with torch.no_grad():
            wanted = module(*inputs)
        for name, value in zip(output_names, wanted, strict=True):
            _compare(path.name, name, found[name], value.numpy())
    return NetworkFile(path.name, sha256_of(path), *_signature(path))


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence warnings of operators of torchvision, not used here, and of the exporter itself."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _forget_source(path: Path) -> None:
    """Leave out what the exporter notes of each node: traces that name folders of this machine."""
    model = onnx.load(path)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
    onnx.save(model, path)


def _free_axes(name: str) -> dict[int, Any] | None:
    """Say which axes of an input have any length, for torch.export."""
    free = torch.export.Dim.AUTO
    if name == 'image':
        height, width = torch.export.Dim('height'), torch.export.Dim('width')
        return {1: SIZE_MULTIPLE * height, 2: SIZE_MULTIPLE * width}
    if name == 'query_size':
        return None
    if name == 'keyframe_size':
        return {0: free}
    return dict.fromkeys([2, 3] if name.startswith('query') else [0, 2, 3], free)


def _compare(file: str, name: str, found: np.ndarray, wanted: np.ndarray) -> None:
    """Refuse, by a ValueError, an export that answers otherwise than torch."""
    scale = np.abs(wanted).max() + 1e-6
    # Asked so that NaN differs.
    agrees = np.abs(found.astype(np.float32) - wanted.astype(np.float32)) <= _TOLERANCE * scale
    share = 1 - agrees.mean()
    if share > _MAX_DIFFERING:
        raise ValueError(
            f'{file} disagrees with torch: {share:.1%} of {name} differ by more than '
            f'{_TOLERANCE:g} of the largest value, wanted at most {_MAX_DIFFERING:.0%}. Do not '
            'use it; report the versions of torch and onnxruntime.'
        )


def _signature(path: Path) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    graph = onnx.load(path).graph
    return _describe(graph.input), _describe(graph.output)


def _describe(values: Any) -> dict[str, list[Any]]:  # noqa: ANN401  (a protobuf container)
    return {
        value.name: [
            onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower(),
            [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim],
        ]
        for value in values
    }
