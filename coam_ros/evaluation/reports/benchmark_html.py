"""The report of a benchmark as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import html
from typing import NamedTuple

from coam_ros.evaluation.benchmarks.image_pairs import RIGHT_PX
from coam_ros.evaluation.metrics.statistics import LEVEL
from coam_ros.evaluation.reports.benchmark_report import (
    data_set_names,
    Result,
    tabulate,
    verdict,
)
from coam_ros.evaluation.reports.html_page import make_figure, make_page, make_table


class Picture(NamedTuple):
    """Matches of one pair, for the report.

    Attributes:
        data_set: of the pair.
        matcher: whose matches they are.
        caption: in words.
        jpeg: the picture.
    """

    data_set: str
    matcher: str
    caption: str
    jpeg: bytes


def make_html(
    report: Mapping[str, object],
    results: Sequence[Result],
    plot: bytes | None,
    pictures: Sequence[Picture],
) -> str:
    """Make the page.

    Args:
        report: header of the JSON report, with `comparisons`.
        results: of all matchers on all data sets.
        plot: PNG of all curves; None = no plot.
        pictures: of pairs, in order.
    """
    return make_page(f'coam bench {report["benchmark"]}', _parts(report, results, plot, pictures))


def _parts(
    report: Mapping[str, object],
    results: Sequence[Result],
    plot: bytes | None,
    pictures: Sequence[Picture],
) -> Iterator[str]:
    yield f'<p>{html.escape(report["protocol"])}</p><p>{html.escape(report["statistics"])}</p>'
    facts = {name: report[name] for name in ('command', 'commit', 'date', 'machine', 'python')}
    facts |= {f'setting {name}': value for name, value in report['settings'].items()}
    facts |= {f'compared with {name}': run for name, run in report['compared_with'].items()}
    facts |= {f'left out: {name}': reason for name, reason in report['absent'].items()}
    yield make_table((name, str(value)) for name, value in facts.items())
    for data_set in data_set_names(results):
        yield f'<h2>{html.escape(data_set)}</h2>'
        names, rows = tabulate(results, data_set)
        yield make_table(rows, ['', *names])
        yield f'<p>Shares in percent; ± half the width of the {LEVEL:.0%} interval.</p><ul>'
        for comparison in report['comparisons']:
            if comparison['data_set'] == data_set:
                yield f'<li>{html.escape(verdict(comparison))}</li>'
        yield '</ul>'
    if plot is not None:
        yield make_figure(plot, 'png', f'All data sets; shaded: {LEVEL:.0%} intervals.')
    yield '<h2>What made the matches</h2>'
    yield make_table(
        (
            (r['data_set'], r['matcher'], r['model_id'], r['data_hash'], r['matcher_hash'])
            for r in results
        ),
        ['data set', 'matcher', 'model', 'hash of the data', 'hash of the matcher'],
    )
    failures = [
        (r['data_set'], r['matcher'], name, reason)
        for r in results
        for name, reason in r['failures'].items()
    ]
    if failures:
        yield '<h2>Failures of matchers</h2>'
        yield make_table(failures, ['data set', 'matcher', 'pair', 'what it said'])
    if pictures:
        yield (
            f'<h2>Best and worst pairs</h2><p>Green: within {RIGHT_PX:g} px of what the data set '
            'calls true, which is its homography or the epipolar line; red: beyond. Poses that '
            'are good to centimetres alone make right matches red.</p>'
        )
    for picture in pictures:
        caption = f'{picture.data_set}, {picture.matcher}: {picture.caption}'
        yield make_figure(picture.jpeg, 'jpeg', caption)
