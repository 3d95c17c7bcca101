"""Close kin: what a describer says of classes that it was never trained on.

For such classes their own names cannot be expected, but those of near categories can
(``kin.json``, written before any result). P1 reports them for the logits that a run has;
`evaluate` plants class units of its own, for held-out classes that no target has a logit for.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from milanx.describing.trained import Trained, group_of, held_out
from milanx.errors import InputError
from milanx.evaluate.common.names import ClassNamer, accepted_kin, accepted_names, wnid_of
from milanx.evaluate.common.rows import Paired, constant_choice, signed
from milanx.exemplars.planted import MAP, plant
from milanx.files.kinds import RUN
from milanx.files.replacing import check_place
from milanx.images.near import picture_hash
from milanx.images.preprocess import Preprocess
from milanx.measures.crossing import Crossing
from milanx.measures.intervals import paired
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.describing.describer import Describer

K = 15
EACH = 4  # exemplar sets of a class
MIN_PHOTOS = 10
PURITY = (0.7, 1.0)  # as P2's
SIDE = 224


def kin_figures(
    score: Callable[[int, str], float], texts: Sequence[str], pool: Sequence[str], seed: int = 0
) -> dict[str, np.ndarray]:
    """Score units whose class is held out, and the rows beside them.

    Args:
        score: of a unit's number and a text.
        texts: the units' own, [n].
        pool: the method's texts of the whole layer, which are permuted and of which the
            constant one is chosen.
        seed: of the constant's folds.

    Returns:
        description, shuffled (its expectation over all permutations) and constant, float [n].
    """
    distinct, counts = np.unique(np.array(pool, dtype=object), return_counts=True)
    table = np.array([[score(i, str(t)) for t in distinct] for i in range(len(texts))])
    return {
        "description": np.array([score(i, t) for i, t in enumerate(texts)]),
        "shuffled": table @ (counts / counts.sum()),
        "constant": table[np.arange(len(texts)), constant_choice(table, seed)],
    }


def in_imagenet(name: str) -> bool:
    """Whether a class (WordNet id or folder name) is among ImageNet's, an encoder's labels."""
    return name in accepted_names() or bool(wnid_of(name)) or name.startswith("cougar")


def evaluate(
    describer: Describer,
    images: Sequence[Path],
    *,
    each: int = EACH,
    seed: int = 0,
    out: Path | None = None,
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Plant units of held-out classes, describe them, and count those that name close kin.

    Args:
        describer: what is measured.
        images: parquet files with columns image, and wnid or name.
        each: exemplar sets of a class.
        seed: of what is drawn.
        out: where the planted store is written; a temporary folder when None.
        overwrite: replace a run folder that is there.
        progress: told about encoding and describing.

    Returns:
        A report; intervals are over classes, since sets of one class are no independent units,
        crossed with the photographs that they show.

    Raises:
        InputError: photos without held-out classes, a describer that does not tell what it was
            trained on, or ``out`` holds what must not be replaced.
    """
    started = time.monotonic()
    if out:
        check_place(out, RUN, overwrite=overwrite)
    held = held_out(describer.training) or frozenset()
    sources = [_unseen(_read(path), describer.trained) for path in images]
    views, classes, sets = _draw(sources, held & accepted_kin().keys(), each, seed)
    if not sets:
        raise InputError(
            "no held-out class has photos here",
            f"of the {len(held)} classes that the describer's folder tells as held out none has a "
            f"list of kin and {MIN_PHOTOS} photos in these files that it was not trained on",
            "give the files whose classes were held out of training",
        )
    maps = [np.ones((K, MAP, MAP), np.float32)] * len(sets)
    with tempfile.TemporaryDirectory() as folder:
        store = plant(
            out or Path(folder) / "kin", sets, maps, sorted(views.items()),
            [{"index": i, "split": "exemplars"} for i in range(max(views) + 1)],
            overwrite=overwrite,
        )  # fmt: skip
        found = describer.describe(store, progress=progress or Silent())
    texts = [d.text for d in found]
    namer = ClassNamer(list(accepted_names()))

    def score(unit: int, text: str) -> float:
        return float(namer.kin(text, classes[unit]))

    figures = kin_figures(score, texts, texts, seed)
    groups = [photo.group for source in sources for photo in source]
    rows, notes = _by_group(figures, classes, [[groups[i] for i in chosen] for chosen in sets],
                            seed)  # fmt: skip
    return {
        "protocol": "P1 close kin of held-out classes, planted",
        "n": len(sets),
        "rows": rows,
        "describer": describer.name,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "notes": notes,
        "units": [{"class": c, "description": t, "kin": bool(k)}
                  for c, t, k in zip(classes, texts, figures["description"], strict=True)],
    }  # fmt: skip


def _by_group(
    figures: dict[str, np.ndarray], classes: Sequence[str], shown: Sequence[list[str]], seed: int
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Rows over classes that the encoder was once trained to tell apart, and over the others.

    Args:
        figures: of each set.
        classes: of each set.
        shown: the photographs of each set.
        seed: of the draws.
    """
    rows: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for group, seen in (("never named, but a label of the encoder's", True),
                        ("unseen by describer and encoder", False)):  # fmt: skip
        names = sorted({c for c in classes if in_imagenet(c) == seen})
        inside = {n: _by_class(v, classes, names) for n, v in figures.items()}
        if names:
            photos = [[p for c, s in zip(classes, shown, strict=True) if c == n for p in s]
                      for n in names]  # fmt: skip
            drawn = Crossing(photos, seed)
            for name, values in inside.items():
                rows[f"{name}: {group} (n = {len(names)})"] = {"close kin": drawn.interval(values)}
            notes += differences(inside, group, drawn.paired)
    return rows, notes


def differences(figures: dict[str, np.ndarray], group: str, differ: Paired = paired) -> list[str]:
    """Say how far the description is ahead of the rows beside it."""
    lines = []
    for other in ("shuffled", "constant"):
        found = differ(figures["description"], figures[other])
        lines.append(f"close kin, {group}: description - {other} {signed(found)}")
    return lines


def _by_class(values: np.ndarray, classes: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Mean of each class's units, float [classes]."""
    labels = np.array(classes)
    return np.array([values[labels == name].mean() for name in names])


@dataclass(frozen=True)
class _Labelled:
    """A photo: its class (WordNet id where there is one), its group, the encoded image."""

    name: str
    group: str
    content: bytes

    def read(self) -> Image.Image:
        """Decode it, RGB."""
        return Image.open(io.BytesIO(self.content)).convert("RGB")


def _unseen(photos: list[_Labelled], trained: Trained) -> list[_Labelled]:
    """Return the photos that no training saw."""
    seen = trained.seen([p.group for p in photos], [picture_hash(p.read()) for p in photos])
    return [photo for photo, known in zip(photos, seen, strict=True) if not known]


def _read(path: Path) -> list[_Labelled]:
    """Read a file's photos."""
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"no photos at {path}", "there is no such file", "give a .parquet file")
    table = pq.read_table(path)
    column = "wnid" if "wnid" in table.column_names else "name"
    if column not in table.column_names:
        raise InputError(f"{path} names no classes", "it has neither a column wnid nor name",
                         "give labelled photos")  # fmt: skip
    return [_Labelled(str(name or ""), group_of(image["path"], image["bytes"]), image["bytes"])
            for name, image in
            zip(table.column(column).to_pylist(), table.column("image").to_pylist(),
                strict=True)]  # fmt: skip


def _draw(
    sources: Sequence[list[_Labelled]], held: AbstractSet[str], each: int, seed: int
) -> tuple[dict[int, np.ndarray], list[str], list[np.ndarray]]:
    """Draw impure exemplar sets: views by index, class of each set, indices int64 [k] of each.

    Args:
        sources: photos; the others of a set come from its own source.
        held: the classes that sets are drawn of.
        each: sets of a class.
        seed: of what is drawn.
    """
    rng = np.random.default_rng(seed)
    crop = Preprocess((SIDE, SIDE), SIDE, "bilinear")
    views: dict[int, np.ndarray] = {}
    classes: list[str] = []
    sets: list[np.ndarray] = []
    first = 0
    for source in sources:
        labels = np.array([photo.name for photo in source])
        for name in sorted(set(labels) & held):
            own, others = np.flatnonzero(labels == name), np.flatnonzero(labels != name)
            if len(own) < MIN_PHOTOS:
                continue
            for _ in range(each):
                pure = min(round(K * rng.uniform(*PURITY)), len(own))
                chosen = [rng.choice(own, pure, False), rng.choice(others, K - pure, False)]
                places = np.concatenate(chosen)
                for place in places.tolist():
                    views.setdefault(first + place, crop.view(source[place].read()))
                classes.append(str(name))
                sets.append((first + places).astype(np.int64))
        first += len(source)
    return views, classes, sets
