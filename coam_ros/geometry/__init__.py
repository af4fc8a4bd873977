"""Rigid transforms, cameras, epipolar residuals and absolute pose; numpy in, numpy out."""
