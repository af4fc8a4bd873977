"""Training of the CoAM network; the only package of ours that imports torch."""
