"""Where features and language meet: p(d|E), critic, response, the ranking, the describer.

In come exemplar sets; out go `Description`s. ``set_encoder`` makes prefixes, ``critic`` says how
far texts and sets agree, ``response`` how well texts foretell activations, ``where`` how well they
cover what masks do, ``units`` asks these of ``texts``; ``search`` finds texts, ``ranker`` ranks
them as ``candidates`` by ``settings``;
``halves`` asks whether both halves of a joined text are seen; ``cuts`` divides sets of points, and
``senses`` a unit's exemplars, each part with a text; ``signs`` are what exemplars say of a text
then, ``confidence`` how sure that makes it;
``describer`` is all of it as one object, made of ``parts``, which ``folder`` reads and
``checks`` looks at; ``trained`` is what its folder tells of its training; ``milan`` is a baseline,
``concepts`` and ``dissect`` do without language models, ``ways`` chooses, ``parcel`` packs a
describer for the Hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from milanx import import_public

if TYPE_CHECKING:
    from milanx.describing.candidates import Candidate, Description
    from milanx.describing.describer import Describer
    from milanx.describing.settings import SearchSettings

_PLACES = {
    "Candidate": "candidates",
    "Describer": "describer",
    "Description": "candidates",
    "SearchSettings": "settings",
}

__all__ = [
    "Candidate",
    "Describer",
    "Description",
    "SearchSettings",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return import_public(__name__, _PLACES, name)


def __dir__() -> list[str]:
    return sorted(__all__)
