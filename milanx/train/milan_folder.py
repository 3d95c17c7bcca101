"""The folder of a MILAN: what its stages made, put together."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from milanx.describing.milan.folder import DECODER, ENCODER, PRIOR, write_milan
from milanx.describing.milan.search import MilanSearch
from milanx.describing.trained import write_trained
from milanx.files import atomic_path, write_text
from milanx.files.kinds import MILAN
from milanx.train.describer_folder import copy_half, encoder_of, training_of
from milanx.train.stages.desk import Course
from milanx.train.stages.encoders import encoder_file
from milanx.train.stages.milan import read_vocabulary
from milanx.train.stages.projection import WEIGHTS

CARD = """---
library_name: milanx
license: other
tags: [interpretability, milan]
---

# {name}

MILAN's own describer (Hernandez et al. 2022) on milanx's features: a baseline.

    milanx describe MODEL --layer LAYER --images IMAGES --method milan --describer FOLDER

- p(d|E): an LSTM ({hidden} wide) that attends to the {read} features of each exemplar under its
  mask at every word; p(d): an LSTM of {layers} layers; {words} words
- search: beam {beam}, ranked by log p(d|E) - {lam} log p(d)
- units and texts: those of `milanx train mini`; {photos_trained_on} of {photos} views trained on.
  Several of their sources allow research use alone: so does this folder.
- losses in nats a token on checked units: p(d|E) {decoder}, p(d) {prior}
"""


def write_milan_folder(course: Course, out: Path, *, overwrite: bool = False) -> None:
    """Write the folder that `milanx.describing.milan.describer.Milan.load` reads."""
    made = {name: stage.folder for name, stage in course.made.items()}
    vocabulary, spec = read_vocabulary(course)
    training, search = training_of(course), MilanSearch()
    with atomic_path(out, MILAN if overwrite else None) as temporary:
        temporary.mkdir(parents=True)
        shutil.copy(made["milan"] / DECODER, temporary / DECODER)
        shutil.copy(made["milan_prior"] / PRIOR, temporary / PRIOR)
        weights = made["projection"] / WEIGHTS if "projection" in made else encoder_file(
            course.recipe)  # fmt: skip
        if weights is not None:
            copy_half(weights, temporary / ENCODER)
        shown = course.units.trained()
        if shown is not None:
            write_trained(temporary, shown)
        content = {"name": course.recipe.name, **encoder_of(course, out),
                   "network": asdict(spec), "search": asdict(search),
                   "training": training}  # fmt: skip
        write_text(temporary / "README.md", _card(content))
        write_milan(temporary, content, vocabulary.words)


def _card(content: dict[str, Any]) -> str:
    """Write the card in markdown."""
    facts = content["training"]["facts"]
    values = {"photos": "all", "photos_trained_on": "all", **content["training"],
              **content["network"], **content["search"], "name": content["name"]}  # fmt: skip
    values["words"] = facts["milan"]["words"]
    for name, stage in (("decoder", "milan"), ("prior", "milan_prior")):
        checks = facts[stage]["held_out"]
        values[name] = min((value for _, value in checks), default="not measured")
    return CARD.format(**values)
