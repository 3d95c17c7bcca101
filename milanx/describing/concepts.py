"""Training-free describing: the words of a list that fit a unit best in an image-text space.

Two ways, both over any encoder with views and texts in one space:

- ``softwpmi``: Oikarinen & Weng 2023, "CLIP-Dissect", section 3.2, in the form of the
  authors' code: the images that activate a unit most are a soft set, and a concept is scored by
  the log-probability that the set gives it less its log-probability over all units.
- ``nearest``: the words nearest to the mean of the exemplars under their masks, after a share of
  each word's mean nearness to the layer's units is taken off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from milanx.describing.candidates import Candidate, Description
from milanx.describing.response import stored_activations
from milanx.errors import InputError, did_you_mean
from milanx.language.people import says_colour_of_people
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.exemplars.store import ExemplarStore
    from milanx.features.encoder import Encoder

WAYS = ("softwpmi", "nearest")
SHARE_OF_PROBES = 4  # a unit's soft set is at most this part of the probe images
SMALLEST = 1e-7  # added to a probability before its logarithm, as in the authors' code


@dataclass(frozen=True)
class ConceptSettings:
    """How concepts are chosen.

    Attributes:
        way: ``softwpmi`` or ``nearest``.
        top_k: images of a unit's soft set, at most a quarter of the probe images.
        a: sharpness of the probabilities of concepts given an image.
        lam: weight of a concept's log-probability over all units.
        p_start: probability that the first image belongs to the set.
        p_end: the same of the last; in between it falls evenly.
        words: how many words a description of ``nearest`` has.
        centring: share of a word's mean over the layer that ``nearest`` takes off.
        candidates: how many are kept.

    Raises:
        InputError: an unknown way, or values without meaning.
    """

    way: str = "softwpmi"
    top_k: int = 100
    a: float = 10.0
    lam: float = 1.0
    p_start: float = 0.998
    p_end: float = 0.97
    words: int = 4
    centring: float = 0.8
    candidates: int = 10

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            hint = did_you_mean(self.way, WAYS)
            raise InputError(
                f"no way {self.way!r} of choosing concepts",
                f"there are {', '.join(WAYS)}",
                hint or f"take {WAYS[0]}",
            )
        if min(self.top_k, self.words, self.candidates) < 1:
            raise InputError(
                f"top_k {self.top_k}, words {self.words}, candidates {self.candidates}",
                "each of them counts something and is at least 1",
                "leave them at 100, 4 and 10",
            )


def load_concepts(path: Path | str | None = None) -> tuple[str, ...]:
    """Read a list of concepts: one a line; empty lines and lines that begin with # are skipped.

    Args:
        path: the user's list; the bundled one when None.

    Returns:
        The distinct concepts in the order of the file.

    Raises:
        InputError: the file cannot be read as text, or holds fewer than two concepts.
    """
    if path is None:
        import milanx.assets

        path = Path(milanx.assets.__path__[0]) / "concepts.txt"
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the concepts in {str(path)!r} cannot be read",
            str(error),
            "give a UTF-8 text file with one concept a line",
        ) from error
    texts = [" ".join(line.split()) for line in lines]
    concepts = tuple(dict.fromkeys(t for t in texts if t and not t.startswith("#")))
    if len(concepts) < 2:
        raise InputError(
            f"{str(path)!r} holds {len(concepts)} concepts",
            "a concept is chosen over others, so that there must be two at least",
            "give one concept a line, or leave the list out for the bundled one",
        )
    return concepts


@torch.inference_mode()
def describe_concepts(
    store: ExemplarStore,
    encoder: Encoder,
    concepts: Sequence[str] | None = None,
    *,
    layers: Sequence[str] | None = None,
    units: dict[str, Sequence[tuple[int, str]]] | None = None,
    settings: ConceptSettings | None = None,
    features: dict[int, np.ndarray] | None = None,
    progress: Reporter | None = None,
) -> list[Description]:
    """Describe units by words of a list, without any training.

    The probe images of ``softwpmi`` are the views that the store holds, those that are exemplars
    of some unit: no others can be encoded. A unit's activation on them is its spatial maximum as
    the store keeps it; of the sign ``-``, whose spatial minimum is not kept, its spatial mean
    turned around. The log-probability of a concept over all units is that over the living units
    of the layer, whichever of them are asked for, so that a unit's text does not depend on the
    units beside it.

    Args:
        store: the exemplars.
        encoder: views and texts into one space.
        concepts: the list; the bundled one when None. What calls people by a colour
            (`milanx.language.people`) is left out of either.
        layers: which layers; all when None.
        units: (unit, sign) of each layer to describe; all that the store has when None.
        settings: how.
        features: what `milanx.features.encoded.encoded_views` returned for the store; encoded when
            None.
        progress: told about encoding and describing.

    Returns:
        A description a unit, in the order of the store. The score stands in ``pmi`` (nats for
        ``softwpmi``, a difference of cosines for ``nearest``, where the joined words have the
        score of their first); both log-probabilities are None.

    Raises:
        InputError: a layer or a unit that the store does not hold, or no concept is left.
    """
    from milanx.features.encoded import encoded_views

    progress, settings = progress or Silent(), settings or ConceptSettings()
    words = _sayable(concepts if concepts is not None else load_concepts())
    chosen = list(layers) if layers is not None else list(store.layers)
    if features is None:
        with progress.stage("encode", len(store.view_indices())) as bar:
            features = encoded_views(encoder, store, advance=bar.advance)
    texts = encoder.texts(words)
    probability = torch.zeros(0, len(words))
    if settings.way == "softwpmi" and len(store.view_indices()):
        whole = np.stack([features[int(i)].mean((0, 1), np.float32) for i in store.view_indices()])
        seen = encoder.joint(torch.from_numpy(whole).to(texts.device))
        probability = (settings.a * seen @ texts.T).softmax(1).cpu()
    found: list[Description] = []
    with progress.stage("describe", sum(len(store.units(layer)) for layer in chosen)) as bar:
        for layer in chosen:
            alive = [row for row, s in enumerate(store.status(layer)) if s != "dead"]
            if settings.way == "softwpmi":
                scores = soft_wpmi(probability, stored_activations(store, layer, alive), settings)
            else:
                scores = _nearness(store, encoder, layer, alive, features, texts, settings)
            found += _describe_layer(store, layer, alive, scores, words, units, settings)
            bar.advance(len(store.units(layer)))
    return found


def _sayable(concepts: Sequence[str]) -> tuple[str, ...]:
    """Return the concepts that may be said of a unit: nobody is called by a colour."""
    words = tuple(text for text in concepts if not says_colour_of_people(text))
    if len(words) < 2:
        raise InputError(
            "fewer than two concepts are left to choose from",
            "what calls people by a colour is left out",
            "give a list of other concepts, or leave it out for the bundled one",
        )
    return words


def soft_wpmi(
    probability: torch.Tensor, activations: torch.Tensor, settings: ConceptSettings
) -> torch.Tensor:
    """Score every concept for every unit by softWPMI.

    With B the images that activate the unit most, x_j the j-th of them and p_j the probability
    that x_j belongs to B: log p(t|B) = sum_j log(1 + p_j (p(t|x_j) - 1)), and the score is
    log p(t|B) - lam log p(t), p(t) the mean of p(t|B) over the units (Oikarinen & Weng 2023,
    "CLIP-Dissect: Automatic Description of Neuron Representations in Deep Vision Networks",
    section 3.2; p_j falls evenly, as in github.com/Trustworthy-ML-Lab/CLIP-dissect).

    Args:
        probability: p(t|x), [n, m], rows that add to 1.
        activations: [n, u].
        settings: top_k, lam, p_start, p_end.

    Returns:
        float32 [u, m], in nats.
    """
    images, units = activations.shape
    if not units:
        return probability.new_zeros(0, probability.shape[1])
    k = min(settings.top_k, max(1, images // SHARE_OF_PROBES))
    best = activations.argsort(dim=0, descending=True, stable=True)[:k]
    fall = torch.arange(k, dtype=probability.dtype)[:, None] / k
    belongs = settings.p_start - fall * (settings.p_start - settings.p_end)
    given = torch.stack([
        (1 + belongs * (probability[best[:, unit]] - 1) + SMALLEST).log().sum(0)
        for unit in range(units)
    ])  # fmt: skip
    return given - settings.lam * (given.logsumexp(0) - math.log(units))


def _nearness(
    store: ExemplarStore,
    encoder: Encoder,
    layer: str,
    rows: list[int],
    features: dict[int, np.ndarray],
    texts: torch.Tensor,
    settings: ConceptSettings,
) -> torch.Tensor:
    """Return how near each word is to each row's exemplars under their masks, [rows, words]."""
    from milanx.features.encoder import GEOMETRY, MASKED, exemplar_features

    if not rows:
        return texts.new_zeros(0, len(texts)).cpu()
    grid = encoder.spec.grid
    parts = []
    for start in range(0, len(rows), 256):
        part = rows[start : start + 256]
        weights = store.mask_weights(layer, part, (grid, grid))
        pooled, valid = exemplar_features(features, store.images(layer)[part], weights)
        joint = encoder.joint(pooled[:, :, MASKED, :-GEOMETRY].to(texts.device))
        there = valid.to(joint)[..., None]
        parts.append(F.normalize((joint * there).sum(1), dim=-1))
    near = torch.cat(parts) @ texts.T
    return (near - settings.centring * near.mean(0)).cpu()


def _describe_layer(
    store: ExemplarStore,
    layer: str,
    alive: list[int],
    scores: torch.Tensor,
    words: tuple[str, ...],
    units: dict[str, Sequence[tuple[int, str]]] | None,
    settings: ConceptSettings,
) -> list[Description]:
    """Turn scores [alive rows, words] of a layer into descriptions of the units asked for."""
    known = store.units(layer)
    place = {row: i for i, row in enumerate(alive)}
    asked = known if units is None or layer not in units else units[layer]
    index = {pair: row for row, pair in enumerate(known)}
    made = []
    for unit, sign in asked:
        if (unit, sign) not in index:
            raise InputError(
                f"{layer} has no unit {unit} of sign {sign} here",
                f"{len(known)} of its units were extracted",
            )
        row = index[unit, sign]
        if row not in place:
            made.append(Description(layer, unit, sign, "dead"))
            continue
        count = min(max(settings.candidates, settings.words), len(words))
        values, best = scores[place[row]].topk(count)
        ranked = [
            Candidate.of_pmi(words[i], v)
            for i, v in zip(best.tolist(), values.tolist(), strict=True)
        ]
        if settings.way == "nearest" and settings.words > 1:
            joined = ", ".join(c.text for c in ranked[: settings.words])
            ranked.insert(0, Candidate.of_pmi(joined, ranked[0].pmi))
        made.append(Description.of(layer, unit, sign, ranked[: settings.candidates]))
    return made
