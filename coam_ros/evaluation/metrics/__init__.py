"""Figures from estimates and truth, and how sure they are; no data, no matcher."""
