"""`milanx evaluate`: measure descriptions by a protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c


@c.explained
def evaluate(
    run: Annotated[
        Path, typer.Argument(help="Folder or OWNER/NAME (p1, p3); where to write (p2).")
    ],
    protocol: Annotated[
        str, typer.Option(help="p1, p2, p3, p5, kin, or several, with commas.")
    ] = "p1",
    check_metrics: Annotated[
        bool,
        typer.Option("--check-metrics", help="p5: do scores fall when labels are made worse?"),
    ] = False,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images",
            help="For p2: labelled or segmented photos. For p3 and p5: the "
            "run's own images, where they lie now.",
        ),
    ] = None,
    describer: Annotated[str, typer.Option(help="For p2: builtin or another.")] = "builtin",
    units: Annotated[int, typer.Option(help="Planted units, for p2.", min=5)] = 200,
    kinds: Annotated[
        str,
        typer.Option(help="For p2: single meanings of these kinds alone, as part,material."),
    ] = "",
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            help="For p2: the same units under another setting of the search, as response=0; "
            "repeatable.",
        ),
    ] = None,
    simulator: Annotated[
        str, typer.Option(help="For p3, p5: builtin, a folder, or an open_clip model (NAME/TAG).")
    ] = "builtin",
    against: Annotated[
        list[Path] | None,
        typer.Option(help="For p1 and p3: another run of the same units, for a row beside."),
    ] = None,
    unseen: Annotated[
        list[str] | None,
        typer.Option(
            "--held-out-all",
            help="For p2, where the describer's "
            "folder does not tell its photos: a file that no training read.",
        ),
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="For p3: texts, one a line, for the upper row.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="One table of methods: 'all', or some; repeatable."),
    ] = None,
    milan: Annotated[
        str, typer.Option(help="For --method: the folder of milanx train milan.")
    ] = "",
    device: c.Device = "auto",
    dtype: Annotated[
        str, typer.Option(help="For p3, p5, of the simulator: float32, bfloat16 or float16.")
    ] = "float32",
    seed: c.Seed = 0,
    overwrite: c.Overwrite = False,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Measure how good descriptions are, with the rows that make a figure readable.

    p1: do the descriptions of a classifier's logits name their classes? Needs a run whose probe
    images carry labels.
    p2: planted units whose meaning is known, on photos with labels or regions that the describer
    was not trained on, as its folder tells.
    kin: planted units of classes that no description named: is close kin named?
    p3: do the texts foretell what the units do on images that were kept aside?
    p5: do our score and others fall when labels of a known concept go missing, or wrong ones come?
    With --method (p1, p2, p3): a row a method on the same exemplars, each with its own shuffled and
    constant texts; netdissect and compexp as runs of theirs, --against RUN.
    """
    c.starting(quiet, as_json, f"milanx evaluate {run}")
    from milanx.evaluate.protocols import Asked, run_protocols

    names = ("p5",) if check_metrics else tuple(protocol.split(","))
    asked = Asked(
        run, names, images=tuple(images or ()), describer=describer,
        count=units, kinds=tuple(filter(None, kinds.split(","))), vary=tuple(vary or ()),
        simulator=simulator,
        against=tuple(against or ()),
        unseen=tuple(unseen or ()), vocabulary=vocabulary, seed=seed, overwrite=overwrite,
        methods=tuple(method or ()), milan=milan, device=device, dtype=dtype,
    )  # fmt: skip
    reports = run_protocols(asked, c.reporter(quiet, as_json))
    if as_json:
        c.print_json(reports)
        return
    from milanx.report.metrics import print_metrics
    from milanx.report.terminal import print_report

    for name, report in zip(names, reports, strict=True):
        (print_metrics if name == "p5" else print_report)(report)
