"""Keyframes, the map that holds them, its form on disk, importers and retrieval."""
