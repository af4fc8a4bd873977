"""The report as one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Iterable
import html

from coam_ros.demo.figures import describe_figures
from coam_ros.demo.plots import plot_errors, plot_latency, plot_recall, plot_top_view
from coam_ros.demo.recording import Recording
from coam_ros.demo.scenario import Scenario
from coam_ros.demo.scoring import is_right, Score
from coam_ros.evaluation.reports.html_page import make_figure, make_page, make_table
from coam_ros.localization.drawing import draw_best_keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.matching.image_files import encode_jpeg


def make_html(
    scenario: Scenario,
    recording: Recording,
    score: Score,
    keyframe_map: KeyframeMap,
    command: str,
) -> str:
    """Make the page.

    Args:
        scenario: that was played.
        recording: of it.
        score: of it.
        keyframe_map: that was localized in.
        command: that makes such a report again.
    """
    top_view = plot_top_view(scenario, recording, score)
    errors = plot_errors(scenario, recording, score)
    legend = (
        'One tick an image at the bottom: green with a pose, blue answered without one, grey '
        'dropped for a newer one or lost on the way. '
        'Shaded: places that the map does not know; any pose there would be false.'
    )
    return make_page(
        'coam_ros demo',
        [
            f'<p>{html.escape(scenario.title)}. Made with <code>{html.escape(command)}</code></p>',
            f'<p>Parameters of the matcher: {_parameters(scenario)}.</p>',
            _bars_table(score),
            make_table(describe_figures(score.summary)),
            '<h2>Where</h2>',
            make_figure(top_view, 'png', 'Seen from above.'),
            '<h2>When</h2>',
            make_figure(errors, 'png', legend),
            '<h2>How well, how fast</h2><div class="side">',
            make_figure(plot_recall(score), 'png', 'Share of the queries below an error.'),
            make_figure(
                plot_latency(recording), 'png', 'Boxes: quartiles; whiskers: 5 and 95 percent.'
            ),
            '</div><h2>Matches</h2>',
            '<p>Live image left, keyframe right. Green: agrees with the pose. Red: rejected.</p>',
            *_pictures(scenario, recording, score, keyframe_map),
        ],
    )


def _parameters(scenario: Scenario) -> str:
    changed = [f'{name} {value:g}' for name, value in scenario.matcher_parameters.items()]
    if not changed:
        return 'the defaults'
    return f'the defaults, but for {", ".join(changed)}, as the poses of its map are exact'


def _bars_table(score: Score) -> str:
    if not score.bars:
        return '<p>No bars here: the true poses of a recording are good to centimetres only.</p>'
    rows = ''.join(
        f'<tr><td>{html.escape(bar.name)}</td><td>{html.escape(bar.value)}</td>'
        f'<td>{html.escape(bar.wanted)}</td>'
        + ('<td class="met">met</td>' if bar.is_met else '<td class="missed">NOT met</td>')
        + '</tr>'
        for bar in score.bars
    )
    return f'<table><tr><th>Bar</th><th>Measured</th><th>Wanted</th><th></th></tr>{rows}</table>'


def _pictures(
    scenario: Scenario, recording: Recording, score: Score, keyframe_map: KeyframeMap
) -> Iterable[str]:
    for index, title in _interesting_frames(scenario, recording, score).items():
        answer, outcome = recording.answers[index], score.outcomes[index]
        image = scenario.live_frames[index].decode_image()
        picture = draw_best_keyframe(image, answer.result, keyframe_map)
        if picture is None:
            continue
        caption = f'{title}, at {recording.sent_s[index]:.1f} s: '
        if outcome is not None and outcome.is_localized:
            caption += (
                f'{outcome.num_inliers} inliers of {outcome.num_matches} matches with '
                f'{len(outcome.keyframe_ids)} keyframes, off by '
                f'{100 * outcome.translation_error_m:.1f} cm and '
                f'{outcome.rotation_error_deg:.2f} deg.'
            )
        else:
            caption += f'{answer.reason}. {answer.message}'
        yield make_figure(encode_jpeg(picture, 80), 'jpeg', caption)


def _interesting_frames(scenario: Scenario, recording: Recording, score: Score) -> dict[int, str]:
    """Choose frames to show: index and title."""
    localized = [i for i, o in enumerate(score.outcomes) if o is not None and o.is_localized]
    by_error = sorted(localized, key=lambda i: score.outcomes[i].translation_error_m)
    failed = [i for i, o in enumerate(score.outcomes) if o is not None and not o.is_localized]
    unmapped = [
        i
        for i, answer in enumerate(recording.answers)
        if answer is not None and not scenario.live_frames[i].is_mapped
    ]
    chosen: dict[int, str] = {}
    for number, kidnapping in enumerate(scenario.kidnappings, start=1):
        after = [i for i in localized if i >= kidnapping and is_right(score.outcomes[i])]
        if after:
            chosen[after[0]] = f'First right pose after kidnapping {number}'
    if by_error:
        chosen.setdefault(by_error[len(by_error) // 2], 'A pose of median error')
        chosen.setdefault(by_error[-1], 'The pose with the largest error')
    if unmapped:
        middle = unmapped[len(unmapped) // 2]
        title = 'A place that is not in the map'
        if recording.answers[middle].result.is_localized:
            title += ', with a FALSE pose'
        chosen[middle] = title
    if failed:
        chosen.setdefault(failed[len(failed) // 2], 'A mapped place that was not recognised')
    return chosen
