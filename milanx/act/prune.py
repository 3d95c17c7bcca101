"""Prune by words: find the units, find how many of them to remove, remove them, report.

The number is chosen on some photographs and reported on others. What removing other units would
have done stands beside it: all units of the layers sorted the same way, random ones, and the chosen
ones in reversed order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from milanx.act.ablate import ablate, run_places, stored_means
from milanx.act.audit.rules import Rule, pick_rules
from milanx.act.curve import (
    FOR_EACH,
    Bench,
    Curve,
    Editor,
    Unit,
    grid,
    make_editor,
    random_orders,
    refuse_whole_layers,
    right_classes,
    screen,
)
from milanx.act.data import EvalSet
from milanx.act.export import EDIT as EDIT_FILE
from milanx.act.export import Why, fill_edit
from milanx.act.figures import Figure, Resampler, Worst, changes, worst_parts
from milanx.act.places import refuse_computed
from milanx.act.pruned import FORMAT, VERSION, PruneReport, PruneSettings
from milanx.act.reopen import find_target
from milanx.act.rig import Rig
from milanx.act.robustness.subjects import Subject
from milanx.act.select import LIKE, Choice, Selection, choose
from milanx.act.sets import Asked, Given, Sets, make_sets
from milanx.act.tables import CUES, TABLES, Table
from milanx.act.weights import write_weights
from milanx.environment import pick_device
from milanx.errors import FormatError, InputError
from milanx.files import atomic_path, fingerprint, write_json
from milanx.files.kinds import EDIT
from milanx.files.replacing import check_place
from milanx.progress import Reporter, Silent, Timed
from milanx.targets.given import gives_back
from milanx.targets.units import LayerInfo
from milanx.targets.zoo import Target

if TYPE_CHECKING:
    from torch import nn

    from milanx.act.robustness.results import Robustness
    from milanx.runs import Run

# Of the report, what stands in ``edit.json`` too.
IN_EDIT = ("count", "measure", "figures", "worst", "images", "notes")
CHECKED = 8  # images on which written weights are compared with the edit


@gives_back
def prune(
    run: Run | Path | str,
    *,
    match: Sequence[str] | str = (),
    like: Sequence[str] | str = (),
    units: Sequence[str] | str = (),
    rule: Sequence[str] | str = (),
    rules: Path | str | Sequence[Rule] | None = None,
    exclude: Sequence[str] | str = (),
    regex: bool = False,
    within: str = "description",
    min_score: float | None = None,
    min_confidence: float | None = None,
    max_units: int | None = None,
    threshold: float = LIKE,
    images: Given = (),
    adversarial: Given = (),
    evaluate: Given = (),
    eval_images: Path | str | None = None,
    classes: Sequence[str] | Path | None = None,
    limit: int | None = None,
    settings: PruneSettings | None = None,
    model: nn.Module | None = None,
    weights: Path | str | None = None,
    device: str = "auto",
    out: Path | str | None = None,
    overwrite: bool = False,
    command: str = "",
    dry_run: bool = False,
    progress: Reporter | None = None,
) -> PruneReport:
    """Remove the units of a model that words name, as many as help.

    Args:
        run: a run with descriptions, or its folder.
        match: words; whole words and their inflections.
        like: meanings, by sentence similarity of ``threshold`` or more.
        units: addresses.
        rule: names of rules of the audit, which find units as `milanx.audit` does.
        rules: to name them of: a yaml file that extends the shipped ones, or rules.
        exclude: layers, patterns, addresses or words that are left alone.
        regex: whether ``match`` holds regular expressions.
        within: ``description`` or ``candidates``.
        min_score: least score of a unit.
        min_confidence: least confidence of a unit.
        max_units: at most so many.
        threshold: of ``like``.
        images: clean ones, labelled or not: folders, parquet files, or an `EvalSet`; the run's own
            when empty.
        adversarial: to choose the number on.
        evaluate: what the edit is for, such as corrupted images; half of its photographs choose
            the number, half report; the clean images when empty. ``imagenet-c``: the clean images
            with one corruption each choose and report, and a table of all types on test photos is
            made besides. ``cue-conflict``: a table of shape and texture decisions is.
        eval_images: the released ImageNet-C, or the images of cue-conflict, for that table.
        classes: names or WordNet ids of the model's classes in order, or a file of them.
        limit: at most this many images.
        settings: how units are removed and measured.
        model: the target, where its name does not give it.
        weights: its checkpoint, likewise.
        device: where it computes.
        out: the folder of the edited model; nothing is written when None.
        overwrite: replace the edit that is there.
        command: that asks for this, for ``edit.json``.
        dry_run: choose the units and stop.
        progress: told about the stages.

    Returns:
        What was found; the target itself is never changed.

    Raises:
        MilanxError: something given cannot be used: a run without descriptions, words that match
            nothing, labels that fit no class, a whole layer, weights that changed since the run.
    """
    from milanx.runs import Run, open_run

    opened = run if isinstance(run, Run) else open_run(run)
    if not isinstance(evaluate, EvalSet | str | Path) and len(evaluate) == 1:
        evaluate = evaluate[0]
    if evaluate == CUES and eval_images is None:
        raise InputError("no images of cues in conflict", "--eval cue-conflict needs them",
                         "--eval-images FOLDER, or a .parquet with shape and texture")  # fmt: skip
    settings = settings or PruneSettings()
    choice = choose(opened, Selection(
        _several(match), _several(like), _several(units), _several(exclude), regex, within,
        min_score, max_units, threshold, pick_rules(_several(rule), rules), min_confidence,
    ))  # fmt: skip
    report = PruneReport(opened.root, opened.target, choice, settings.kind, notes=choice.notes)
    infos = _layers(opened, choice)
    refuse_whole_layers([(c.layer, c.unit) for c in choice.units], infos, settings.like)
    if dry_run:
        return report
    if out is not None:
        check_place(Path(out), EDIT, overwrite=overwrite)
    timed = Timed(progress or Silent())
    with timed.stage("load target", None):
        target = find_target(opened.settings["target"], model=model, weights=weights,
                             device=pick_device(device))  # fmt: skip
    table = Table(str(evaluate), eval_images, classes) if evaluate in TABLES else None
    if table is not None:
        table.check(target, settings.severities)
    with timed.stage("open images", None):
        asked = Asked(images, adversarial, () if evaluate == CUES else evaluate, classes, limit)
        sets = make_sets(asked, opened, target, settings.seed)
    work = _Work(opened, target, infos, choice, sets, settings, timed)
    report = work.measure(report)
    if table is not None:
        report = replace(report, robustness=work.table(report, table))
    if out is not None:
        report = work.write(report, Path(out), overwrite, command)
    return replace(report, seconds=dict(timed.seconds))


def _several(given: Sequence[str] | str) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _layers(run: Run, choice: Choice) -> dict[str, LayerInfo]:
    """Return the layers of the chosen units, in the order of the forward pass.

    Raises:
        InputError: ``run.json`` does not know one, or its units cannot be edited.
    """
    known = run_places(run)
    absent = [layer for layer in choice.layers if layer not in known]
    if absent:
        raise InputError(f"{run.root} does not say how {absent[0]} is read",
                         f"run.json knows {', '.join(known) or 'no layer'}",
                         "describe the model anew")  # fmt: skip
    for layer in choice.layers:
        refuse_computed(known[layer])
    return {name: info for name, info in known.items() if name in choice.layers}


@dataclass
class _Work:
    """One pruning, from the choice of units to what is written."""

    run: Run
    target: Target
    infos: dict[str, LayerInfo]
    choice: Choice
    sets: Sets
    settings: PruneSettings
    progress: Timed

    @property
    def rig(self) -> Rig:
        """The target with its layers."""
        return Rig(self.target, self.infos, self.settings, self.progress)

    def measure(self, report: PruneReport) -> PruneReport:
        """Choose the number on the validation images, and report it on the test's."""
        notes = [*report.notes, *self.sets.notes]
        notes += [f"{i.name} is inert: nothing of it reaches the output, no edit does anything"
                  for i in self.infos.values() if i.inert]  # fmt: skip
        editor = self._editor()
        with self.rig.tail(self.sets.validation) as tail:
            notes += tail.notes
            curves, order, more = self._curves(self.rig.bench(tail, editor))
            count = int(curves["chosen"].values[0].argmax())
        notes += more
        if count == 0:
            notes.append("0 units: on the validation images no number of them gains anything")
        labelled = self.sets.test.labels is not None
        report = replace(
            report, order=tuple(order), count=count, curves=curves, measure="accuracy" if labelled
            else "agreement with the unedited model on the clean image",
            images={"validation": len(self.sets.validation), "test": len(self.sets.test),
                    "clean": len(self.sets.clean or self.sets.test)},
        )  # fmt: skip
        figures, worst = self._figures(report, editor)
        if worst is None:
            notes.append("no worst group: no class or part has enough labelled test images")
        return replace(report, figures=figures, worst=worst, notes=tuple(notes))

    def _editor(self) -> Editor:
        """Make what edits any unit of the layers; means are the run's where it holds them all."""
        means = {}
        for name, info in self.infos.items() if self.settings.kind == "mean" else ():
            with suppress(InputError, FormatError):
                means[name] = stored_means(self.run, name, range(info.units))
        return make_editor(self.target, self.infos, self.settings.like, self.sets.validation,
                           means, self.rig.step)  # fmt: skip

    def _curves(self, bench: Bench) -> tuple[dict[str, Curve], list[Unit], list[str]]:
        """Measure the chosen units' curve and the controls', on the validation images."""
        chosen = [(c.layer, c.unit) for c in self.choice.units]
        order, notes = self._sorted(bench, chosen, "each unit alone"), []
        most, draws = len(order), self.settings.draws
        with self.progress.stage("screen", None):
            candidates = screen(bench, max(self.settings.screened, FOR_EACH * most))
        total = sum(i.units for i in self.infos.values())
        if len(candidates) < total:
            notes.append(f"all units: of {total}, the {len(candidates)} that a gradient expects to "
                         "help most were ablated one by one")  # fmt: skip
        everything = self._sorted(bench, candidates, "all units alone")[:most]
        randoms, note = random_orders(order, self.infos, draws, self.settings.seed)
        notes += [note] if note else []
        sizes = list(range(most + 1))
        curves = {
            "chosen": bench.curve([order], sizes, "curve"),
            "all": bench.curve([everything], list(range(len(everything) + 1)), "all units"),
            "random": bench.curve(randoms, grid(most), "random units"),
            "reversed": bench.curve([order[::-1]], sizes, "reversed"),
        }
        return curves, order, notes

    def _sorted(self, bench: Bench, units: Sequence[Unit], stage: str) -> list[Unit]:
        """Put units into the order that was asked for; what has no score goes by effect."""
        if self.settings.order == "match" and stage == "each unit alone":
            return list(units)
        by_effect = bench.by_effect(units, stage)
        if self.settings.order != "score":
            return by_effect
        scores = {(r["layer"], r["unit"]): r["score"] for r in self.run.rows}
        if all(scores.get(u) is None for u in units):
            raise InputError("units cannot be ordered by score", "the run has no scores",
                             "--order effect")  # fmt: skip
        lowest = -float("inf")

        def score(unit: Unit) -> float:
            found = scores.get(unit)
            return lowest if found is None else float(found)

        return sorted(by_effect, key=lambda u: -score(u))

    def _figures(
        self, report: PruneReport, editor: Editor
    ) -> tuple[dict[str, Figure], Worst | None]:
        """Report what the number does to the test images."""
        count, curves, test = report.count or 0, report.curves, self.sets.test
        rivals = {
            "all": curves["all"].order[0][:count],
            "all_best": curves["all"].order[0][: int(curves["all"].values[0].argmax())],
            "reversed": report.order[::-1][:count],
        }
        clean = self._clean(report, editor)
        with self.rig.tail(test) as tail:
            bench = self.rig.bench(tail, editor, None if clean is None else clean[0])
            before, after = bench.correct([]), bench.correct(report.gone)
            rows = {name: bench.correct(units)[None] for name, units in rivals.items()}
            with self.progress.stage("random, test", len(curves["random"].order)) as bar:
                drawn = []
                for order in curves["random"].order:
                    drawn.append(bench.correct(order[:count]))
                    bar.advance()
        rows["random"] = np.stack(drawn)
        sampler = Resampler(test.groups, self.settings.seed)
        figures = changes("target", sampler, before, after)
        figures |= {f"over_{name}": sampler.mean(after.astype(float) - row.astype(float))
                    for name, row in rows.items()}  # fmt: skip
        figures |= self._clean_figures(*clean) if clean else {
            name.replace("target", "clean"): f for name, f in figures.items() if "target" in name
        }  # fmt: skip
        return figures, worst_parts(test, sampler, before, after)

    def _clean(
        self, report: PruneReport, editor: Editor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the logits of the clean images before and after; None where there are none."""
        clean = self.sets.clean
        if clean is None:
            return None
        if not report.gone:
            base = self.rig.logits(clean)
            return base, base
        with self.rig.tail(clean) as tail:
            return tail.before, tail.logits(editor.edits(report.gone))

    def _clean_figures(self, base: torch.Tensor, edited: torch.Tensor) -> dict[str, Figure]:
        """Report what the number does to clean images."""
        clean = self.sets.clean
        assert clean is not None
        right = right_classes(replace(clean, clean=None), base, lambda _: base)
        sampler = Resampler(clean.groups, self.settings.seed)
        before, after = base.argmax(1).numpy() == right, edited.argmax(1).numpy() == right
        return changes("clean", sampler, before, after)

    def table(self, report: PruneReport, table: Table) -> Robustness:
        """Measure the model as it is and edited on the same pictures, none of which chose."""
        models = {"unedited": Subject(self.target)}
        if report.gone:
            edits = self._editor().edits(report.gone)
            known = fingerprint(repr(report.gone), asdict(self.settings), self.target.fingerprint)
            models["edited"] = Subject(
                self.target, lambda: ablate(self.target, edits, self.infos), known,
                tuple(self.infos[e.layer] for e in edits),
            )  # fmt: skip
        photos = self.sets.test.clean or self.sets.test
        return table.measure(models, photos, self.settings, self.progress)

    def write(self, report: PruneReport, out: Path, overwrite: bool, command: str) -> PruneReport:
        """Write the edit, its weights where they express it, and the report."""
        gone = report.gone if self.settings.kind != "resample" else ()
        edits, written = self._editor().edits(gone) if gone else [], None
        if edits:
            few = self.sets.test.subset(range(min(CHECKED, len(self.sets.test))))
            batches = [self.target.inputs(v) for v in few.batches(CHECKED)]
            with self.progress.stage("weights", None):
                written = write_weights(self.target, edits, self.infos, batches)
            report = replace(report, edit=out / EDIT_FILE, weights=written.ways)
        else:
            reason = "no unit is removed" if not report.gone else "resampling is not written"
            report = replace(report, weights=(f"nothing is written: {reason}",))
        told = {k: v for k, v in report.to_dict().items() if k in IN_EDIT}
        why = Why(str(self.run.root), _selected(self.choice), self.choice.units, command, told)
        with atomic_path(out, EDIT if overwrite else None) as folder:
            folder.mkdir()
            if written is not None:
                fill_edit(folder, self.target, edits, self.infos, why, written)
            write_json(folder / "prune.json", FORMAT, VERSION, {
                **report.to_dict(), "command": command, "seconds": dict(self.progress.seconds)
            })  # fmt: skip
        return report


def _selected(choice: Choice) -> Mapping[str, Any]:
    return {k: v for k, v in asdict(choice.selection).items() if v not in ((), None, False)}
