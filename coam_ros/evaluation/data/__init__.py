"""Data sets with ground truth, in the layouts in which people have them."""
