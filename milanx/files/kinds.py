"""The kinds of folders that milanx writes: what each may hold, and what shows that it is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

EVALUATION = "milanx evaluation"
PAGE, AUDIT_PAGE, EDIT_PAGE = "milanx page", "milanx audit", "milanx edit"


@dataclass(frozen=True)
class Kind:
    """A kind of folder that milanx writes.

    Attributes:
        name: with its article.
        markers: the files of which one, with its format, shows that milanx wrote the folder.
        parts: all files that it may hold, as shell patterns over paths, with their formats where
            they name one.
    """

    name: str
    markers: tuple[str, ...]
    parts: Mapping[str, str | None]

    def part(self, name: str) -> str | None:
        """Return the pattern of ``parts`` that a file's path matches."""
        return next((pattern for pattern in self.parts if fnmatchcase(name, pattern)), None)

    @property
    def folders(self) -> set[str]:
        """Patterns of the folders that parts lie in."""
        return {str(p) for pattern in self.parts for p in PurePosixPath(pattern).parents}

    def has_folder(self, name: str) -> bool:
        """Whether parts lie in a folder of this path."""
        return any(fnmatchcase(name, pattern) for pattern in self.folders)


_EXEMPLARS = {
    "exemplars/index.json": "milanx-exemplars",
    "exemplars/*/index.parquet": "milanx-exemplars",
    "exemplars/*/maps.safetensors": None,
    "exemplars/*/stats.safetensors": None,
    "exemplars/*/max.npy": None,
    "exemplars/*/mean.npy": None,
    "exemplars/*/.tmp??????": None,  # what safetensors writes before it renames
    "views.parquet": "milanx-exemplars",
    "images.parquet": "milanx-exemplars",
}
WORK = Kind(
    "an unfinished pass",
    ("pass.json",),
    {"pass.json": "milanx-pass", "state-*.safetensors": None, ".tmp??????": None, **_EXEMPLARS},
)
RUN = Kind(
    "a run",
    ("run.json", "exemplars/index.json", ".extract/pass.json"),
    {
        "run.json": "milanx-run",
        "units.parquet": "milanx-units",
        "evaluation-*.json": EVALUATION,
        "page/index.html": PAGE,
        "analysis/analysis.json": "milanx-analysis",
        "analysis/kinds.png": None,
        "analysis/importance.png": None,
        "audit/findings.json": "milanx-audit",
        "audit/units.jsonl": None,
        "audit/audit.sarif": None,
        "audit/index.html": AUDIT_PAGE,
        "log.txt": None,
        **_EXEMPLARS,
        **{f".extract/{name}": form for name, form in WORK.parts.items()},
    },
)
DESCRIBER = Kind(
    "a describer",
    ("describer.json",),
    {
        "describer.json": "milanx describer",
        "words.json": "milanx words",
        "confidence.json": "milanx confidence",
        "README.md": None,
        "set_encoder.safetensors": None,
        "encoder.safetensors": None,
        "probe.safetensors": None,
        "trained.parquet": "milanx trained photos",
        "decoder/adapter_*": None,
        "prior/adapter_*": None,
        "base/config.json": None,
        "base/generation_config.json": None,
        "base/model*.safetensors": None,
        "base/model.safetensors.index.json": None,
        "tokenizer/*token*.json": None,
        "tokenizer/vocab.json": None,
        "tokenizer/merges.txt": None,
        "tokenizer/chat_template.jinja": None,
    },
)
MILAN = Kind(
    "a MILAN",
    ("describer.json",),
    {
        "describer.json": "milanx milan",
        "words.json": "milanx milan words",
        "README.md": None,
        "encoder.safetensors": None,
        "decoder.safetensors": None,
        "prior.safetensors": None,
        "trained.parquet": "milanx trained photos",
    },
)
SIMULATOR = Kind(
    "a simulator",
    ("simulator.json",),
    {"simulator.json": "milanx simulator", "encoder.safetensors": None},
)
STUDY = Kind(
    "a study",
    ("key/key.json", "key/ratings.json"),
    {
        "key/key.json": "milanx-study-key",
        "key/ratings.json": "milanx-ratings-key",
        "questions-*.json": "milanx-questions",
        "ratings.json": "milanx-ratings",
        "pictures/*.jpg": None,
        "exemplars/*.jpg": None,
    },
)
EDIT = Kind(
    "an edit",
    ("edit.json", "prune.json"),
    {
        "edit.json": "milanx-edit",
        "prune.json": "milanx-prune",
        "model.safetensors": None,
        "original.safetensors": None,
        "restored.safetensors": None,
        "curve.png": None,
        "index.html": EDIT_PAGE,
    },
)
TABLE = Kind("a table", ("units.parquet",), {"units.parquet": "milanx-units", "README.md": None})
EXPORT = Kind(
    "an export",
    ("milanx-export.json",),
    {
        "milanx-export.json": "milanx-export",
        "annotations.csv": None,
        "*/annotations.csv": None,
        **{f"*/{name}": None for name in ("images.npy", "masks.npy", "units.npy", "ids.csv",
                                          "activations.csv", "thresholds.csv")},
        "ActivationComponentVisualizer/*.safetensors": None,
        "metadata.json": None,
        "samples.json": None,
        "data/*.png": None,
    },
)  # fmt: skip
KINDS = (RUN, WORK, DESCRIBER, MILAN, SIMULATOR, STUDY, EDIT, EXPORT)
