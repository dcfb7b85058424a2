"""Errors against ground truth, computed from saved results alone."""
