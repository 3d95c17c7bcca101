"""A describer's folder of this version and the one before, and a describer made of parts."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import milanx
from milanx.describing.describer import Describer
from milanx.describing.parts import About, Lexicon
from milanx.describing.ranker import TERMS, Ranker
from milanx.describing.set_encoder import SetEncoder
from milanx.describing.settings import SearchSettings
from milanx.errors import FormatError, InputError
from milanx.language.gpt2 import build_gpt2, train_tokenizer
from milanx.language.prior import Prior

# What version 2 said of the search; of the set encoder it said all but NEW.
SAID = ("beam", "lam", "max_tokens", "agreement", "response", "retrieved", "composed", "joined",
        "without")  # fmt: skip
NEW = ("hubness", "frequency", "joint_weight", "furthest")


@pytest.fixture(scope="module")
def run(planted: milanx.Run) -> milanx.Run:
    """Planted pixel units, described by the bundled describer."""
    return planted


def write_older(folder: Path, describer: Describer) -> Path:
    """Copy a describer's folder as version 2."""
    shutil.copytree(describer.root, folder)
    content = json.loads((folder / "describer.json").read_text())
    del content["files"], content["seal"]
    for name in NEW:
        del content["set_encoder"][name]
    content |= {"version": 2, "search": {name: content["search"][name] for name in SAID}}
    (folder / "describer.json").write_text(json.dumps(content))
    return folder


@pytest.mark.usefixtures("views_encoded")
def test_a_describer_of_version_2_has_the_defaults(
    run: milanx.Run, describer: milanx.Describer, tmp_path: Path
) -> None:
    old = milanx.Describer.load(write_older(tmp_path / "old", describer))
    new, defaults = asdict(describer.settings), asdict(SearchSettings())
    known = json.loads((old.root / "describer.json").read_text())["search"]
    assert asdict(old.settings) == {name: new[name] if name in known else defaults[name]
                                    for name in new}  # fmt: skip
    assert old.set_encoder.spec == describer.set_encoder.spec
    assert old.fingerprint != describer.fingerprint  # its folder is another
    units = {"units": [(u, "+") for u in (0, 7)]}
    same = describer.describe(run.store, units=units, settings=old.settings)
    for made, other in zip(old.describe(run.store, units=units), same, strict=True):
        assert made.text == other.text
        assert made.rank == pytest.approx(other.rank, abs=1e-3)


def test_every_number_of_the_ranking_is_written_and_changes_the_fingerprint(
    describer: milanx.Describer, tmp_path: Path
) -> None:
    content = json.loads((describer.root / "describer.json").read_text())
    later = asdict(describer.settings).keys() - content["search"].keys()
    assert content["search"].keys() <= asdict(describer.settings).keys()
    assert not any(getattr(describer.settings, name) for name in later)  # what is not told is off
    assert content["set_encoder"].keys() == asdict(describer.set_encoder.spec).keys()
    shutil.copytree(describer.root, tmp_path / "other")
    content["search"]["dim"] = 0.2
    (tmp_path / "other" / "describer.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="its seal is another's"):
        milanx.Describer.load(tmp_path / "other")
    del content["seal"]  # changed on purpose
    (tmp_path / "other" / "describer.json").write_text(json.dumps(content))
    other = milanx.Describer.load(tmp_path / "other")
    assert other.settings.dim == 0.2 and other.fingerprint != describer.fingerprint
    content["search"]["humour"] = 1.0
    (tmp_path / "other" / "describer.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="no humour among"):
        milanx.Describer.load(tmp_path / "other")
    del content["search"]["humour"], content["set_encoder"]["joint"]
    (tmp_path / "other" / "describer.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="damaged"):
        milanx.Describer.load(tmp_path / "other")
    content["version"] = 99
    (tmp_path / "other" / "describer.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="reads version 3 and 2"):
        milanx.Describer.load(tmp_path / "other")


@pytest.mark.usefixtures("views_encoded")
def test_a_describer_is_made_of_parts_without_a_folder(
    run: milanx.Run, describer: milanx.Describer
) -> None:
    """Untrained language models and no vocabulary beside the bundled encoder: it describes."""
    tokenizer = train_tokenizer(["red dogs", "blue sky over water", "striped cats"] * 4, 300)
    torch.manual_seed(0)
    decoder, unconditioned = (build_gpt2(len(tokenizer), 1, 32, 2).eval() for _ in range(2))
    spec = replace(describer.set_encoder.spec, width=32, layers=1, vocabulary=0)
    parts = (describer.encoder, SetEncoder(spec).eval(), decoder, Prior(unconditioned, tokenizer))
    how = SearchSettings(beam=4, max_tokens=5, agreement=1.0, response=10.0)
    made = Describer(*parts, Ranker(TERMS[:3]), about=About("mine", how))
    units = {"units": [(u, "+") for u in range(4)]}
    found = made.describe(run.store, units=units)
    assert [d.unit for d in found] == [0, 1, 2, 3] and any(d.text for d in found)
    for d in found:
        assert all([t.name for t in c.terms] == ["pmi", "agreement", "response"]
                   for c in d.candidates)  # fmt: skip
        assert d.candidates == tuple(sorted(d.candidates, key=lambda c: -c.rank))
    assert made.name == "mine" and made.root is None
    again = Describer(*parts, about=About("mine", replace(how, dim=0.3)))
    assert len({made.fingerprint, again.fingerprint, describer.fingerprint}) == 3
    with pytest.raises(ValueError, match="3 phrases"):
        Describer(*parts, lexicon=Lexicon(vocabulary=("a", "b", "c")))


def test_unknown_describers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither 'builtin' nor a folder"):
        milanx.Describer.load("no-such-describer")
    with pytest.raises(FormatError, match="does not exist"):
        milanx.Describer.load(tmp_path)
