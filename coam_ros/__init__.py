"""Tells a robot where it is in a map made before, from one camera image."""
