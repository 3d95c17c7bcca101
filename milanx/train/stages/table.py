"""The table of pooled features that all later stages draw their units from."""

from __future__ import annotations

from typing import Any

from safetensors.torch import load_file

from milanx.train.stages.desk import Desk
from milanx.train.stages.projection import WEIGHTS, out_of_fold, planted_views
from milanx.train.units.meanings import halves


def make_table(desk: Desk) -> dict[str, Any]:
    """Pool what the units' exemplars show, through projections that were not trained on them."""
    course, joint = desk.course, None
    if projection := course.made.get("projection"):
        course.encoder.projection.load_state_dict(load_file(projection.folder / WEIGHTS))
        views = planted_views(desk)
        joint = out_of_fold(course.encoder, projection.folder, halves(views.photos), views.trained)
    return course.units.build_table(course.encoder, desk.folder, joint, desk.bar.advance)
