"""Plain-language descriptions of what the units of a vision model detect.

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milanx.act.analyze import analyze
    from milanx.act.audit.findings import audit
    from milanx.act.audit.versus import audit_versus
    from milanx.act.export import load_edited
    from milanx.act.prune import prune
    from milanx.act.pruned import PruneReport, PruneSettings
    from milanx.act.robustness.evaluate import evaluate_robustness
    from milanx.act.robustness.results import Robustness
    from milanx.act.robustness.subjects import Subject
    from milanx.describing.candidates import Candidate, Description
    from milanx.describing.describer import Describer
    from milanx.describing.settings import SearchSettings
    from milanx.errors import FormatError, InputError, Interrupted, MilanxError, MissingWeights
    from milanx.exemplars.request import ExtractSettings
    from milanx.exemplars.store import ExemplarSet, ExemplarStore
    from milanx.images.preprocess import Preprocess
    from milanx.pipeline import describe, extract
    from milanx.report.check import check
    from milanx.runs import Run, open_run
    from milanx.share.exchange.export import export_run
    from milanx.share.exchange.taking import import_run
    from milanx.share.pull import pull
    from milanx.share.push import push
    from milanx.targets.generator import Generator

__version__ = "0.1.0"

_PLACES = {
    "Candidate": "describing.candidates",
    "Describer": "describing.describer",
    "Description": "describing.candidates",
    "ExemplarSet": "exemplars.store",
    "ExemplarStore": "exemplars.store",
    "ExtractSettings": "exemplars.request",
    "FormatError": "errors",
    "Generator": "targets.generator",
    "InputError": "errors",
    "Interrupted": "errors",
    "MilanxError": "errors",
    "MissingWeights": "errors",
    "Preprocess": "images.preprocess",
    "PruneReport": "act.pruned",
    "PruneSettings": "act.pruned",
    "Robustness": "act.robustness.results",
    "Run": "runs",
    "SearchSettings": "describing.settings",
    "Subject": "act.robustness.subjects",
    "analyze": "act.analyze",
    "audit": "act.audit.findings",
    "audit_versus": "act.audit.versus",
    "check": "report.check",
    "describe": "pipeline",
    "evaluate_robustness": "act.robustness.evaluate",
    "export_run": "share.exchange.export",
    "extract": "pipeline",
    "import_run": "share.exchange.taking",
    "load_edited": "act.export",
    "open_run": "runs",
    "prune": "act.prune",
    "pull": "share.pull",
    "push": "share.push",
}

__all__ = [
    "Candidate",
    "Describer",
    "Description",
    "ExemplarSet",
    "ExemplarStore",
    "ExtractSettings",
    "FormatError",
    "Generator",
    "InputError",
    "Interrupted",
    "MilanxError",
    "MissingWeights",
    "Preprocess",
    "PruneReport",
    "PruneSettings",
    "Robustness",
    "Run",
    "SearchSettings",
    "Subject",
    "analyze",
    "audit",
    "audit_versus",
    "check",
    "describe",
    "evaluate_robustness",
    "export_run",
    "extract",
    "import_run",
    "load_edited",
    "open_run",
    "prune",
    "pull",
    "push",
]


def import_public(package: str, places: Mapping[str, str], name: str) -> Any:
    """Import a public name of a package from the file of it where it stands.

    Raises:
        AttributeError: the package has no such name.
    """
    if name in places:
        return getattr(importlib.import_module(f"{package}.{places[name]}"), name)
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return import_public("milanx", _PLACES, name)


def __dir__() -> list[str]:
    return sorted(__all__)
