"""`coam export`: a checkpoint to the ONNX pair and its manifest, checked against torch."""

from __future__ import annotations

import argparse
from pathlib import Path
import shutil
import tempfile
from typing import Any

from coam_ros.inference.manifest import FORMAT_VERSION, Manifest, NetworkFile, sha256_of
from coam_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
from coam_ros.training.data.reading import read_rgb
from coam_ros.training.deployment import (
    DeployedEncoder,
    DeployedPairMatcher,
    FEATURE_STRIDES,
)
from coam_ros.training.global_descriptor import DIM, GlobalDescriptor
from coam_ros.training.losses import CrossEntropyConfig
from coam_ros.training.network import CoamNetwork, NetworkConfig
import numpy as np
import onnx
import torch
from torch import nn

SIZE_MULTIPLE = 32
_OPSET = 18
_FEATURES = [f'features_{stride}' for stride in FEATURE_STRIDES]
# Largest disagreement of ONNX Runtime and torch that still passes, relative to the largest value:
# features travel as float16, whose step is 1e-3.
_TOLERANCE = 2e-3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument('checkpoint', type=Path, help='checkpoint.pt of `coam train`')
    parser.add_argument('--out', type=Path, required=True, help='model folder to write')
    parser.add_argument('--name', default='coam-xfeat', help='name of the model')
    parser.add_argument(
        '--photos', type=Path, required=True, help='photos that teach the global descriptor'
    )
    parser.add_argument('--area', type=int, default=640 * 480, help='image area [px]')
    parser.add_argument('--matches', type=int, default=2048, help='selected points an image')


def run(args: argparse.Namespace) -> int:
    """Export; the folder is replaced only when everything agreed."""
    state = torch.load(args.checkpoint, map_location='cpu', weights_only=True)
    network = CoamNetwork(NetworkConfig())
    network.load_state_dict(state['average'])
    network.eval()
    descriptor = _fit_descriptor(network, args.photos)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix='.export-', dir=args.out.parent))
    aside.chmod(0o755)  # mkdtemp makes it private
    try:
        encoder = DeployedEncoder(network, descriptor).eval()
        matcher = DeployedPairMatcher(network, args.matches, CrossEntropyConfig()).eval()
        encoder_inputs, matcher_inputs = _example(encoder, args.matches)
        files = {
            'encoder': _export(
                aside / 'encoder.onnx',
                encoder,
                encoder_inputs,
                ['image'],
                [*_FEATURES, 'global_descriptor'],
            ),
            'pair_matcher': _export(
                aside / 'pair_matcher.onnx',
                matcher,
                matcher_inputs,
                [
                    *(f'query_{name}' for name in _FEATURES),
                    'query_size',
                    *(f'keyframe_{name}' for name in _FEATURES),
                    'keyframe_size',
                ],
                ['query_points', 'keyframe_points', 'scores'],
            ),
        }
        Manifest(
            format_version=FORMAT_VERSION,
            name=args.name,
            **files,
            image_area_px=args.area,
            size_multiple=SIZE_MULTIPLE,
            num_matches=args.matches,
            global_descriptor_dim=DIM,
            normalization='uint8 RGB in; grey, zero mean and unit variance inside the encoder',
            precision='float32, features between the networks float16',
            training={'steps': state['step'], **state.get('config', {})},
        ).save(aside)
        _replace(args.out, aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return 0


@torch.no_grad()
def _fit_descriptor(network: CoamNetwork, photos: Path) -> GlobalDescriptor:
    descriptor = GlobalDescriptor()
    local_maps = []
    for path in sorted(p for p in photos.iterdir() if p.suffix in {'.jpg', '.png'}):
        image = torch.from_numpy(read_rgb(path)).permute(2, 0, 1)[None].float()
        height, width = (side // SIZE_MULTIPLE * SIZE_MULTIPLE for side in image.shape[-2:])
        if min(height, width) >= 4 * SIZE_MULTIPLE:
            local_maps.append(network.encode(image[..., :height, :width])[1])
    descriptor.fit(local_maps)
    return descriptor


def _example(encoder: DeployedEncoder, num_matches: int) -> tuple[tuple, tuple]:
    """Inputs for tracing: a query and two keyframes of another size, with padding."""
    generator = torch.Generator().manual_seed(0)

    def image(height: int, width: int) -> torch.Tensor:
        noise = torch.randint(0, 256, (1, height // 8, width // 8, 3), generator=generator)
        return noise.repeat_interleave(8, 1).repeat_interleave(8, 2).to(torch.uint8)

    query, keyframes = image(480, 640), [image(512, 576), image(512, 576)]
    with torch.no_grad():
        query_features = encoder(query)[:-1]
        encoded = [encoder(keyframe)[:-1] for keyframe in keyframes]
    keyframe_features = [torch.cat(level) for level in zip(*encoded, strict=True)]
    matcher_inputs = (
        *query_features,
        torch.tensor([[620.0, 470.0]]),
        *keyframe_features,
        torch.tensor([[576.0, 500.0], [560.0, 512.0]]),
    )
    return (query,), matcher_inputs


def _export(
    path: Path, module: nn.Module, inputs: tuple, input_names: list[str], output_names: list[str]
) -> NetworkFile:
    """Export one network and compare ONNX Runtime with torch on the example."""
    free = torch.export.Dim.AUTO
    shapes = tuple(
        None if name == 'query_size' else dict.fromkeys(_free_axes(name), free)
        for name in input_names
    )
    torch.onnx.export(
        module,
        inputs,
        str(path),
        input_names=input_names,
        output_names=output_names,
        dynamic_shapes=shapes,
        opset_version=_OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    backend = OnnxRuntimeBackend(path)
    found = backend.run(
        {name: value.numpy() for name, value in zip(input_names, inputs, strict=True)}
    )
    with torch.no_grad():
        wanted = module(*inputs)
    for name, value in zip(output_names, wanted, strict=True):
        _compare(path.name, name, found[name], value.numpy())
    return NetworkFile(path.name, sha256_of(path), *_signature(path))


def _free_axes(name: str) -> list[int]:
    if name == 'image':
        return [1, 2]
    if name.endswith('_size'):
        return [0]
    return [2, 3] if name.startswith('query') else [0, 2, 3]


def _compare(file: str, name: str, found: np.ndarray, wanted: np.ndarray) -> None:
    """Refuse an export that answers otherwise than torch.

    Ties in the selection may fall either way, so of the matches 1 % of the slots may differ.
    """
    scale = np.abs(wanted).max() + 1e-6
    differs = np.abs(found.astype(np.float32) - wanted.astype(np.float32)) > _TOLERANCE * scale
    share = differs.mean()
    if share > 0.01:
        raise RuntimeError(
            f'{file} disagrees with torch: {share:.1%} of {name} differ by more than '
            f'{_TOLERANCE:g} of the largest value, wanted at most 1 %. Do not use it; report '
            'the versions of torch and onnxruntime.'
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


def _replace(target: Path, aside: Path) -> None:
    """Put the new folder in the place of the old one by renaming."""
    old = target.with_name(f'.{target.name}-old')
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    aside.rename(target)
    shutil.rmtree(old, ignore_errors=True)
