"""Readers of motion files and data sets, one file each."""
