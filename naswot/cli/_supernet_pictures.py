"""Pictures of a supernet at the end of its search, drawn where it lives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from naswot._json import write_json

if TYPE_CHECKING:
    from naswot.differentiable.runs import RunKey
    from naswot.differentiable.searching import SupernetResult
    from naswot.differentiable.tasks import Task
    from naswot.supernet import MixedSupernet

_POINTS = 11  # of the landscape, along each side


@dataclass(frozen=True)
class Pictures:
    """Alphas, spectrum of the Hessian and landscape around the alphas, and the numbers of the first two.

    Args:
        folder: where they go, named by the seed.
    """

    folder: Path

    def __call__(self, key: RunKey, result: SupernetResult, task: Task) -> None:
        """Draw them, unless they are there."""
        from naswot.plots_supernet import plot_alphas

        name = f"seed{key.seed}" + (f"-{key.variant}" if key.variant else "")
        told = self.folder / f"{name}.json"
        supernet = result.supernet
        if told.exists() or not result.history or result.history[-1]["arch"] == "":
            return
        plot_alphas(supernet, self.folder / f"{name}-alphas.png", title=f"{result.space.name}, {name}")
        alphas = {group: table.detach().cpu().tolist() for group, table in supernet.alphas.items()}
        eigenvalues = self._curvature(name, supernet, task) if "eigenvalue" in result.history[-1] else None
        write_json(told, {"alphas": alphas, "eigenvalues": eigenvalues})

    def _curvature(self, name: str, supernet: MixedSupernet, task: Task) -> list[float] | None:
        from naswot.differentiable.landscape import landscape
        from naswot.differentiable.spectrum import spectrum, supernet_curvature
        from naswot.plots_supernet import plot_landscape, plot_spectrum

        batch = task.fixed_batch()
        grid = landscape(supernet, batch, n=_POINTS)
        plot_landscape(grid, self.folder / f"{name}-landscape.png", title=f"loss around the alphas, {name}")
        with supernet_curvature(supernet, lambda mixing: task.loss(supernet, mixing, batch)) as curvature:
            values = spectrum(curvature).eigenvalues
        if values is None:
            return None
        plot_spectrum({name: values}, self.folder / f"{name}-spectrum.png", title=f"Hessian of the alphas, {name}")
        return [float(value) for value in values]
