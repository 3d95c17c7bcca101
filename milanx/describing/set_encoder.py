"""p(d|E): a GPT-2 with LoRA behind a prefix that a set encoder makes from the exemplars."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from milanx.describing.critic import Critic, summarise
from milanx.features.evidence import Evidence

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


@dataclass(frozen=True)
class SetEncoderSpec:
    """The shape of the set encoder, and the numbers that its weights were trained with.

    The last four were chosen on development layers (`milanx.describing.settings`).

    Attributes:
        features: d of the encoder's pooled features.
        joint: width of the encoder's joint image-text space.
        width: width of the GPT-2 that reads the prefix.
        prefix: p, how many prefix positions it makes.
        layers: transformer layers over the set.
        heads: attention heads of each.
        dropout: in training.
        words: how many words of the joint space's vocabulary are retrieved for a set.
        vocabulary: how many words it knows.
        pixels: how many of the last features come from pixels and are read as they are.
        components: principal components that stand for the other features.
        critic: width of the critic's hidden layer.
        hubness: share of the joint space's usual direction that is taken off what masks show: some
            words are near to everything.
        frequency: share of a phrase's log frequency that counts in retrieving it.
        joint_weight: what unit rows of the joint space are multiplied by beside features of
            variance one.
        furthest: standard deviations to which read features are cut.
    """

    features: int
    joint: int
    width: int = 256
    prefix: int = 6
    layers: int = 2
    heads: int = 4
    dropout: float = 0.05
    words: int = 8
    vocabulary: int = 0
    pixels: int = 0
    components: int = 192
    critic: int = 512
    hubness: float = 0.8
    frequency: float = 0.5
    joint_weight: float = 10.0
    furthest: float = 6.0


class SetEncoder(nn.Module):
    """Exemplar sets to prefixes; the order of the exemplars does not matter.

    Each exemplar's features under its mask, of the whole view, and both in the joint image-text
    space become one vector; so do the contrast views. Learned queries and all of these attend to
    one another without positions (Lee et al. 2019, "Set Transformer"), and what the queries became
    is the first part of the prefix. The second are the phrases of the vocabulary that the critic
    (`milanx.describing.critic`) finds to agree most with the exemplars, best first.

    Of the features the whitened principal components are read: thousands of raw channels at once
    make Adam's steps so large that nothing but the coarsest is learned.
    """

    mean: torch.Tensor
    axes: torch.Tensor
    vocabulary: torch.Tensor
    joint_mean: torch.Tensor
    text_mean: torch.Tensor
    usual: torch.Tensor
    frequency: torch.Tensor

    def __init__(self, spec: SetEncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        width = spec.width
        read = spec.components + spec.pixels
        self.register_buffer("mean", torch.zeros(spec.features))
        self.register_buffer("axes", torch.zeros(spec.features, read))
        self.register_buffer("vocabulary", torch.zeros(spec.vocabulary, spec.joint))
        self.register_buffer("joint_mean", torch.zeros(spec.joint))
        self.register_buffer("text_mean", torch.zeros(spec.joint))
        self.register_buffer("usual", torch.zeros(spec.joint))
        self.register_buffer("frequency", torch.zeros(spec.vocabulary))
        self.critic = Critic(read, spec.joint, spec.critic)
        self.pooled = nn.Linear(2 * read, width)
        self.seen = nn.Linear(2 * spec.joint, width)
        self.contrast = nn.Linear(read + spec.joint, width)
        self.word = nn.Linear(spec.joint, width)
        self.ranks = nn.Parameter(torch.randn(spec.words, width) * 0.02)
        self.queries = nn.Parameter(torch.randn(spec.prefix, width) * 0.02)
        self.join = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        layer = nn.TransformerEncoderLayer(
            width,
            spec.heads,
            4 * width,
            spec.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, spec.layers, enable_nested_tensor=False)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))

    def forward(
        self,
        evidence: Evidence,
        with_words: torch.Tensor | None = None,
        vectors: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Make prefixes.

        Args:
            evidence: of u units.
            with_words: bool [u], which units may retrieve words; all when None.
            vectors: the units' `critic_vectors`, where they are known.

        Returns:
            [u, p + w, width].
        """
        e, units, weight = evidence, len(evidence), self.spec.joint_weight
        pooled = self.pooled(self.read(e.features).flatten(2))
        exemplars = self.join[0](pooled + self.seen(e.joint.flatten(2) * weight))
        beside = torch.cat([self.read(e.contrast), e.contrast_joint * weight], -1)
        contrast = self.join[1](self.contrast(beside))
        tokens = torch.cat([self.queries.expand(units, -1, -1), exemplars, contrast], 1)
        queries = torch.zeros(units, self.spec.prefix, dtype=torch.bool, device=tokens.device)
        absent = torch.cat([queries, ~e.valid, ~e.contrast_valid], 1)
        tokens = self.layers(tokens, src_key_padding_mask=absent)
        vectors = self.critic_vectors(e) if vectors is None else vectors
        words = self.word(self.retrieve(vectors) * weight)
        if with_words is not None:
            words = words * with_words[:, None, None]
        words = words + self.ranks[: self._words]
        return torch.cat([self.out(tokens[:, : self.spec.prefix]), words], 1)

    @property
    def prefix_length(self) -> int:
        """How many positions of the GPT-2 a prefix takes."""
        return self.spec.prefix + self._words

    @property
    def _words(self) -> int:
        return min(self.spec.words, self.spec.vocabulary)

    def read(self, features: torch.Tensor) -> torch.Tensor:
        """Return the read features [..., r] of pooled ones [..., d]."""
        furthest = self.spec.furthest
        return ((features - self.mean) @ self.axes).clamp(-furthest, furthest)

    @torch.no_grad()
    def word_scores(self, vectors: torch.Tensor) -> torch.Tensor:
        """Score the vocabulary for `critic_vectors`: [u, v], in nats, frequent ones a bit ahead."""
        return self.agreement(vectors, self.vocabulary) + self.spec.frequency * self.frequency

    @torch.no_grad()
    def critic_vectors(self, evidence: Evidence) -> torch.Tensor:
        """Return what `agreement` compares texts with, [u, 2 j + 1].

        The last number makes a set's texts of the vocabulary have a mean exponentiated score of
        one, by their frequency. A softmax over texts leaves it free, and scores of different
        sets could not be compared without it.
        """
        read, contrast = self.read(evidence.features), self.read(evidence.contrast)
        vectors = self.critic.vectors(*self.critic_inputs(evidence, read, contrast))
        if not self.spec.vocabulary:
            return torch.cat([vectors, vectors.new_zeros(len(vectors), 1)], 1)
        known = self.critic.scores(vectors, self.vocabulary)
        mean = (known + self.frequency.log_softmax(0)).logsumexp(1, keepdim=True)
        return torch.cat([vectors, -mean], 1)

    @torch.no_grad()
    def agreement(self, vectors: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Return the critic's estimate of the PMI of sets and texts, in nats.

        Args:
            vectors: [u, 2 j + 1], of `critic_vectors`.
            texts: [t, 2 j + 3], of `told_texts`.

        Returns:
            [u, t]; beside other units of a layer by `milanx.describing.critic.beside_others`.
        """
        return self.critic.scores(vectors[:, :-1], texts) + vectors[:, -1:]

    def critic_inputs(
        self, evidence: Evidence, read: torch.Tensor, contrast: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the critic is told of sets, given their read features."""
        e = evidence
        summary = summarise(
            read, e.joint - self.joint_mean, e.valid,
            contrast, e.contrast_joint - self.joint_mean, e.contrast_valid, self.spec.joint_weight,
        )  # fmt: skip
        return summary, self._shown(e) - self.spec.hubness * self.usual

    def centred_texts(self, texts: torch.Tensor) -> torch.Tensor:
        """Text vectors [..., j] of the joint space, centred on the vocabulary: unit rows."""
        return F.normalize(texts - self.text_mean, dim=-1)

    def told_texts(self, texts: torch.Tensor, joins: torch.Tensor) -> torch.Tensor:
        """Return what the critic is told of texts: [..., 2 j + 3].

        Args:
            texts: [..., j], of the joint space.
            joins: [..., 3 + j], how they join what they name
                (`milanx.language.connectives.join_features`).
        """
        flags, missing = joins.split([joins.shape[-1] - self.spec.joint, self.spec.joint], -1)
        named = missing.abs().sum(-1, keepdim=True) > 0
        missing = torch.where(named, self.centred_texts(missing), 0.0)
        return torch.cat([self.centred_texts(texts), flags, missing], -1)

    def train(self, mode: bool = True) -> SetEncoder:
        """Set the mode of all but the critic, which is trained beforehand and by itself."""
        super().train(mode)
        self.critic.eval()
        return self

    def _shown(self, evidence: Evidence) -> torch.Tensor:
        """What the masks show, averaged over the exemplars and centred: unit rows [u, j]."""
        share = evidence.valid.to(evidence.joint)[..., None]
        shown = (evidence.joint[:, :, 0] * share).sum(1) / share.sum(1).clamp_min(1)
        return F.normalize(shown - self.joint_mean, dim=-1)

    @torch.no_grad()
    def retrieve(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the vectors of the words that agree most with `critic_vectors`: [u, w, j]."""
        nearest = self.word_scores(vectors).topk(self._words, dim=1).indices
        return self.vocabulary[nearest]

    @torch.no_grad()
    def learn_usual(self, evidence: Evidence, vocabulary: torch.Tensor) -> None:
        """Set the centring from a sample of units and the vocabulary's text vectors [v, j]."""
        rows = evidence.features[evidence.valid].flatten(0, 1)
        self.mean.copy_(rows.mean(0))
        self.axes.copy_(whitening(rows, self.spec.components, self.spec.pixels))
        self.joint_mean.copy_(evidence.joint[:, :, 0][evidence.valid].mean(0))
        self.text_mean.copy_(vocabulary.mean(0))
        self.vocabulary.copy_(self.centred_texts(vocabulary))
        self.usual.copy_(self._shown(evidence).mean(0))


def whitening(rows: torch.Tensor, components: int, pixels: int) -> torch.Tensor:
    """Return axes [d, components + pixels] on which ``rows`` [n, d], centred, have variance one.

    The last ``pixels`` features keep axes of their own. Where there are fewer principal
    components than asked for, the axes that are left are zero.
    """
    centred = rows - rows.mean(0)
    own = centred.shape[1] - pixels
    scale = 1 / centred[:, :own].std(0).clamp_min(1e-3)
    _, values, axes = torch.linalg.svd(centred[:, :own] * scale, full_matrices=False)
    deviation = values / max(1, len(rows) - 1) ** 0.5
    kept = min(components, int((deviation > 1e-3).sum()))
    found = torch.zeros(centred.shape[1], components + pixels)
    found[:own, :kept] = scale[:, None] * axes[:kept].T / deviation[:kept]
    for i in range(pixels):
        found[own + i, components + i] = 1 / centred[:, own + i].std().clamp_min(1e-3)
    return found


def load_merged(base_folder: str, adapter_folder: str) -> GPT2LMHeadModel:
    """Read a base (folder or name) and an adapter; return one model with the adapter merged in.

    Raises:
        FormatError: the adapter's tensors are not those of its config, or no numbers.
    """
    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict

    from milanx.describing.checks import compare, load_tensors
    from milanx.environment import hushed
    from milanx.files import reading
    from milanx.language.gpt2 import load_gpt2

    path = Path(adapter_folder) / "adapter_model.safetensors"
    found = {name: tuple(value.shape) for name, value in load_tensors(path).items()}
    base = load_gpt2(base_folder)
    with reading(Path(adapter_folder)), hushed():
        adapted = PeftModel.from_pretrained(base, adapter_folder, local_files_only=True)
    own = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    compare(path, {name: tuple(value.shape) for name, value in own.items()}, found)
    return adapted.merge_and_unload().eval().requires_grad_(False)
