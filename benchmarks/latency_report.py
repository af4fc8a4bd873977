"""The figures of latency as tables and as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_NUM_KERNEL_KINDS = 8
_STAGES = {'encode': '#1f6fb4', 'retrieve': '#9a9a9a', 'match': '#e07b1a', 'pose': '#2f9e44'}

Figures = Mapping[str, Any]


def render_tables(figures: Figures) -> str:
    """Give all figures as Markdown."""
    machine = figures['machine']
    parts = [
        f'{machine["cpu"]}, {machine["num_threads"]} of {machine["num_cpus"]} cores, load '
        f'{machine["load_before"]:.1f} before; ONNX Runtime {machine["onnxruntime"]}, PyTorch '
        f'{machine["torch"]}.'
    ]
    if 'soak' in figures:
        return '\n\n'.join([*parts, _soak(figures['soak'])]) + '\n'
    parts.append(f'Model {figures["model_id"]}.')
    for name, rows in figures['backends'].items():
        parts += [
            f'**{name}**',
            _networks(rows),
            _frames(rows),
        ]
    parts += [f'Not here: {name}. {why}' for name, why in figures['missing_backends'].items()]
    parts += [_map_sizes(figures['map_sizes']), _pairs(figures)]
    parts += [_costs(figures), _kernels(figures['costs'])]
    return '\n\n'.join(parts) + '\n'


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def _networks(backend: Figures) -> str:
    return _table(
        [
            'network at 640 x 480',
            'median ms',
            'p95 ms',
            'CPU ms',
            'memory since before loading MiB',
        ],
        [
            [
                row['what'] + (f', K = {row["num_keyframes"]}' if 'num_keyframes' in row else ''),
                *_times(row),
                f'{row["resident_mib"] - backend["resident_before_mib"]:.0f}',
            ]
            for row in backend['networks']
        ],
    )


def _frames(rows: Figures) -> str:
    return _table(
        ['image to pose', 'median ms', 'p95 ms', 'CPU ms', *_STAGES, 'Hz', 'localized'],
        [
            [
                f'{row.get("width", 640)} px wide, K = {row["num_keyframes"]}',
                *_times(row),
                *(f'{row["stages_ms"][stage]:.1f}' for stage in _STAGES),
                f'{1000 / row["median_ms"]:.1f}',
                f'{row["localized"]:.0%}',
            ]
            for row in [*rows['keyframes'], *rows['widths']]
        ],
    )


def _times(row: Figures) -> list[str]:
    return [f'{row[name]:.1f}' for name in ('median_ms', 'p95_ms', 'cpu_ms')]


def _map_sizes(rows: Sequence[Figures]) -> str:
    return _table(
        ['keyframes in the map', 'retrieval ms', 'first ms, with the index', 'map MiB'],
        [
            [
                row['num_map_keyframes'],
                f'{row["median_ms"]:.2f}',
                f'{row["first_ms"]:.1f}',
                f'{row["map_mib"]:.0f}',
            ]
            for row in rows
        ],
    )


def _pairs(figures: Figures) -> str:
    return _table(
        [
            f"a pair of which nothing is cached; ours 640 x 480 with matching, the paper's "
            f'{figures["paper_size_px"]} px square without',
            *('median ms', 'p95 ms', 'CPU ms', 'pairs / s', "times the paper's"),
        ],
        [
            [
                row['what'],
                *_times(row),
                f'{1000 / row["median_ms"]:.2f}',
                f'{row["times_the_paper"]:.1f}',
            ]
            for row in figures['pairs']
        ],
    )


def _costs(figures: Figures) -> str:
    machines = [machine['name'] for machine in figures['machines']]
    rows = []
    for name, cost in figures['costs'].items():
        floors = [
            f'{cost["floor_ms"][m]:.3g}'
            + (f' / {cost["layerwise_ms"][m]:.3g}' if cost['num_map_values'] else '')
            for m in machines
        ]
        maps = f'{cost["num_map_values"] / 1e6:.0f}' if cost['num_map_values'] else ''
        rows.append(
            [
                name,
                f'{cost["macs"] / 1e9:.1f}',
                f'{cost["num_weights"] / 1e6:.2f}',
                maps,
                f'{cost["io_bytes"] / 1e6:.1f}',
                *floors,
            ]
        )
    limits = '; '.join(
        f'{m["name"]}: {m["macs_per_s"] / 1e9:.4g} G multiply-adds/s, '
        f'{m["bytes_per_s"] / 1e9:.4g} GB/s'
        for m in figures['machines']
    )
    header = ['cost', 'G multiply-adds', 'M weights', 'M map values', 'in and out MB']
    return f'{_table([*header, *(f"{m} ms" for m in machines)], rows)}\n\n{limits}.'


def _kernels(costs: Figures) -> str:
    rows = []
    for name, cost in costs.items():
        kinds = list(cost['kernel_ms'].items())
        if not kinds:
            continue
        total = sum(cost['kernel_ms'].values())
        longest = [f'{kind} {ms / total:.0%}' for kind, ms in kinds[:_NUM_KERNEL_KINDS]]
        rows.append([name, f'{total:.0f}', ', '.join(longest)])
    return _table(['kernels', 'ms in all', 'of which'], rows)


def _soak(row: Figures) -> str:
    resident = row['resident_mib']
    return (
        f'{row["num_frames"]} images localized; resident memory {resident[0]:.0f} MiB at first, '
        f'{resident[-1]:.0f} MiB at last; mean of the last fifth less that of the second fifth: '
        f'{row["growth_mib"]:+.1f} MiB. Features from the cache {row["cache_hits"]}, computed '
        f'{row["cache_misses"]}, given up {row["cache_evictions"]}.'
    )


def plot_latency(figures: Figures, path: Path) -> None:
    """Draw how time grows with keyframes, image and map, or memory over a soak."""
    if 'soak' in figures:
        figure = Figure(figsize=(6, 3.2), layout='constrained')
        _plot_soak(figure.add_subplot(), figures['soak'])
    else:
        figure = Figure(figsize=(11, 3.2 * len(figures['backends'])), layout='constrained')
        grid = figure.subplots(len(figures['backends']), 3, squeeze=False)
        for axes, (name, rows) in zip(grid, figures['backends'].items(), strict=True):
            _plot_stages(axes[0], rows['keyframes'], 'num_keyframes', 'keyframes')
            _plot_stages(axes[1], rows['widths'], 'width', 'image width [px]')
            axes[0].set_title(name, loc='left', fontsize='medium')
            axes[2].set_visible(False)
        grid[0, 2].set_visible(True)
        _plot_map_sizes(grid[0, 2], figures['map_sizes'])
    FigureCanvasAgg(figure).print_png(str(path))


def _plot_stages(axes: Axes, rows: Sequence[Figures], key: str, label: str) -> None:
    places = range(len(rows))
    below = [0.0] * len(rows)
    for stage, colour in _STAGES.items():
        heights = [row['stages_ms'][stage] for row in rows]
        axes.bar(places, heights, 0.6, bottom=below, color=colour, label=stage)
        below = [b + h for b, h in zip(below, heights, strict=True)]
    axes.set_xticks(places, [str(row[key]) for row in rows])
    axes.set(xlabel=label, ylabel='image to pose, median [ms]')
    axes.legend(frameon=False)


def _plot_map_sizes(axes: Axes, rows: Sequence[Figures]) -> None:
    sizes = [row['num_map_keyframes'] for row in rows]
    axes.loglog(sizes, [row['median_ms'] for row in rows], 'o-', color=_STAGES['retrieve'])
    axes.set(xlabel='keyframes in the map', ylabel='retrieval, median [ms]')


def _plot_soak(axes: Axes, row: Figures) -> None:
    resident = row['resident_mib']
    step = row['num_frames'] / len(resident)
    axes.plot([i * step for i in range(len(resident))], resident, color=_STAGES['encode'])
    axes.set(xlabel='images localized', ylabel='resident memory [MiB]', ylim=(0, None))
