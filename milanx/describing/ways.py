"""How exemplars are put into words: by a describer, MILAN's, a list of words, or regions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.errors import InputError, did_you_mean
from milanx.files import fingerprint
from milanx.progress import Reporter

if TYPE_CHECKING:
    from accelerate import PartialState

    from milanx.describing.candidates import Description
    from milanx.describing.confidence import Judge
    from milanx.describing.describer import Describer
    from milanx.describing.milan.describer import Milan
    from milanx.describing.milan.search import MilanSearch
    from milanx.describing.settings import SearchSettings
    from milanx.exemplars.inputs import Inputs
    from milanx.exemplars.store import ExemplarStore

CONCEPT_WAYS = {"concepts": "softwpmi", "nearest": "nearest"}
REGION_WAYS = ("netdissect", "compexp")  # the target runs again over images with regions
MILAN = "milan"
METHODS = ("describer", MILAN, *CONCEPT_WAYS, *REGION_WAYS)


def words_of(method: str, concepts: Path | str | None) -> tuple[str, ...]:
    """The list that a method chooses from; none for the describer's own.

    Raises:
        InputError: no such method, or no such list.
    """
    from milanx.describing.concepts import load_concepts

    if method not in METHODS:
        hint = did_you_mean(method, METHODS)
        raise InputError(f"no method {method!r}", f"there are {', '.join(METHODS)}", hint)
    return tuple(load_concepts(concepts)) if method in CONCEPT_WAYS else ()


def load_describer(method: str, spec: str | Path, device: str) -> Describer | Milan:
    """Load what a method describes with, or whose encoder it uses.

    Raises:
        MilanxError: it is not there, it is damaged, or its weights cannot be had.
    """
    from milanx.describing.describer import Describer
    from milanx.describing.milan.describer import Milan

    return Milan.load(spec, device) if method == MILAN else Describer.load(spec, device)


def check_pair(method: str, describer: Describer | Milan) -> None:
    """Refuse a describer that a method cannot use.

    Raises:
        InputError: it is MILAN's and the method is another, or the reverse.
    """
    from milanx.describing.milan.describer import Milan

    if isinstance(describer, Milan) != (method == MILAN):
        of = "MILAN's" if isinstance(describer, Milan) else "none of MILAN's"
        raise InputError(
            f"--method {method} cannot use the describer {describer.name}", f"it is {of}",
            f"--method {MILAN}" if of == "MILAN's" else "give a folder of milanx train milan",
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Way:
    """How exemplars are put into words.

    Raises:
        InputError: senses that this way does not find.
    """

    describer: Describer | Milan
    search: SearchSettings | MilanSearch
    method: str
    words: tuple[str, ...]
    senses: int = 1

    def __post_init__(self) -> None:
        from milanx.describing.senses import SenseSettings

        SenseSettings(self.senses)  # says what is wrong with it
        if self.senses > 1 and self.method != METHODS[0]:
            raise InputError(f"--method {self.method} finds no senses", "a describer alone does",
                             "--senses 1")  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """What ``run.json`` says of it; another description is made when anything differs."""
        made: dict[str, Any] = {"method": self.method}
        if self.method in REGION_WAYS:  # no describer takes part
            return made | {"name": self.method}
        if self.method in CONCEPT_WAYS:
            made["concepts"] = fingerprint(self.words)
        return made | {
            "name": self.describer.name,
            "fingerprint": self.describer.fingerprint,
            "search": asdict(self.search),
            "held_out_wnids": self.describer.training.get("held_out_wnids", []),
            **({"senses": self.senses} if self.senses > 1 else {}),
        }

    def judge(self) -> Judge:
        """What says how sure a description of this way is, or why nobody can."""
        from milanx.describing.confidence import Judge
        from milanx.describing.milan.describer import Milan

        if self.method != "describer" or isinstance(self.describer, Milan):
            return Judge(reason=f"none was calibrated for --method {self.method}")
        if self.search != self.describer.settings:
            return Judge(reason="it is calibrated for the describer's own settings alone")
        return self.describer.judge()

    def describe(
        self,
        store: ExemplarStore,
        inputs: Inputs,
        progress: Reporter,
        process: PartialState | None = None,
    ) -> list[Description]:
        """Describe every unit of a store; of processes that do so together each encodes a share.

        Args:
            store: the exemplars.
            inputs: what they were made of.
            progress: told about the stages.
            process: this one of several.
        """
        from milanx.describing.concepts import ConceptSettings, describe_concepts
        from milanx.describing.dissect.describe import dissect
        from milanx.describing.milan.describer import Milan
        from milanx.describing.milan.search import as_milan
        from milanx.describing.settings import SearchSettings
        from milanx.features.encoded import encoded_views

        if self.method in REGION_WAYS:
            return dissect(inputs, store, self.method, progress)
        encoder = self.describer.encoder
        with progress.stage("encode", len(store.view_indices())) as bar:
            features = encoded_views(encoder, store, advance=bar.advance, process=process)
        if isinstance(self.describer, Milan):
            return self.describer.describe(
                store, settings=as_milan(self.search), features=features, progress=progress
            )
        if self.method not in CONCEPT_WAYS:
            assert isinstance(self.search, SearchSettings)
            return self.describer.describe(
                store, settings=self.search, features=features, progress=progress
            )
        return describe_concepts(
            store, encoder, self.words, settings=ConceptSettings(CONCEPT_WAYS[self.method]),
            features=features, progress=progress,
        )  # fmt: skip
