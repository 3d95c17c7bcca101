"""Evaluate models on corrupted images, on cues in conflict, or on any labelled images."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from milanx.act.corruptions import CORRUPTIONS, SEVERITIES, check_severities, read_frost
from milanx.act.corruptions.makers import WORTH, Makers
from milanx.act.data import Classes, EvalSet, image_set, model_classes, usual_step
from milanx.act.robustness import cues as cue_conflict
from milanx.act.robustness.figures import CLEAN, corruption_figures
from milanx.act.robustness.labelled import labelled_figures, relabelled
from milanx.act.robustness.made import corrupted, held, sampled, view_keys
from milanx.act.robustness.measure import Options, Piece, by_label, measure, versions_key
from milanx.act.robustness.released import Released, as_it_is, open_released
from milanx.act.robustness.results import Robustness
from milanx.act.robustness.subjects import Model, Subject, as_subjects, outputs_of
from milanx.errors import InputError, did_you_mean
from milanx.files import cache_dir, fingerprint
from milanx.images.probe import open_images
from milanx.progress import Reporter, Silent
from milanx.targets.given import gives_back
from milanx.targets.zoo import Target

KINDS = ("imagenet-c", "cue-conflict", "labelled")
RECIPE = 1  # of the corrupted pictures; kept answers of another are not used
OWN_FROST = "frost is mixed with milanx's own textures of ice, not with the photos of ImageNet-C"
MADE = (
    "The corrupted pictures were made here, from clean images; they are not the released ImageNet-C"
)
AGREEMENT = (
    "The images have no labels: what is counted is disagreement with {reference} on the clean image"
)

Images = EvalSet | str | Path | Sequence[str | Path]


@gives_back
def evaluate_robustness(
    models: Mapping[str, Model] | Model,
    images: Images | None = None,
    *,
    kind: str = "imagenet-c",
    released: str | Path | None = None,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    sample: int | None = None,
    seed: int = 0,
    frost: str | Path | None = None,
    classes: Sequence[str] | Path | None = None,
    batch_size: int | None = None,
    workers: int = 2,
    keep: str | Path | None = None,
    progress: Reporter | None = None,
) -> Robustness:
    """Measure models on the same pictures, each of which is made once for all of them.

    Args:
        models: by name; the first is what the others are compared with, such as the unedited one.
            A name of a target, a module, a `Target`, or a `Subject`, which may be edited.
        images: for ``imagenet-c`` clean images to corrupt (or, with ``released``, the folder of
            the clean validation images, for the relative figures), for the others the images.
        kind: ``imagenet-c``, ``cue-conflict`` or ``labelled``.
        released: folder of the published ImageNet-C, ``ROOT/CORRUPTION/SEVERITY/WNID``.
        corruptions: of the fifteen; all when None.
        severities: of 1 to 5.
        sample: at most this many images, drawn with the seed.
        seed: of the sample, the corruptions and the intervals.
        frost: folder of pictures of ice; milanx's own when None.
        classes: of the models, in the order of their logits: names or WordNet ids, or a file.
        batch_size: images a step; when None, what `usual_step` says.
        workers: processes that make pictures, where they are many; they change no byte.
        keep: folder of finished pieces, from which a stopped evaluation goes on; in the cache when
            None.
        progress: told about pieces, the rate and the time that is left.

    Raises:
        InputError: images, labels, classes or settings that do not fit; folders that are missing.
    """
    if isinstance(models, str | nn.Module | Target | Subject):
        models = {models if isinstance(models, str) else "model": models}
    asked = _Asked(kind, tuple(corruptions or CORRUPTIONS), tuple(severities), sample, seed,
                   None if frost is None else Path(frost), classes)  # fmt: skip
    subjects = as_subjects(models)
    step = batch_size or usual_step(next(iter(subjects.values())).target)
    work = _Work(
        asked,
        subjects,
        Options(progress or Silent(), step, workers),
        cache_dir("robustness") if keep is None else Path(keep),
    )
    if released is not None and kind == "imagenet-c":
        return _published(work, Path(released), images)
    if images is None:
        raise InputError(
            "no images to measure on",
            "none were given",
            "--images FOLDER, or builtin:probe, which has no labels",
        )
    if kind == "cue-conflict":
        return _cue_conflict(work, images)
    opened = work.opened(images)
    return _labelled(work, opened) if kind == "labelled" else _made(work, opened)


def kind_of(
    evaluation: str, images: Sequence[str] | None, eval_images: Path | None
) -> tuple[str, Images | None, Path | None]:
    """Return kind, images and the released folder of `evaluate_robustness` for a command's options.

    Args:
        evaluation: imagenet-c, cue-conflict, or a source of labelled images.
        images: clean images.
        eval_images: the released ImageNet-C, or cue-conflict images.
    """
    given: Images | None = None
    if images:
        given = images[0] if len(images) == 1 else list(images)
    if evaluation == "imagenet-c":
        return evaluation, given, eval_images
    if evaluation == "cue-conflict":
        return evaluation, eval_images or given, None
    if not Path(evaluation).exists():
        raise InputError(
            f"no evaluation {evaluation!r}",
            "it is imagenet-c, cue-conflict, or a folder or .parquet file that is there",
            did_you_mean(evaluation, KINDS),
        )
    return "labelled", evaluation, None


@dataclass(frozen=True)
class _Asked:
    """What is asked for; checks itself."""

    kind: str
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    sample: int | None
    seed: int
    frost: Path | None
    classes: Sequence[str] | Path | None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(
                f"no evaluation {self.kind!r}",
                f"there are {', '.join(KINDS)}",
                did_you_mean(self.kind, KINDS),
            )
        for name in self.corruptions:
            if name not in CORRUPTIONS:
                raise InputError(
                    f"no corruption is named {name!r}",
                    f"there are {', '.join(CORRUPTIONS)}",
                    did_you_mean(name, CORRUPTIONS),
                )
        check_severities(self.severities)
        if self.sample is not None and self.sample < 1:
            raise InputError(f"a sample of {self.sample} images", "at least one is needed")

    def cells(self) -> list[tuple[str, int]]:
        """Return every corruption at every severity, in the order of the paper."""
        names = [name for name in CORRUPTIONS if name in self.corruptions]
        return [(name, severity) for name in names for severity in sorted(set(self.severities))]


@dataclass(frozen=True)
class _Work:
    """What every kind of evaluation needs."""

    asked: _Asked
    subjects: dict[str, Subject]
    options: Options
    keep: Path
    versions: str = field(default_factory=versions_key)
    notes: list[str] = field(default_factory=list)  # on the images that were opened

    @property
    def reference(self) -> str:
        return next(iter(self.subjects))

    @property
    def target(self) -> Target:
        return self.subjects[self.reference].target

    @cached_property
    def classes(self) -> Classes:
        height, width = self.target.preprocess.size
        blank = torch.zeros(1, 3, height, width, dtype=torch.uint8)
        count = outputs_of(self.subjects, blank)
        return model_classes(count, self.asked.classes, self.target.classes)

    def opened(self, images: Images) -> EvalSet:
        """Open images as the models see them, or a sample of them."""
        if not isinstance(images, EvalSet):
            specs = [images] if isinstance(images, str | Path) else list(images)
            opened = open_images(specs)
            self.notes.extend(opened.notes)
            images = image_set(opened, self.target, self.classes)
        outputs, labels = self.classes.count, images.labels
        if labels is not None and not 0 <= labels.min() <= labels.max() < outputs:
            raise InputError(
                f"the labels of {images.name} fit no class of the models",
                f"they go from {labels.min()} to {labels.max()}; there are {outputs} outputs",
                "number them as the logits are",
            )
        return held(sampled(images, self.asked.sample, self.asked.seed))

    def key(self, *parts: object) -> str:
        """Stand for a piece: what the pictures are, and what they are made with."""
        return fingerprint(RECIPE, self.versions, *parts)

    def result(
        self, measured: str, images: EvalSet, figures: dict[str, Any], notes: Sequence[str] = ()
    ) -> Robustness:
        """Put the figures together with what they are of."""
        asked = self.asked
        return Robustness(
            asked.kind,
            images.name,
            measured,
            tuple(self.subjects),
            len(images),
            len(set(images.groups)),
            {"seed": asked.seed, "sample": asked.sample,
             "frost": None if asked.frost is None else str(asked.frost),
             "fingerprints": {n: s.key for n, s in self.subjects.items()}},
            {k: v for k, v in figures.items() if k != "notes"},
            (*self.notes, *notes, *figures["notes"]),
        )  # fmt: skip


def _made(work: _Work, images: EvalSet) -> Robustness:
    """Corrupt clean images on the fly."""
    asked, keys = work.asked, view_keys(images, work.options.workers)
    notes, measured = [MADE], "error"
    if images.labels is None:
        images, measured = _agreeing(work, images, keys), "disagreement"
        notes.append(AGREEMENT.format(reference=work.reference))
    assert images.labels is not None
    of = [keys, images.labels.tolist()]
    if "frost" in asked.corruptions and asked.frost is None:
        notes.append(OWN_FROST)
    ice = _frost_key(asked.frost) if "frost" in asked.corruptions else ""
    cells = asked.cells()
    processes = work.options.workers if len(images) * len(cells) >= WORTH else 1
    with Makers(processes, asked.frost) as makers:
        pieces = [Piece(*CLEAN, images, work.key("clean", of))]
        for name, severity in cells:
            made = corrupted(images, name, severity, keys, asked.seed, makers)
            key = work.key("made", of, asked.seed, name, severity, ice if name == "frost" else "")
            pieces.append(Piece(name, severity, made, key))
        answers = measure(work.subjects, pieces, by_label(images.labels), work.keep, work.options)
    figures = corruption_figures(answers, images.groups, seed=asked.seed)
    return work.result(measured, images, figures, notes)


def _agreeing(work: _Work, images: EvalSet, keys: Sequence[str]) -> EvalSet:
    """Label images as the reference sees them clean."""
    nothing = np.zeros(len(images), np.int64)
    first = {work.reference: work.subjects[work.reference]}
    piece = Piece(*CLEAN, images, work.key("unlabelled", keys))
    answers = measure(first, [piece], by_label(nothing), work.keep, work.options)
    return relabelled(images, answers[work.reference][CLEAN]["predicted"])


def _frost_key(folder: Path | None) -> str:
    """Stand for the pictures of ice."""
    if folder is None:
        return "own"
    ice = read_frost(folder)
    return fingerprint([(p.shape, hashlib.sha256(p.tobytes()).hexdigest()) for p in ice])


def _published(work: _Work, root: Path, clean: Images | None) -> Robustness:
    """Read the released ImageNet-C, and its clean images if their folder is given."""
    asked = work.asked
    cells = asked.cells()
    names = list(dict.fromkeys(name for name, _ in cells))
    there = open_released(root, names, sorted(set(asked.severities)))
    there = there.subset(asked.sample, asked.seed)
    labels = there.labels(work.classes)
    view, note = as_it_is(work.target.preprocess)
    notes = [note] if note else []
    of = [labels.tolist(), work.target.preprocess.size]
    pieces = [
        Piece(name, severity, there.images(name, severity, view, labels),
              work.key("released", there.key(name, severity), of))
        for name, severity in cells
    ]  # fmt: skip
    if clean is None:
        notes.append("no relative mCE: it needs the clean validation images too (--images FOLDER)")
    else:
        pieces.insert(0, _clean_piece(work, there, clean, labels))
    if asked.sample is not None:
        notes.append(f"a sample of {len(there.names)} of the released images")
    answers = measure(work.subjects, pieces, by_label(labels), work.keep, work.options)
    figures = corruption_figures(answers, there.names, published=True, seed=asked.seed)
    images = dataclasses.replace(pieces[-1].images, name=f"ImageNet-C in {root}")
    return work.result("error", images, figures, notes)


def _clean_piece(work: _Work, there: Released, clean: Images, labels: np.ndarray) -> Piece:
    """Return the clean images of the released ones, by their names."""
    folder = Path(clean) if isinstance(clean, str | Path) else None
    absent = [n for n in there.names if folder is None or not (folder / n).is_file()]
    if folder is None or absent:
        raise InputError(
            f"{clean} does not hold the clean images of the released ones",
            f"{len(absent)} of {len(there.names)} are missing, such as {absent[0]}",
            ("give the validation images as WNID/FILE, with the names of ImageNet-C",
             "leave them out: all but relative mCE is measured"),
        )  # fmt: skip
    whole = Released({CLEAN: folder}, there.names, side=None)
    preprocess = work.target.preprocess
    images = whole.images(*CLEAN, preprocess.view, labels)
    of = [labels.tolist(), preprocess.to_dict()]
    return Piece(*CLEAN, images, work.key("released clean", whole.key(*CLEAN), of))


def _cue_conflict(work: _Work, images: Images) -> Robustness:
    """Decide between shape and texture."""
    if not isinstance(images, str | Path):
        raise InputError(
            "cue-conflict takes one source of images",
            "their names or columns say shape and texture",
            "give its folder or its parquet file",
        )
    reading = cue_conflict.category_reading(work.classes)
    view, note = as_it_is(work.target.preprocess)
    opened = cue_conflict.open_cues(images, view)
    chosen = np.arange(len(opened.images))
    if work.asked.sample is not None and work.asked.sample < len(chosen):
        rng = np.random.default_rng(work.asked.seed)
        chosen = np.sort(rng.choice(len(chosen), work.asked.sample, replace=False))
    opened = opened.subset(chosen.tolist())
    keys = view_keys(opened.images, work.options.workers)
    ids = fingerprint(work.classes.wnids, cue_conflict.categories())
    piece = Piece("cue-conflict", 0, opened.images, work.key("cues", keys, ids))
    answers = measure(work.subjects, [piece], reading, work.keep, work.options)
    flat = {name: cells["cue-conflict", 0] for name, cells in answers.items()}
    figures = cue_conflict.cue_figures(flat, opened, work.asked.seed)
    return work.result("decision", opened.images, figures, [note] if note else [])


def _labelled(work: _Work, images: EvalSet) -> Robustness:
    """Measure accuracy on labelled images as they are."""
    if images.labels is None:
        raise InputError(
            f"the images of {images.name} have no labels",
            "accuracy needs them",
            "give a folder a class, or a parquet file with a column label, name or wnid",
        )
    keys = view_keys(images, work.options.workers)
    piece = Piece(*CLEAN, images, work.key("clean", [keys, images.labels.tolist()]))
    answers = measure(work.subjects, [piece], by_label(images.labels), work.keep, work.options)
    flat = {name: cells[CLEAN] for name, cells in answers.items()}
    figures = labelled_figures(flat, images, work.classes, work.asked.seed)
    return work.result("accuracy", images, figures)
