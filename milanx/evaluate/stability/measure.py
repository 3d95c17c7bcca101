"""The report of stability: every setting beside the defaults, and layers beside one another."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any

from milanx.environment import versions
from milanx.evaluate.stability.figures import by_layer, compare
from milanx.evaluate.stability.settings import AXES, PROBE, StabilityAsked
from milanx.evaluate.stability.vary import Varied, check_axes
from milanx.files import write_json
from milanx.files.lock import held
from milanx.files.replacing import check_file
from milanx.language.compare import Sentences
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.describing.describer import Describer

FORMAT, VERSION = "milanx stability", 1
REPORT = "stability.json"


def measure_stability(
    describer: Describer, asked: StabilityAsked, progress: Reporter | None = None
) -> dict[str, Any]:
    """Describe the same units under many settings, and say how alike the texts are.

    What was described before under the same settings is used again, so that a command that was
    stopped goes on.

    Args:
        describer: whose search and ranking are varied.
        asked: what is described, and what is varied.
        progress: told about each setting.

    Returns:
        ``stability.json``: ``settings``, a row each (`milanx.evaluate.stability.figures.compare`),
        the base first; ``layers``, a row each (`by_layer`), of the base and of further layers.

    Raises:
        InputError: a target, layers, images or settings that cannot be used, or a folder that
            holds what is not milanx's.
    """
    started, progress = time.monotonic(), progress or Silent()
    check_axes(describer, asked)
    check_file(asked.out, REPORT, FORMAT)
    with held(asked.out / REPORT, progress.say, f"the report {asked.out}"):
        varied, embed = Varied(describer, asked, progress), Sentences()
        said = list(varied.all())
        deep = varied.depth()
        rows = [{**compare(said[0], other, embed), "title": _title(other.axis)} for other in said]
        layers = [row for run in (varied.base, deep) if run is not None for row in by_layer(run)]
        base = varied.base
        report = {
            "settings": rows,
            "usual": {name: varied.usual(name) for name in asked.axes if name != PROBE},
            "layers": layers,
            "target": base.target,
            "units": {layer: len(base.store.units(layer)) for layer in base.store.layers},
            "images": {"count": base.settings["images"]["count"],
                       "fingerprint": base.settings["images"]["fingerprint"],
                       "sources": [s["name"] for s in base.sources]},
            "describer": describer.name,
            "fingerprint": describer.fingerprint,
            "command": command(asked),
            "versions": versions(),
            "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        write_json(asked.out / REPORT, FORMAT, VERSION, report)
    return report


def _title(axis: str) -> str:
    return AXES[axis].title if axis in AXES else axis


def command(asked: StabilityAsked) -> str:
    """Return the command that asks for it, with the names of files alone."""
    words = ["milanx", "bench", "stability", "OUT", "--model", asked.model]
    for option, values in (
        ("--layer", asked.layers),
        ("--images", map(_short, asked.images)),
        ("--probe", map(_short, asked.probes)),
        ("--depth", asked.depth),
    ):
        for value in values:
            words += [option, value]
    words += ["--units", str(asked.units)]
    usual = {name: axis.values for name, axis in AXES.items()}
    if dict(asked.axes) != usual:
        for name, values in asked.axes.items():
            given = ",".join(map(str, values))
            words += ["--vary", name if values == usual[name] else f"{name}={given}"]
    if asked.weights:
        words += ["--weights", asked.weights.name]
    if asked.limit:
        words += ["--limit", str(asked.limit)]
    return shlex.join(words)


def _short(spec: str) -> str:
    return spec if ":" in spec else spec.rpartition("/")[2]
