"""The table of a run's units, ``units.parquet``: columns, rows, tables of earlier versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.files import reading, write_table

if TYPE_CHECKING:
    import pyarrow as pa

    from milanx.describing.candidates import Candidate, Description
    from milanx.describing.confidence import Judge
    from milanx.scoring.column import Score
    from milanx.scoring.senses import Sense

TABLE = "units.parquet"
UNITS = "milanx-units"
UNITS_VERSION = 4  # 2: rank and its terms; 3: the score's interval, and why there is none; 4: signs
OLDER_UNITS = (1, 2, 3)
UnitKey = tuple[str, int, str]  # layer, unit, sign
UNCLEAR = "unclear"  # status of a unit whose text is a best guess
STATUSES = ("described", UNCLEAR, "dead")
NEVER_NULL = ("layer", "unit", "sign", "status", "candidates", "images", "activations")
FIGURES = ("pmi", "log_p_given_exemplars", "log_p_prior", "agreement", "response", "rank")
SIGNS = ("alike", "shown")  # what `milanx.describing.signs` reads
SENSES = "senses"  # a column that is written where some unit has several


def units_schema(senses: bool = True) -> pa.Schema:
    """Return the columns of ``units.parquet``, a row a unit and sign, with ``senses`` or without.

    Where no unit has several the column is not written.
    """
    import pyarrow as pa

    figures = [(name, pa.float32()) for name in FIGURES]
    term = pa.struct([("name", pa.string()), ("value", pa.float32()), ("added", pa.float32())])
    candidate = pa.struct([("text", pa.string()), *figures, ("terms", pa.list_(term))])
    numbers = pa.list_(pa.float32())
    sense = pa.struct([("text", pa.string()), ("share", pa.float32()), ("score", pa.float32()),
                       ("score_interval", pa.list_(pa.float32(), 2)),
                       ("exemplars", pa.list_(pa.int32())), ("bands", numbers)])  # fmt: skip
    return pa.schema(
        [
            ("layer", pa.string()),
            ("unit", pa.int32()),
            ("sign", pa.string()),
            ("status", pa.string()),
            ("description", pa.string()),
            ("score", pa.float32()),
            ("score_interval", pa.list_(pa.float32(), 2)),
            ("score_reason", pa.string()),
            ("confidence", pa.float32()),
            ("confidence_reason", pa.string()),
            *((name, pa.float32()) for name in SIGNS),
            *figures,
            ("candidates", pa.list_(candidate)),
            ("images", pa.list_(pa.int64())),
            ("activations", pa.list_(pa.float32())),
            *([(SENSES, pa.list_(sense))] if senses else []),
        ]
    )


def write_rows(
    root: Path,
    rows: list[dict[str, Any]],
    scores: Mapping[UnitKey, Score] | None,
    judge: Judge | None,
) -> None:
    """Write ``units.parquet`` of rows.

    Args:
        root: the run folder.
        rows: as `row_of` makes them; scores and confidences are filled in.
        scores: of each unit; those that rows have stay when None.
        judge: says how sure each is, if anything does.
    """
    import pyarrow as pa

    for row in rows if scores is not None else ():
        assert scores is not None
        score = scores[row["layer"], row["unit"], row["sign"]]
        row |= {"score": score.value, "score_reason": score.reason or None,
                "score_interval": list(score.interval) if score.interval else None}  # fmt: skip
    if judge is not None:
        judge.judge(rows)
    schema = units_schema(senses=any(row.get(SENSES) for row in rows))
    table = pa.Table.from_pylist(rows, schema=schema)
    write_table(root / TABLE, table, UNITS, UNITS_VERSION)


def senses_of(senses: Sequence[Sense], kept: Any) -> list[dict[str, Any]] | None:
    """Return a unit's senses as the table holds them; None where it has one.

    Args:
        senses: of the unit.
        kept: which of the store's places hold an exemplar, bool [k]; the table has these alone.
    """
    place = {old: new for new, old in enumerate(kept.nonzero()[0].tolist())}
    return [{**asdict(s), "exemplars": [place[i] for i in s.exemplars]} for s in senses] or None


def row_of(description: Description, images: Any, activations: Any) -> dict[str, Any]:
    """Return one row of the table; ``images`` and ``activations`` are those exemplars' [k]."""
    figures = {name: getattr(description, name) for name in FIGURES}
    candidates = [
        {"text": c.text, **{name: getattr(c, name) for name in FIGURES},
         "terms": [asdict(term) for term in c.terms]}
        for c in description.candidates
    ]  # fmt: skip
    return {
        "layer": description.layer,
        "unit": description.unit,
        "sign": description.sign,
        "status": description.status,
        "description": description.text,
        **figures,
        **{name: getattr(description, name) for name in SIGNS},
        "candidates": candidates,
        "images": images.tolist(),
        "activations": activations.tolist(),
    }


def current(path: Path, table: pa.Table) -> pa.Table:
    """Bring a table of an earlier version to the current columns; what it lacks is null.

    Raises:
        FormatError: columns that every row must have are missing, or hold something else.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    schema = units_schema()
    with reading(path):
        if SENSES not in table.column_names:
            field = schema.field(SENSES)
            table = table.append_column(field, pa.nulls(len(table), field.type))
        if not table.schema.equals(schema):
            table = pa.Table.from_pylist(table.to_pylist(), schema=schema)
        gaps = [name for name in NEVER_NULL if table.column(name).null_count]
        texts = pc.list_flatten(table.column("candidates")).combine_chunks().field("text")
        if gaps or texts.null_count:
            raise ValueError(f"gaps in {', '.join(gaps) or 'candidates'}")
        for name, known in (("status", STATUSES), ("sign", ("+", "-"))):
            if strange := set(table.column(name).to_pylist()) - set(known):
                raise ValueError(f"{name} {sorted(strange)[0]!r}")
    return table


def candidates_of(row: Mapping[str, Any]) -> tuple[Candidate, ...]:
    """Return the candidates of a row of the table, best first."""
    from milanx.describing.candidates import Candidate

    return tuple(Candidate.from_row(candidate) for candidate in row["candidates"] or ())


def sureness(row: Mapping[str, Any]) -> float | None:
    """Return what a row is sorted by when the surest are asked for: confidence, else its score."""
    known = row["confidence"] if row["confidence"] is not None else row["score"]
    return None if known is None else float(known)


def likeliest(row: Mapping[str, Any]) -> str:
    """Return a row's text of the highest log p(d|E); the description where none has one."""
    from milanx.describing import candidates

    return candidates.likeliest(candidates_of(row), row["description"] or "")
