"""The dataset card: what the labels are, how they were made, how far to trust them."""

from __future__ import annotations

import json
from typing import Any

from depthfit.pseudo.gate import LIMITS
from depthfit.pseudo.records import OUTCOMES

OPEN_BODY_NOTE = (
    "**These labels are of depthfit's open body, not of SMPL.** Pose angles are close to SMPL's; shape "
    "coefficients mean other shapes. To train a SMPL regressor, make them again with models.body=FOLDER."
)
CONVENTIONS = (
    "Camera frame x right, y down, z forward; metres, radians; axis-angle with the root first; pixel "
    "(0, 0) is the centre of the top-left pixel. `transl` is the pelvis, `smpl_transl` SMPL's own "
    "translation. 2D keypoints, boxes, masks and 3D keypoints are the source's, untouched. People whom "
    "the source does not label are not in it. The source's licence goes on."
)


def card(summary: dict[str, Any], provenance: dict[str, Any]) -> str:
    """Markdown, from the summary and the provenance of a run."""
    settings = provenance["settings"]
    lines = [
        f"# Refined labels of {provenance['source']}",
        "",
        f"Pseudo-ground-truth made by depthfit {provenance['depthfit']}: body pose, shape and camera, fitted "
        "to what the images tell. These are estimates, not measurements.",
        "",
        *([OPEN_BODY_NOTE, ""] if provenance["body"] == "open" else []),
        *([f"**Note: {provenance['betas_left_out']}.**", ""] if provenance["betas_left_out"] else []),
        *_outcomes(summary, provenance),
        "",
        "Each person of the source is in exactly one row; `index/*.parquet` says which, and why.",
        "",
        "## Gate",
        "",
        *_gate(settings["gate"]),
        "",
        "Reasons why people are not refined (one person can have several):",
        "",
        *(f"- {word}: {count}" for word, count in summary["reasons"].items()),
        "",
        "## Evidence",
        "",
        f"Allowed: {', '.join(provenance['evidence_allowed'])}. Fitted to (whether or not the fit was kept):",
        "",
        *(f"- {kinds}: {count} people" for kinds, count in summary["evidence"].items()),
        "",
        "## Provenance",
        "",
        f"- torch {provenance['torch']}, numpy {provenance['numpy']}, Python {provenance['python']}",
        *(f"- {name}: sha256 {digest}" for name, digest in provenance["model_files"].items()),
        f"- settings (sha256 {provenance['fingerprint']}):",
        "",
        "```json",
        json.dumps(settings, indent=2, sort_keys=True),
        "```",
        "",
        "## Conventions and limits",
        "",
        CONVENTIONS,
        "",
    ]
    return "\n".join(lines)


def _outcomes(summary: dict[str, Any], provenance: dict[str, Any]) -> list[str]:
    """Table of the people by outcome."""
    people = max(summary["people"], 1)
    # A file that is made anew holds refined people only.
    anew = provenance["target_kind"] != provenance["source_kind"]
    stays = not anew and provenance["settings"]["policy"]["failed"] == "original"
    own = "the source's own stays where it and the image can be read" if stays else "left out"
    meaning = {
        "refined": "the fit's, which passed the gate",
        "original": "none: only the source has it" if anew else "the source's own",
        "dropped": "none: left out",
        "failed": f"none could be made: {own}",
    }
    lines = ["| outcome | people | share | what the label is |", "|---|---|---|---|"]
    for name in OUTCOMES:
        count = summary["outcomes"][name]
        lines.append(f"| {name} | {count} | {count / people:.1%} | {meaning[name]} |")
    return [*lines, f"| all | {summary['people']} | 100 % | {summary['written']} are in the files |"]


def _gate(gate: dict[str, Any]) -> list[str]:
    """Table of the gate's limits."""
    lines = ["| limit | value |", "|---|---|"]
    for limit in LIMITS:
        side = "at least" if limit.least else "at most"
        value = "not asked" if gate[limit.setting] is None else gate[limit.setting]
        lines.append(f"| {limit.meaning}, {side} | {value} {limit.unit} |")
    return lines
