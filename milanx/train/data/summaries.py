"""What people wrote of units in MILANNOTATIONS: ``annotations.csv``, read and cleaned."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path

from milanx.errors import InputError

_MEDIUM = r"(?:image|picture|photo|photograph|pic|shot|view)s?"
_BOILERPLATE = [
    re.compile(pattern)
    for pattern in (
        r"^(?:(?:all|most|many|some|both|each) )?(?:of )?"
        r"(?:(?:the|these|this|those|a|an|here are) )?"
        rf"(?:different |various |several |random |similar )?{_MEDIUM}"
        r"(?: (?:all|mostly|mainly|that|which|here|seem to|appear to))* "
        r"(?:of|showing|shows?|containing|contains?|includ(?:e|es|ing)|depict(?:s|ing)?|"
        r"featur(?:e|es|ing)|display(?:s|ing)?|focus(?:es|ing)? on|have|has|with|"
        r"are of|is of|are|is) ",
        r"^(?:there (?:are|is)|it (?:is|shows)|i (?:can )?see|you can see|we (?:can )?see|"
        r"(?:this|that) (?:is|shows)|(?:these|they) (?:are|show)|showing|shows?|depicts|contains) ",
        r"^(?:(?:all|many|mostly|a|the|some) )?(?:different |various )?"
        r"(?:kind|type|sort|variet|form|example)(?:s|y|ies)? of ",
        r" (?:in|on|of|from) (?:(?:the|these|each|all|most|all the|all of the|a) )?"
        r"(?:images?|pictures?|photos?|photographs?|pics?)$",
    )
]


def clean_description(text: str) -> str:
    """Lower case, single spaces, no full stop, and no words that only say "picture of".

    Text that consists of nothing else is kept. Spelling is left as it is.
    """
    text = re.sub(r"\s+", " ", text.lower()).strip(" .,;:\"'")
    while True:
        shorter = text
        for pattern in _BOILERPLATE:
            shorter = pattern.sub("", shorter).strip(" .,;:")
        if not shorter or shorter == text:
            return text
        text = shorter


def read_annotations(path: Path) -> dict[tuple[str, int], list[str]]:
    """Read (layer, unit) -> cleaned texts, in the order of the file; empty ones left out.

    Raises:
        InputError: a file that is missing, lacks a column, or cannot be read.
    """
    if not path.is_file():
        raise InputError(
            f"{path} is missing",
            "a network of MILANNOTATIONS is a folder {arch}/{dataset} with annotations.csv",
            "give the folder that holds alexnet/, resnet152/, ..., or another split",
        )
    texts: dict[tuple[str, int], list[str]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        lacking = {"layer", "unit", "summary"} - set(reader.fieldnames or ())
        if lacking:
            raise InputError(f"{path} lacks the column {', '.join(sorted(lacking))}",
                             "its columns are layer, unit, summary")  # fmt: skip
        for number, row in enumerate(reader, 2):
            try:
                key = str(row["layer"]), int(row["unit"])
            except (TypeError, ValueError) as error:
                raise InputError(f"{path} cannot be read at line {number}", str(error)) from error
            if text := clean_description(row["summary"] or ""):
                texts[key].append(text)
    return texts
