"""Judging results against ground truth; reports and plots."""
