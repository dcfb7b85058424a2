"""Errors pass from process to process."""

from __future__ import annotations

import copy
import pickle

from depthfit.errors import InputError


def test_an_error_survives_a_pickle() -> None:
    error = InputError("a.json", "people", "none", "Detect some.")
    for back in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (back.source, back.field, back.found, back.fix) == ("a.json", "people", "none", "Detect some.")
        assert str(back) == str(error) == "a.json: people: none. Detect some."
