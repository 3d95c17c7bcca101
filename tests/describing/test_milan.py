"""MILAN's own describer: its search against every text there is, its folder, what it reads."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import milanx
from milanx.describing.describer import Describer
from milanx.describing.folder import describer_root
from milanx.describing.milan.describer import Milan
from milanx.describing.milan.folder import write_milan
from milanx.describing.milan.network import AttentionDecoder, LanguageModel, MilanSpec, Seen
from milanx.describing.milan.search import MilanSearch, beam_search, ranked
from milanx.describing.milan.words import BEGIN, END, SPECIAL, UNKNOWN, Vocabulary, padded
from milanx.errors import FormatError, InputError
from milanx.exemplars.planted import plant
from milanx.features.encoder import read_width
from milanx.features.evidence import Evidence
from milanx.files.digests import FILES
from milanx.report.check import check, seal
from tests.cli.commands import run

WORDS = ("dog", "or", "sky")
SPEC = MilanSpec(features=6, read=5, words=SPECIAL + len(WORDS), embedding=8, hidden=12,
                 attention=7, longest=4)  # fmt: skip


def networks(seed: int = 0, spec: MilanSpec = SPEC) -> tuple[AttentionDecoder, LanguageModel]:
    """Networks whose weights are large enough that every step matters."""
    torch.manual_seed(seed)
    made = AttentionDecoder(spec).eval(), LanguageModel(spec).eval()
    for network in made:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    torch.nn.init.normal_(made[0].axes)
    return made


def evidence(units: int, k: int = 5, seed: int = 0) -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(units, k, generator=generator) < 0.7
    valid[:, 0] = True
    none = torch.zeros(units, 0, 3)
    return Evidence(torch.randn(units, k, 2, 6, generator=generator), torch.zeros(units, k, 2, 3),
                    valid, torch.zeros(units, 0, 6), none, valid[:, :0])  # fmt: skip


def every_text(longest: int, words: int) -> list[tuple[int, ...]]:
    """All texts of at least one word that fit with their end token."""
    return [text for n in range(1, longest)
            for text in itertools.product(range(SPECIAL, SPECIAL + words), repeat=n)]  # fmt: skip


@torch.inference_mode()
def log_p(decoder: AttentionDecoder, seen: Seen, text: tuple[int, ...]) -> torch.Tensor:
    """log p(d|E) of a text for each unit, word by word with plain calls: [u]."""
    state, before, total = decoder.start(seen), BEGIN, torch.zeros(len(seen))
    for token in (*text, END):
        tokens = torch.full((len(seen), 1), before)
        state, _ = decoder.step(seen, state, tokens)
        total += decoder.log_p(state)[:, 0, token]
        before = token
    return total


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_every_text_in_order(seed: int) -> None:
    decoder, _ = networks(seed)
    seen = decoder.look(evidence(3, seed=seed))
    texts = every_text(SPEC.longest, len(WORDS))
    table = torch.stack([log_p(decoder, seen, text) for text in texts], 1)
    found = beam_search(decoder, seen, len(texts))
    for unit, row in enumerate(found):
        order = table[unit].argsort(descending=True).tolist()
        assert [text for text, _ in row] == [texts[i] for i in order]
        assert [p for _, p in row] == pytest.approx(table[unit][order].tolist(), abs=1e-5)


def plain_beam(decoder: AttentionDecoder, seen: Seen, unit: int, size: int) -> list[Any]:
    """A beam over one unit, with whole texts read anew at each step."""
    live: list[tuple[int, ...]] = [()]
    done: dict[tuple[int, ...], float] = {}
    for _ in range(SPEC.longest - 1):
        longer = [(*text, word) for text in live for word in range(SPECIAL, SPEC.words)]
        done |= {text: float(log_p(decoder, seen, text)[unit]) for text in longer}
        scores = {}
        for text in longer:
            ids, _ = padded([text])
            wide = ids.expand(len(seen), -1)
            own = decoder.read_texts(seen, wide)[0][unit, :-1]
            scores[text] = float(own.sum())
        live = sorted(scores, key=lambda text: -scores[text])[:size]
        done = {text: p for text, p in done.items() if text in live or len(text) < len(live[0])}
    return sorted(done.items(), key=lambda item: -item[1])[:size]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_narrow_beam_is_the_plain_one(size: int) -> None:
    decoder, _ = networks(7)
    seen = decoder.look(evidence(4, seed=1))
    with torch.inference_mode():
        for unit, row in enumerate(beam_search(decoder, seen, size)):
            plain = plain_beam(decoder, seen, unit, size)
            assert [text for text, _ in row] == [text for text, _ in plain]
            assert [p for _, p in row] == pytest.approx([p for _, p in plain], abs=1e-5)


@torch.inference_mode()
def test_probabilities_of_all_texts_sum_to_one() -> None:
    decoder, prior = networks(2)
    seen = decoder.look(evidence(2))
    symbols = [s for s in range(SPEC.words) if s != END]
    ends, unfinished = torch.zeros(2), torch.zeros(2)
    alone, rest = 0.0, 0.0
    for n in range(4):
        for text in itertools.product(symbols, repeat=n):
            ids, mask = padded([text])
            own = decoder.read_texts(seen, ids.expand(2, -1))[0]
            ends += own.sum(1).exp()
            alone += math.exp(float(prior.score(ids, mask)))
            if n == 3:
                unfinished += own[:, :-1].sum(1).exp() - own.sum(1).exp()
                begun = float(prior.score(ids, mask & (torch.arange(4) < 3)))
                rest += math.exp(begun) - math.exp(float(prior.score(ids, mask)))
    assert (ends + unfinished).tolist() == pytest.approx([1, 1], abs=1e-4)
    assert alone + rest == pytest.approx(1, abs=1e-4)


def test_texts_are_ranked_by_weighted_pmi() -> None:
    decoder, prior = networks(5)
    vocabulary = Vocabulary(WORDS)
    found = beam_search(decoder, decoder.look(evidence(3)), 30)
    made = ranked(found, prior, vocabulary, MilanSearch(lam=0.7, candidates=6))
    for texts, candidates in zip(found, made, strict=True):
        pmi = {}
        for text, p in texts:
            with torch.inference_mode():
                pmi[vocabulary.decode(text)] = p - 0.7 * float(prior.score(*padded([text])))
        assert [c.text for c in candidates] == sorted(pmi, key=lambda t: -pmi[t])[:6]
        for c in candidates:
            assert c.rank == c.pmi == c.terms[0].added == pytest.approx(pmi[c.text], abs=1e-4)
            assert c.log_p_given_exemplars is not None and c.log_p_prior is not None


def test_nobody_is_called_by_a_colour_where_anything_else_was_found() -> None:
    vocabulary, (_, prior) = Vocabulary(("black", "man", "sky")), networks(5)
    black, man, sky = (SPECIAL + i for i in range(3))
    both = [((black, man), -1.0), ((sky,), -2.0)]
    made = ranked([both, both[:1]], prior, vocabulary, MilanSearch())
    assert [[c.text for c in row] for row in made] == [["sky"], ["black man"]]


def test_a_text_depends_on_its_own_exemplars_alone() -> None:
    decoder, _ = networks(3)
    many = evidence(6)
    whole = beam_search(decoder, decoder.look(many), 5)
    for unit in range(6):
        (alone,) = beam_search(decoder, decoder.look(many.rows(slice(unit, unit + 1))), 5)
        assert [t for t, _ in alone] == [t for t, _ in whole[unit]]
        assert [p for _, p in alone] == pytest.approx([p for _, p in whole[unit]], abs=1e-5)
    other = replace(many, features=torch.where(many.valid[..., None, None], many.features, 9.0))
    other.features[:, :, 1] = 0  # whole views are not read
    turned = torch.tensor([4, 2, 0, 1, 3])
    other = replace(other, features=other.features[:, turned], valid=other.valid[:, turned])
    for a, b in zip(beam_search(decoder, decoder.look(other), 5), whole, strict=True):
        assert [t for t, _ in a] == [t for t, _ in b]
        assert [p for _, p in a] == pytest.approx([p for _, p in b], abs=1e-5)


def test_loss_and_penalty_are_those_of_plain_loops() -> None:
    decoder, _ = networks(4)
    sets, vocabulary = evidence(3), Vocabulary(WORDS)
    ids, mask = vocabulary.encode(["dog or sky", "Sky!", "cat"], 4)
    assert ids.tolist()[1:] == [[SPECIAL + 2, END, END, END], [UNKNOWN, END, END, END]]
    assert mask.sum(1).tolist() == [4, 2, 2]
    plain, tokens = decoder(sets, ids, mask)
    seen, expected, penalty, shown = decoder.look(sets), 0.0, 0.0, 0
    with torch.no_grad():
        for unit in range(3):
            state, before = decoder.start(seen), BEGIN
            got = torch.zeros(5)
            for token in ids[unit, : int(mask[unit].sum())].tolist():
                state, attention = decoder.step(seen, state, torch.full((3, 1), before))
                expected -= float(decoder.log_p(state)[unit, 0, token])
                got += attention[unit, 0]
                before = token
                assert float(attention[unit, 0].sum()) == pytest.approx(1, abs=1e-5)
                assert not attention[unit, 0][~sets.valid[unit]].any()
            penalty += float((1 - got[sets.valid[unit]]).square().sum())
            shown += int(sets.valid[unit].sum())
    assert plain.item() == pytest.approx(expected, rel=1e-5) and int(tokens) == 8
    with_penalty, _ = decoder(sets, ids, mask, 0.5)
    assert (with_penalty - plain).item() == pytest.approx(0.5 * 8 * penalty / shown, rel=1e-4)


def test_words_and_texts() -> None:
    vocabulary = Vocabulary.of(["Dogs, or a sky", "a dog"])
    assert vocabulary.words == ("a", "dog", "dogs", "or", "sky") and len(vocabulary) == 8
    ids, mask = vocabulary.encode(["a dog or a sky or a dog"], 4)
    assert vocabulary.decode(ids[0, :3].tolist()) == "a dog or" and mask.all()
    assert ids[0, 3] == END


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundled describer's encoder and networks that know nothing."""
    root = tmp_path_factory.mktemp("milan")
    bundled = describer_root("builtin")
    encoder = json.loads((bundled / "describer.json").read_text())["encoder"]
    width = read_width(Describer.load().encoder)
    spec = replace(SPEC, features=width)
    decoder, prior = networks(0, spec)
    torch.nn.init.normal_(decoder.axes, std=0.01)
    save_file(load_file(bundled / "encoder.safetensors"), root / "encoder.safetensors")
    save_file(decoder.state_dict(), root / "decoder.safetensors")
    save_file(prior.state_dict(), root / "prior.safetensors")
    content = {"name": "small", "encoder": encoder, "network": asdict(spec),
               "search": asdict(MilanSearch(beam=4, candidates=3)), "training": {}}  # fmt: skip
    write_milan(root, content, WORDS)
    return root


def store(out: Path) -> Any:
    rng = np.random.default_rng(0)
    views = [(i, rng.integers(0, 256, (224, 224, 3), np.uint8)) for i in range(8)]
    images = [rng.choice(8, 4, replace=False) for _ in range(5)]
    maps = [rng.random((4, 7, 7)).astype(np.float32) for _ in range(5)]
    table = [{"index": i, "split": "exemplars", "source": "s", "group": None} for i in range(8)]
    return plant(out, images, maps, views, table,
                 activations=rng.random((8, 5)).astype(np.float32))  # fmt: skip


def test_a_folder_describes(folder: Path, tmp_path: Path) -> None:
    milan, exemplars = Milan.load(folder), store(tmp_path / "s")
    found = milan.describe(exemplars)
    assert len(found) == 5 and all(d.status == "described" and d.text for d in found)
    assert all(len(d.candidates) == 3 for d in found)
    assert Milan.load(folder).fingerprint == milan.fingerprint
    layer = exemplars.layers[0]
    for unit in (0, 3):
        (alone,) = milan.describe(exemplars, units={layer: [(unit, "+")]})
        assert alone.text == found[unit].text
    wide = milan.searching(beam=30, lam=0.0)
    assert [d.text for d in wide.describe(exemplars)] == [d.likeliest for d in wide.describe(
        exemplars, settings=MilanSearch(30, 0.0, 30))]  # fmt: skip
    with pytest.raises(InputError, match="no strategy"):
        milan.searching(strategy="diverse")


def damaged(folder: Path, tmp_path: Path, change: Any) -> Path:
    made = tmp_path / "damaged"
    made.mkdir()
    for path in folder.iterdir():
        (made / path.name).write_bytes(path.read_bytes())
    change(made)
    return made


def rewritten(root: Path, **values: Any) -> None:
    """Change what the index says, and tell the files as they lie now."""
    content = json.loads((root / "describer.json").read_text())
    rest = {k: v for k, v in content.items() if k not in (FILES, "seal", "format", "version")}
    words = json.loads((root / "words.json").read_text())["words"]
    write_milan(root, {**rest, **values}, tuple(values.get("words", words)))


def test_a_damaged_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    def cut(root: Path) -> None:
        path = root / "decoder.safetensors"
        path.write_bytes(path.read_bytes()[:-8])

    def flipped(root: Path) -> None:
        path = root / "prior.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))

    def gone(root: Path) -> None:
        (root / "prior.safetensors").unlink()

    def nan(root: Path) -> None:
        state = load_file(root / "decoder.safetensors")
        state["out.1.bias"][0] = math.nan
        save_file(state, root / "decoder.safetensors")
        rewritten(root)

    network = asdict(MilanSpec(1497, 5, 6))
    cases: list[tuple[Any, str]] = [
        (cut, "damaged"), (flipped, "damaged"), (gone, "does not exist"), (nan, "no numbers"),
        (lambda root: (root / "describer.json").write_text("{}"), "describer.json"),
        (lambda root: rewritten(root, network={**network, "hidden": 10**6}), "does not fit"),
        (lambda root: rewritten(root, network={**network, "odd": 1}), "does not know"),
        (lambda root: rewritten(root, network={**network, "layers": 10**9}), "damaged"),
        (lambda root: rewritten(root, words=["dog"]), "damaged"),
    ]  # fmt: skip
    for number, (change, said) in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(FormatError) as caught:
            Milan.load(damaged(folder, tmp_path / str(number), change))
        assert said in f"{caught.value.what} {caught.value.why}", number


def test_every_file_of_a_folder_is_checked(folder: Path, tmp_path: Path) -> None:
    def flipped(root: Path) -> None:
        content = bytearray((root / "decoder.safetensors").read_bytes())
        content[-1] ^= 1
        (root / "decoder.safetensors").write_bytes(bytes(content))

    assert check(folder).files == 4 and not check(folder).faults
    made = damaged(folder, tmp_path, flipped)
    assert [fault.what for fault in check(made).faults] == [
        f"{made / 'decoder.safetensors'} is damaged"
    ]
    seal(made)
    assert not check(made).faults and Milan.load(made).name == "small"


def test_what_the_command_cannot_do_is_said(folder: Path, tmp_path: Path) -> None:
    def said(*more: object) -> str:
        code, out, error = run("describe", "--method", "milan", "--out", tmp_path / "run", *more)
        assert code == 2 and not (tmp_path / "run").exists()
        return out + error

    assert "which MILAN describes?" in said()
    assert "no strategy" in said("--describer", folder, "--strategy", "diverse")
    assert "beam" in said("--describer", folder, "--beam", 0)


def test_a_describer_is_no_milan(folder: Path) -> None:
    with pytest.raises(FormatError):
        Milan.load(describer_root("builtin"))
    with pytest.raises(InputError, match="which MILAN"):
        Milan.load("builtin")
    with pytest.raises(FormatError):
        Describer.load(folder)
    with pytest.raises(InputError, match="cannot use"):
        milanx.describe(describer=Milan.load(folder), method="concepts", limit=20)
