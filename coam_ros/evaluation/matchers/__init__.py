"""The matchers that are compared, behind one protocol: ours, of OpenCV, and of others."""
