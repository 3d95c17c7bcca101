"""Rating: is a text right, of the exemplars that it was written for?

Beside P4's choices, which ask whether a text tells a unit from others: here a reader sees a unit's
exemplars and says whether the text holds. Each text stands by itself, in an order that tells
neither unit nor method; `milanx.evaluate.p4.rated` opens the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.p4.sheets import draw_exemplars, exemplar_sheet, plus_rows, save_jpeg
from milanx.evaluate.p4.study import Material
from milanx.files import atomic_path, fingerprint, write_json
from milanx.files.kinds import STUDY
from milanx.files.replacing import check_place

if TYPE_CHECKING:
    from milanx.runs import Run

RATINGS, KEY, VERSION = "milanx-ratings", "milanx-ratings-key", 1
GRADES = ("right", "nearly", "half", "wrong")  # from best to worst
INSTRUCTIONS = (
    "Each entry has a picture and a text. The picture shows the images that excite one part of a "
    "vision model most; what excites it is bright, the rest is dimmed. Does the text say what the "
    "bright parts have in common? 'right': it does, for nearly all images. 'nearly': it says "
    "something that holds for most of them but is too narrow, too wide or beside the point by a "
    "little. 'half': one of two things that it says holds, or it holds for about half of the "
    "images. 'wrong': none of these. Judge each entry by itself. Answer as json: "
    "{entry id: grade}. Several readers may answer the same list; none knows of another's grades."
)


@dataclass(frozen=True)
class RatingSettings:
    """What is rated.

    Attributes:
        units: of each layer, drawn at random among those that every method describes; all of
            them where there are fewer.
        seed: of the draw and of the entries' order.
    """

    units: int = 60
    seed: int = 0


def make_ratings(
    material: Material,
    out: Path,
    *,
    settings: RatingSettings | None = None,
    overwrite: bool = False,
) -> int:
    """Write a study of ratings: pictures, one list of entries, and the key in a folder of its own.

    Args:
        material: the run, its layers, and runs of the same exemplars; the images are not opened.
        out: the study's folder.
        settings: what is rated.
        overwrite: replace a study that is there.

    Returns:
        Entries of the list.

    Raises:
        InputError: a run of other exemplars, a layer without a described unit, or ``out`` holds
            what must not be replaced.
    """
    check_place(out, STUDY, overwrite=overwrite)
    settings = settings or RatingSettings()
    run, texts = material.run, material.texts(1)
    told = _told(run)
    entries: list[dict[str, str]] = []
    key: dict[str, dict[str, Any]] = {}
    with atomic_path(out, STUDY if overwrite else None) as new:
        for layer in material.chosen:
            everywhere = [by_layer[layer] for by_layer in texts.values()]
            for unit in _drawn(run, layer, everywhere, settings):
                place = (settings.seed, run.store.fingerprint, layer, unit)
                picture = f"pictures/{fingerprint('exemplars', *place)[:10]}.jpg"
                save_jpeg(draw_exemplars(exemplar_sheet(run.store, layer, unit)), new / picture)
                for name, by_layer in texts.items():
                    ident = fingerprint("rating", name, *place)[:10]
                    text = by_layer[layer][unit]
                    entries.append({"id": ident, "picture": picture, "text": text})
                    key[ident] = {"list": name, "layer": layer, "unit": unit, "text": text}
                    if name == next(iter(texts)):
                        key[ident] |= told[layer, unit]
        entries.sort(key=lambda entry: entry["id"])
        facts = {
            "target": run.settings["target"]["name"],
            "exemplars": run.store.fingerprint,
            "describers": material.describers(),
            "settings": asdict(settings),
            "layers": material.chosen,
        }
        content = {"instructions": INSTRUCTIONS, "grades": list(GRADES), "entries": entries}
        write_json(new / "ratings.json", RATINGS, VERSION, content)
        write_json(new / "key" / "ratings.json", KEY, VERSION, {**facts, "entries": key})
    return len(entries)


def _told(run: Run) -> dict[tuple[str, int], dict[str, Any]]:
    """Return what the run says of how sure each description is."""
    return {
        (row["layer"], row["unit"]): {"status": row["status"], "confidence": row["confidence"]}
        for row in run.rows if row["sign"] == "+"
    }  # fmt: skip


def _drawn(
    run: Run, layer: str, texts: Sequence[dict[int, str]], settings: RatingSettings
) -> list[int]:
    """Draw units of a layer that have a text by every method.

    Raises:
        InputError: there is none.
    """
    there = [u for u in plus_rows(run.store, layer) if all(by_unit.get(u) for by_unit in texts)]
    if not there:
        raise InputError(f"no unit of {layer} has a text in all runs", "there is nothing to rate",
                         "describe units of it")  # fmt: skip
    rng = np.random.default_rng([settings.seed, int(fingerprint(layer), 16) % 2**32])
    return sorted(int(u) for u in rng.permutation(there)[: settings.units])
