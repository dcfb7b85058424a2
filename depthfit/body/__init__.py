"""Bodies in SMPL's layout: the shipped open body, and the SMPL files that users bring."""
