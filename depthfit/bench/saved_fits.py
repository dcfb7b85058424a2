"""Fits of ``depthfit bench accuracy``, saved as a run saves them: fits.npz with its settings and summary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import OmegaConf

from depthfit import __version__
from depthfit.atomic import atomic_path
from depthfit.bench.fitting import Row, Workbench
from depthfit.bench.variants import Variant
from depthfit.errors import InputError
from depthfit.evidence.scene import Scene
from depthfit.report.score_report import run_summary
from depthfit.run.output import fit_of_row, read_rows, write_rows
from depthfit.run.pictures import overlay_job
from depthfit.synth import SynthConfig


@dataclass(frozen=True)
class SavedFit:
    """One way to fit a synthetic scene, and the folder of its results.

    Attributes:
        variant: The way.
        folder: Of fits.npz and what belongs to it.
        settings: All that the fits depend on, as YAML; a change of the code within a version is not noticed.
    """

    variant: Variant
    folder: Path
    settings: str

    @classmethod
    def of(cls, variant: Variant, folder: Path, bench: Workbench, scene: SynthConfig) -> SavedFit:
        """The fit of ``variant`` by ``bench`` of the scene with these settings."""
        settings = {
            "depthfit_version": __version__,
            "device": bench.context.device.type,
            "seed": bench.context.seed,
            "true_focal": variant.knows_focal,
            "fit": asdict(variant.settings(bench.base)),
            "scene": asdict(scene),
        }
        return cls(variant, folder, OmegaConf.to_yaml(OmegaConf.create(settings)))

    @property
    def fits(self) -> Path:
        """The file of the fits."""
        return self.folder / "fits.npz"

    def done(self) -> bool:
        """Whether it has been fitted.

        Raises:
            InputError: It has, but with other settings.
        """
        if not self.fits.is_file():
            return False
        saved = self.folder / "config.yaml"
        if not saved.is_file() or saved.read_text() != self.settings:
            found = "fits of other settings, or of another version or device"
            raise InputError(saved, "settings", found, "Give another out=.")
        return True

    def seconds_per_person(self) -> float:
        """Of the fit, reading of files apart."""
        return float(run_summary(self.fits)["seconds_per_person"])

    def write(self, rows: Sequence[Row], seconds: float, bench: Workbench) -> None:
        """Save fitted rows; fits.npz comes last, so that what is there is whole."""
        summary = {
            "depthfit": __version__,
            "body": bench.context.body.name,
            "tokenizer": "open",
            "init": "predictions",
            "seconds_per_person": seconds / max(len(rows), 1),
        }
        for name, text in (("config.yaml", self.settings), ("summary.json", json.dumps(summary, indent=2))):
            with atomic_path(self.folder / name) as temporary:
                temporary.write_text(text)
        write_rows(self.fits, rows, {})

    def draw(self, scene: Scene, bench: Workbench) -> None:
        """Overlays that are not there yet, of everybody, where the report looks for them."""
        rows = read_rows(self.fits)
        for name in scene.names:
            if (self.folder / "overlays" / f"{name}.png").is_file():
                continue
            own = [row for row in rows if Path(str(row["imgname"])).stem == name]
            for image in bench.read(scene, [name]) if own else ():
                evidence = self.variant.evidence(image.evidence, image.true_focal)
                fits = [fit_of_row(row) for row in own]
                overlay_job(self.folder, evidence, bench.fitter(self.variant), image.people, fits).draw()
