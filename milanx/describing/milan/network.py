"""p(d|E) and p(d) of MILAN: an LSTM that attends to the exemplars at each word, and one without.

Hernandez et al. 2022, "Natural Language Descriptions of Deep Visual Features", section 3 and
appendix; the decoder is that of Xu et al. 2015, "Show, Attend and Tell", section 3.1.2 with soft
attention (4.2), over a set of exemplars in place of the cells of one picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from milanx.describing.milan.words import BEGIN
from milanx.features.encoder import MASKED
from milanx.features.evidence import Evidence

State = tuple[torch.Tensor, torch.Tensor]  # hidden state and cell of the LSTM, [u, b, hidden] each


@dataclass(frozen=True)
class MilanSpec:
    """The shape of the networks; MILAN's own numbers unless said.

    Attributes:
        features: d of the encoder's pooled features.
        read: how many are read of them: whitened components, then pixels as they are. MILAN reads
            all channels; those of `milanx.describing.set_encoder` are read here, so that both
            describers see the same.
        words: size of the vocabulary, numbers of no word included.
        embedding: width of a word's vector.
        hidden: width of both LSTMs.
        attention: width in which exemplars and state are compared.
        layers: of p(d).
        dropout: in training.
        longest: most tokens of a text, its end token included.
        furthest: standard deviations to which read features are cut.
    """

    features: int
    read: int
    words: int
    embedding: int = 128
    hidden: int = 512
    attention: int = 512
    layers: int = 2
    dropout: float = 0.5
    longest: int = 15
    furthest: float = 6.0


@dataclass(frozen=True)
class Seen:
    """What is read once of the exemplar sets of u units.

    Attributes:
        vectors: [u, k, f], of each exemplar under its mask.
        keys: [u, k, a], the same as attention compares them.
        absent: bool [u, k], exemplars that there are not.
    """

    vectors: torch.Tensor
    keys: torch.Tensor
    absent: torch.Tensor

    def __len__(self) -> int:
        return len(self.absent)


class AttentionDecoder(nn.Module):
    """p(d|E): one word at a time, each after a look at the exemplars."""

    mean: torch.Tensor
    axes: torch.Tensor

    def __init__(self, spec: MilanSpec) -> None:
        super().__init__()
        self.spec = spec
        width, hidden = spec.read, spec.hidden
        self.register_buffer("mean", torch.zeros(spec.features))
        self.register_buffer("axes", torch.zeros(spec.features, width))
        self.embed = nn.Embedding(spec.words, spec.embedding)
        self.first_hidden, self.first_cell = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.key, self.query = nn.Linear(width, spec.attention), nn.Linear(hidden, spec.attention)
        self.weight = nn.Linear(spec.attention, 1)
        self.gate = nn.Linear(hidden, width)
        self.cell = nn.LSTMCell(spec.embedding + width, hidden)
        self.out = nn.Sequential(nn.Dropout(spec.dropout), nn.Linear(hidden, spec.words))

    def read(self, features: torch.Tensor) -> torch.Tensor:
        """Return the read features [..., f] of pooled ones [..., d]."""
        furthest = self.spec.furthest
        return ((features - self.mean) @ self.axes).clamp(-furthest, furthest)

    def look(self, evidence: Evidence) -> Seen:
        """Read exemplar sets: what masks show, nothing else."""
        vectors = self.read(evidence.features[:, :, MASKED])
        vectors = vectors * evidence.valid[..., None]
        return Seen(vectors, self.key(vectors), ~evidence.valid)

    def start(self, seen: Seen) -> State:
        """Make the state before the first word, from the mean of the exemplars: [u, 1, hidden]."""
        there = (~seen.absent).to(seen.vectors)[..., None]
        mean = (seen.vectors * there).sum(1) / there.sum(1).clamp_min(1)
        return self.first_hidden(mean).tanh()[:, None], self.first_cell(mean).tanh()[:, None]

    def step(self, seen: Seen, state: State, tokens: torch.Tensor) -> tuple[State, torch.Tensor]:
        """Read one word of each text and look at the exemplars.

        Args:
            seen: of u units.
            state: of the b texts of each.
            tokens: int64 [u, b], the word before.

        Returns:
            The state after it, and the attention [u, b, k] that came with it.
        """
        hidden, cell = state
        met = (seen.keys[:, None] + self.query(hidden)[:, :, None]).tanh()
        scores = self.weight(met).squeeze(-1).masked_fill(seen.absent[:, None], -torch.inf)
        attention = scores.softmax(-1).nan_to_num(0.0)  # a unit without exemplars looks at nothing
        context = self.gate(hidden).sigmoid() * (attention @ seen.vectors)
        inputs = torch.cat([self.embed(tokens), context], -1)
        made = self.cell(inputs.flatten(0, 1), (hidden.flatten(0, 1), cell.flatten(0, 1)))
        hidden, cell = (part.unflatten(0, tokens.shape) for part in made)
        return (hidden, cell), attention

    def log_p(self, state: State) -> torch.Tensor:
        """Return the log-probability of each next word: [u, b, v]."""
        logits: torch.Tensor = self.out(state[0])
        return logits.log_softmax(-1)

    def read_texts(self, seen: Seen, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read a text a unit, word by word.

        Args:
            seen: of u units.
            ids: int64 [u, t], of `milanx.describing.milan.words.Vocabulary.encode`.

        Returns:
            log p of each token after those before it [u, t], and attention [u, t, k].
        """
        state, before = self.start(seen), _before(ids)
        states, looks = [], []
        for place in range(ids.shape[1]):
            state, attention = self.step(seen, state, before[:, place : place + 1])
            states.append(state[0])
            looks.append(attention)
        log_p = self.log_p((torch.cat(states, 1), state[1]))
        return log_p.gather(2, ids[..., None]).squeeze(2), torch.cat(looks, 1)

    def forward(
        self, evidence: Evidence, ids: torch.Tensor, mask: torch.Tensor, even: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss of texts behind their sets, and their tokens.

        Beside the negative log-likelihood stands, ``even`` times for each token, the doubly
        stochastic penalty (Xu et al. 2015, equation 14): the mean over exemplars of the squared
        distance from one of the attention that an exemplar gets over the whole text.
        """
        device = self.mean.device
        evidence, ids, mask = evidence.to(device), ids.to(device), mask.to(device)
        seen = self.look(evidence)
        log_p, attention = self.read_texts(seen, ids)
        total, tokens = -(log_p * mask).sum(), mask.sum()
        if not even:
            return total, tokens
        got = (attention * mask[..., None]).sum(1)[~seen.absent]
        return total + even * tokens * (1 - got).square().mean(), tokens


class LanguageModel(nn.Module):
    """p(d): an LSTM over the words alone."""

    def __init__(self, spec: MilanSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed = nn.Embedding(spec.words, spec.embedding)
        dropout = spec.dropout if spec.layers > 1 else 0.0  # torch's is between layers
        self.lstm = nn.LSTM(
            spec.embedding, spec.hidden, spec.layers, batch_first=True, dropout=dropout
        )
        self.out = nn.Sequential(nn.Dropout(spec.dropout), nn.Linear(spec.hidden, spec.words))

    def log_p(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the log-probability of each word at each place: [n, t, v]."""
        logits: torch.Tensor = self.out(self.lstm(self.embed(_before(ids)))[0])
        return logits.log_softmax(-1)

    def score(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return log p(d) of texts with their end token, in nats: [n]."""
        own = self.log_p(ids).gather(2, ids[..., None]).squeeze(2)
        return (own * mask).sum(1)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed negative log-likelihood of texts, and their tokens."""
        device = self.embed.weight.device
        ids, mask = ids.to(device), mask.to(device)
        return -self.score(ids, mask).sum(), mask.sum()


def _before(ids: torch.Tensor) -> torch.Tensor:
    """Return the word before each: [n, t]."""
    return torch.cat([torch.full_like(ids[:, :1], BEGIN), ids[:, :-1]], 1)
