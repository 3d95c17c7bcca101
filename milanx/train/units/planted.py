"""Units planted in photos: what the meanings of the photos show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.describing.trained import TrainedPhoto
from milanx.features.encoder import Encoder
from milanx.files import fingerprint_file
from milanx.files.room import forget_unused
from milanx.language.people import says_colour_of_people
from milanx.train.data.kinds import read_words
from milanx.train.data.photos import PhotoFeatures, PhotoSource, photo_features
from milanx.train.data.sources import fingerprint_source
from milanx.train.data.splits import HELD_OUT_CALTECH, HELD_OUT_TINY
from milanx.train.recipe import Data
from milanx.train.units.coloured import coloured_meanings
from milanx.train.units.corpus import NAMING, Corpus, kind_shares
from milanx.train.units.division import dictionary, divide
from milanx.train.units.facts import (
    caption_meanings,
    claimed,
    light_meanings,
    material_meanings,
    scene_meanings,
)
from milanx.train.units.ground import ground_meanings
from milanx.train.units.grounded import channel_meanings, embed, locate, phrase_meanings
from milanx.train.units.hypernyms import hypernym_meanings
from milanx.train.units.joined import attributes, joined_meanings
from milanx.train.units.meanings import (
    FURTHER,
    Meaning,
    Views,
    named_meanings,
    region_meanings,
    trained_photos,
)
from milanx.train.units.parts import part_meanings
from milanx.train.units.phrases import (
    clean_name,
    held_out_names,
    mentions,
    whole_words,
)
from milanx.train.units.pixels import pixel_meanings, place_meanings
from milanx.train.units.pretraining import human_descriptions, pretraining_texts
from milanx.train.units.recognised import recognised_meanings
from milanx.train.units.table import Joint, build_table

if TYPE_CHECKING:
    from accelerate import PartialState


def encode_photos(
    encoder: Encoder,
    data: Data,
    seed: int,
    advance: Callable[[int], None],
    say: Callable[[str], None],
    process: PartialState | None = None,
) -> Views:
    """Encode the photos of a recipe, or find them encoded; of several processes each its share.

    Raises:
        InputError: photos that are not there or in no known layout, or another process encodes
            them.
    """
    sources = [
        PhotoSource(Path(data.root) / p.file, p.per_class, p.views, p.text) for p in data.photos
    ]
    forget_unused("photos")
    photos = photo_features(encoder, sources, seed=seed, advance=advance, say=say, process=process)
    divided = divide(photos.photos, data)
    photos.photos = divided.photos
    return Views(photos, divided.keep, divided.checked)


class PlantedUnits:
    """Units that are planted in a recipe's photos (`milanx.train.units.source.UnitSource`).

    Args:
        data: of the recipe.
        views: its photos, encoded.
        seed: of what is drawn.
    """

    corpus = Corpus

    def __init__(self, data: Data, views: Views, seed: int) -> None:
        self.data, self.views, self.seed = data, views, seed

    @property
    def photos(self) -> PhotoFeatures:
        """All of them."""
        return self.views.photos

    @cached_property
    def identity(self) -> object:
        """What stands for photos and texts, wherever they lie."""
        data, root = self.data, Path(self.data.root)
        listed = data.sentences, data.descriptions, data.kinds, data.words
        texts = [fingerprint_file(root / name) if name and (root / name).is_file() else ""
                 for name in listed]  # fmt: skip
        shares = data.held_out_captions, data.held_out_photos, data.checked, data.near_duplicates
        own = [[p.held_out, p.by_origin] for p in data.photos]
        without = [fingerprint_source(root / file) for file in data.without]
        return self.photos.key, texts, shares, own, without

    def texts(self) -> list[str]:
        """Return the text for pretraining, without what is held out."""
        data, views = self.data, self.views
        return pretraining_texts(
            Path(data.root), data.sentences, data.descriptions, views.photos, views.keep, self.held
        )

    def people(self, *, held: bool = False) -> list[str]:
        """Return people's descriptions of units elsewhere, or those held out."""
        if not self.data.descriptions:
            return []
        path = Path(self.data.root) / self.data.descriptions
        return human_descriptions(path, self.held, held=held)

    @cached_property
    def wnids(self) -> dict[str, str]:
        """WordNet ids of the classes, by the name that is said."""
        return {clean_name(p.name): p.wnid for p in self.photos.photos if p.name and p.wnid}

    def build_table(
        self, encoder: Encoder, folder: Path, joint: Joint | None, advance: Callable[[int], None]
    ) -> dict[str, Any]:
        """Pool what the meanings show; nothing is told on the way, it takes a minute."""
        meanings = self._meanings(encoder)
        build_table(encoder, self.views, meanings, folder, self.seed, joint)
        return {"meanings": dict(Counter(m.kind for m in meanings))}

    @cached_property
    def held(self) -> list[str]:
        """Names of the held-out meanings, with what a dictionary adds to them."""
        return held_out_names(dictionary(self.data))

    def _meanings(self, encoder: Encoder) -> list[Meaning]:
        """Collect what units can mean, of the photos that are not held out."""
        photos, keep, seed = self.photos, self.views.keep, self.seed
        held = whole_words(self.held)

        def allowed(text: str) -> bool:
            return not mentions(text, held) and not says_colour_of_people(text)

        def all_allowed(meanings: list[Meaning]) -> list[Meaning]:
            return [m for m in meanings if all(map(allowed, m.texts))]

        space = embed(encoder, photos, keep)
        facts = claimed(kind_shares(self.data.shares))
        classes = [m for m in named_meanings(photos, keep) if m.texts[0] not in facts]
        named = locate(space, classes, seed)
        named = all_allowed([*named, *region_meanings(photos, keep)])
        kinds = [m for m in named if m.kind == "kind"]
        further = self._further(encoder, {name for m in named for name in m.texts})
        further = all_allowed(locate(space, further, seed)) if further else []
        names = [text for m in (*named, *further) for text in m.texts if m.kind in NAMING]
        phrases = phrase_meanings(space, self.people() + self._words(), names, allowed, seed)
        joined = all_allowed(joined_meanings(attributes(photos, keep, kinds), seed))
        vocabulary = sorted({*names, *(text for m in phrases for text in m.texts)})
        return [
            *named,
            *further,
            *pixel_meanings(photos, keep, seed),
            *place_meanings(photos, keep, seed),
            *joined,
            *phrases,
            *channel_meanings(space, vocabulary),
        ]

    def _further(self, encoder: Encoder, known: set[str]) -> list[Meaning]:
        """Collect the meanings of kinds that a recipe gives a share.

        Args:
            encoder: whose classifier recognises classes.
            known: names that labels give.
        """
        photos, keep, seed = self.photos, self.views.keep, self.seed
        shares = kind_shares(self.data.shares)
        if not any(shares[kind] for kind in FURTHER):
            return []
        words = dictionary(self.data)
        found = [
            *part_meanings(photos, keep),
            *coloured_meanings(photos, keep),
            *caption_meanings(photos, keep),
            *material_meanings(photos, keep),
            *ground_meanings(photos, keep),
            *light_meanings(photos, keep, seed),
            *scene_meanings(photos, keep),
            *hypernym_meanings(photos, keep, words),
        ]
        if shares["recognised"]:
            found += recognised_meanings(encoder, photos, keep, words, known)
        return [m for m in found if shares[m.kind]]

    def _words(self) -> list[str]:
        """Return further words for what can be seen, where the recipe names some."""
        return read_words(Path(self.data.root) / self.data.words) if self.data.words else []

    def trained(self) -> list[TrainedPhoto]:
        """Return the photos that the training reads."""
        return trained_photos(self.photos.photos, self.views.keep, self.views.checked)

    def facts(self) -> dict[str, Any]:
        """Return what a describer's folder says of what was trained on and held out."""
        return {
            "held_out_wnids": list(HELD_OUT_TINY),
            "held_out_classes": list(HELD_OUT_CALTECH),
            "held_out_names": self.held,
            "photos": len(self.photos),
            "photos_trained_on": int(self.views.trained.sum()),
            "human_descriptions_held_out": len(self.people(held=True)),
        }
