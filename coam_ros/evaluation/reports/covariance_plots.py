"""Plots of the covariance check: squared errors against chi-square; what each gate is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from coam_ros.evaluation.metrics.covariance import DOF_POSE, DOF_POSITION, GatedPose, GATES
from coam_ros.evaluation.metrics.image_pairs import precision_recall
from coam_ros.localization import LocalizationConfig
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np
from scipy.stats import chi2

_MAX_PER_DOF = 6.0


def plot_nees(path: Path, published: Mapping[str, Sequence[GatedPose]]) -> None:
    """Draw the share of poses below each squared error, beside that of honest covariances."""
    figure = Figure(figsize=(10, 4), layout='constrained')
    values = np.linspace(0, _MAX_PER_DOF, 200)
    for axes, (title, dof, name) in zip(
        figure.subplots(1, 2),
        [('position', DOF_POSITION, 'nees_position'), ('pose', DOF_POSE, 'nees_pose')],
        strict=True,
    ):
        axes.plot(values, chi2.cdf(dof * values, dof), 'k--', label='honest')
        for data_set, poses in published.items():
            errors = np.sort([getattr(pose, name) for pose in poses])
            share = np.arange(1, len(errors) + 1) / max(len(errors), 1)
            axes.step(np.append(0, errors), np.append(0, share), where='post', label=data_set)
        axes.set(
            title=f'{title}, {dof} degrees of freedom',
            xlabel='squared error over covariance, per degree of freedom',
            ylabel='share of published poses',
            xlim=(0, _MAX_PER_DOF),
            ylim=(0, 1.02),
        )
        axes.grid(alpha=0.3)
        axes.legend()
    FigureCanvasAgg(figure).print_figure(str(path), dpi=110)


def plot_gates(path: Path, poses: Sequence[GatedPose], config: LocalizationConfig) -> None:
    """Draw precision against recall of each gate alone, and mark the threshold in force."""
    figure = Figure(figsize=(6.5, 5), layout='constrained')
    axes = figure.subplots()
    is_right = np.array([pose.is_right for pose in poses], dtype=bool)
    for gate in GATES:
        values = np.array([getattr(pose, gate.value) for pose in poses], dtype=np.float64)
        scores = values if gate.is_lower_bound else -values
        precision, recall = precision_recall(is_right, scores)
        (line,) = axes.plot(recall, precision, label=gate.setting)
        threshold = getattr(config, gate.setting)
        accepted = np.array([gate.accepts(pose, threshold) for pose in poses], dtype=bool)
        if accepted.any() and is_right.any():
            right = is_right[accepted]
            axes.plot(right.sum() / is_right.sum(), right.mean(), 'o', color=line.get_color())
    axes.set(
        title='Gates, each alone; points: thresholds in force',
        xlabel='recall of right poses',
        ylabel='precision',
        xlim=(0, 1.02),
        ylim=(0, 1.02),
    )
    axes.grid(alpha=0.3)
    axes.legend(loc='lower left')
    FigureCanvasAgg(figure).print_figure(str(path), dpi=110)
