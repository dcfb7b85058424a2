"""Published figures to print beside one's own, and where they stand. None was measured here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedRow:
    """One method's figures, mm.

    Attributes:
        method: Its name.
        mve, mpjpe, pa_mpjpe: As published.
        source: Where.
    """

    method: str
    mve: float
    mpjpe: float
    pa_mpjpe: float
    source: str


_TABLE_1 = "Dwivedi et al., TokenHMR (CVPR 2024), table 1"
_README = "README of github.com/saidwivedi/TokenHMR"
_TOKENHMR_3DPW = (
    PublishedRow("HMR2.0", 88.4, 77.4, 47.4, _TABLE_1),
    PublishedRow("TokenHMR", 84.6, 71.0, 44.3, _TABLE_1),
    PublishedRow("TokenHMR, tokenhmr_model_latest.ckpt", 85.0, 72.8, 47.1, _README),
)
_TOKENHMR_EMDB = (
    PublishedRow("TokenHMR, tokenhmr_paper.ckpt", 108.5, 89.5, 55.6, _README),
    PublishedRow("TokenHMR, tokenhmr_model_latest.ckpt", 112.2, 93.7, 58.9, _README),
)
PUBLISHED = {
    ("3dpw", "tokenhmr14"): _TOKENHMR_3DPW,
    ("3dpw-tokenhmr", "tokenhmr14"): _TOKENHMR_3DPW,
    ("emdb", "tokenhmr-emdb24"): _TOKENHMR_EMDB,
}
"""By data set and protocol: figures of another protocol would not be comparable."""


def published(dataset: str | None, protocol: str) -> tuple[PublishedRow, ...]:
    """Rows to print beside results of this data set and protocol; there may be none."""
    return PUBLISHED.get((dataset or "", protocol), ())
