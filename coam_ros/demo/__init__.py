"""The demo: maps a place, plays a camera through the real nodes and reports how well it went."""
