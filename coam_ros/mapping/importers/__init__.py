"""Readers of posed image sequences that others recorded."""
