"""The ranking: its terms, their weights, what candidates say of them, against plain versions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milanx.describing.candidates import Candidate, Description, Term, likeliest
from milanx.describing.ranker import (
    TERMS,
    Hypothesis,
    Ranker,
    RankTerm,
    doubt_of,
    foretells,
)
from milanx.describing.settings import RankSettings, SearchSettings
from milanx.errors import InputError
from milanx.language.words import normalise_text


@dataclass
class Says:
    """What a unit says of texts, as a test wrote it; notes what it was asked."""

    agreements: dict[str, float] = field(default_factory=dict)
    responses: dict[str, float] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def agreement(self, texts: Sequence[str]) -> list[float]:
        self.asked.append("agreement")
        return [self.agreements[t] for t in texts]

    def response(self, texts: Sequence[str]) -> list[float]:
        self.asked.append("response")
        return [self.responses[t] for t in texts]

    def absent(self, texts: Sequence[str]) -> list[float]:
        self.asked.append("absent")
        return [0.75 * (" or " in t) for t in texts]


def found(*texts: tuple[str, float] | tuple[str, float, float]) -> list[Hypothesis]:
    """Hypotheses of (text, log p(d|E)) with log p(d) -3 unless it is told."""
    return [Hypothesis(t[0], t[1], t[2] if len(t) > 2 else -3.0, len(t[0].split()) + 1)
            for t in texts]  # fmt: skip


def texts_of(candidates: Sequence[Candidate]) -> list[str]:
    return [c.text for c in candidates]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["Dogs", "dogs", "dogs.", "cats", "red", "...", " "]),
                  st.floats(-9, -0.1)), min_size=1, max_size=12, unique_by=lambda p: p[0]),
    st.floats(0, 1),
    st.sampled_from(["pmi", "argmax"]),
)  # fmt: skip
def test_ranks_equal_the_plain_version(
    pairs: list[tuple[str, float]], lam: float, method: str
) -> None:
    before = {"Dogs": -3.0, "dogs": -2.0, "dogs.": -5.0, "cats": -4.0, "red": -1.5}
    hypotheses = [Hypothesis(t, p, before.get(t, 0.0), 2) for t, p in pairs]
    made = Ranker().rank(hypotheses, RankSettings(lam=lam, method=method))
    groups: dict[str, list[str]] = {}
    for text, _ in pairs:
        if normalise_text(text):
            groups.setdefault(normalise_text(text), []).append(text)
    scores = dict(pairs)
    plain = {}
    for name, texts in groups.items():
        posterior = math.log(sum(math.exp(scores[t]) for t in texts))
        prior = math.log(sum(math.exp(before[t]) for t in texts))
        plain[name] = (posterior - lam * prior, posterior)
    assert {normalise_text(c.text) for c in made} == set(plain)
    for candidate in made:
        pmi, posterior = plain[normalise_text(candidate.text)]
        assert candidate.pmi == pytest.approx(pmi)
        assert candidate.log_p_given_exemplars == pytest.approx(posterior)
        assert candidate.rank == pytest.approx(pmi if method == "pmi" else posterior)
    ranks = [c.rank for c in made]
    assert ranks == sorted(ranks, reverse=True)


def test_a_text_that_was_found_twice_is_one() -> None:
    made = Ranker().rank(found(("dogs", -1.0), ("dogs", -1.0), ("cats", -2.0)), RankSettings())
    assert texts_of(made) == ["dogs", "cats"]
    assert made[0].log_p_given_exemplars == pytest.approx(math.log(2) - 1)
    assert made[0].log_p_prior == -3.0


FOUND = found(("red dogs", -2.0, -6.0), ("dogs", -2.5, -3.0), ("a dog in the snow", -3.0, -9.0))
ALIKE = {"red dogs": 0.1, "dogs": 0.5, "a dog in the snow": -0.2}
EVERY = RankSettings(agreement=1.5, response=40.0, joined=2.0, without=3.0, absent=1.0,
                     length_penalty=0.2)  # fmt: skip


def test_every_candidate_carries_every_term_and_their_sum_is_the_rank() -> None:
    rank = Ranker().rank
    texts = [*FOUND, *found(("dogs without snow", -2.0), ("dogs or cats", -2.2))]
    names = {h.text: h for h in texts}
    says = Says({t: 0.3 for t in names}, {t: 0.1 * len(t) / 9 for t in names})
    for method in ("pmi", "argmax"):
        how = RankSettings(**{**vars(EVERY), "method": method})
        for c in rank(texts, how, says):
            terms = {t.name: t for t in c.terms}
            assert list(terms)[: len(TERMS)] == [t.name for t in TERMS]
            assert c.rank == pytest.approx(sum(t.added for t in c.terms))
            assert terms["pmi"].value == c.pmi
            assert terms["agreement"].value == c.agreement == 0.3
            assert terms["response"].value == c.response == says.responses[c.text]
            assert terms["joined"].value == (" or " in c.text or " without " in c.text)
            assert terms["without"].value == (" without " in c.text)
            assert terms["length"].value == names[c.text].tokens
            if method == "argmax":
                assert c.rank == c.log_p_given_exemplars == terms["likelihood"].added
                continue
            r, doubt = c.response, (2.0 / 2.5) ** 2
            assert terms["pmi"].added == c.pmi
            assert terms["agreement"].added == pytest.approx(1.5 * 0.3)
            assert terms["response"].added == pytest.approx(40 * doubt * r**3 / (r**2 + 0.12**2))
            assert terms["joined"].added == -2.0 * terms["joined"].value
            assert terms["without"].added == -3.0 * terms["without"].value
            assert terms["length"].added == pytest.approx(-0.2 * terms["length"].value)


def test_agreement_takes_part_in_the_rank_and_not_in_the_pmi() -> None:
    says, rank = Says(ALIKE), Ranker().rank
    plain = rank(FOUND, RankSettings(), says)
    assert texts_of(plain) == ["red dogs", "a dog in the snow", "dogs"]
    assert all(c.agreement is None for c in plain)
    assert not says.asked  # without a weight it is not asked
    weighed = rank(FOUND, RankSettings(agreement=4.0), says)
    for c in weighed:
        assert c.pmi == pytest.approx(c.log_p_given_exemplars - 0.2 * c.log_p_prior)
        assert c.agreement == pytest.approx(ALIKE[c.text])
    totals = [c.pmi + 4 * c.agreement for c in weighed]
    assert totals == sorted(totals, reverse=True)
    assert weighed[0].text == "dogs"
    assert says.asked == ["agreement"]
    argmax = rank(FOUND, RankSettings(agreement=4.0, method="argmax"), says)
    assert texts_of(argmax) == ["red dogs", "dogs", "a dog in the snow"]
    with pytest.raises(ValueError, match="agreement"):
        rank(FOUND, RankSettings(agreement=1.0))


def test_response_and_what_is_missing_take_part_in_the_rank() -> None:
    rank = Ranker().rank
    told = rank(FOUND, RankSettings(response=10.0), Says(responses=ALIKE))
    assert told[0].text == "dogs"
    assert [c.response for c in told] == pytest.approx([ALIKE[c.text] for c in told])
    with pytest.raises(ValueError, match="response"):
        rank(FOUND, RankSettings(response=1.0))
    pair = found(("dogs", -2.0), ("dogs without snow", -1.0))
    assert rank(pair, RankSettings())[0].text == "dogs without snow"
    assert rank(pair, RankSettings(without=2.0))[0].text == "dogs"
    assert rank(pair, RankSettings(joined=2.0))[0].text == "dogs"
    pair = found(("dogs", -2.0), ("dogs or snow", -1.0))
    assert rank(pair, RankSettings(without=2.0))[0].text == "dogs or snow"
    assert rank(pair, RankSettings(joined=2.0))[0].text == "dogs"


def test_the_surer_p_is_the_less_a_response_counts() -> None:
    how = RankSettings(response=40.0)

    def first(surest: float) -> str:
        pair = found(("dogs", surest), ("trees", surest - 3))
        return Ranker().rank(pair, how, Says(responses={"dogs": 0.2, "trees": 0.4}))[0].text

    assert [first(-0.5), first(-2.5), first(-6.0)] == ["dogs", "trees", "trees"]
    doubts = [doubt_of(log_p, how) for log_p in (-0.01, -1.0, -2.0, -2.5, -9.0)]
    assert doubts[0] == doubts[1] == 0.3 < doubts[2] < doubts[3] == doubts[4] == 1
    assert doubt_of(-1.0, RankSettings(unsure=1.0)) == 1
    assert doubt_of(-0.1, RankSettings(least=0.7)) == 0.7


def test_what_may_be_chance_hardly_counts() -> None:
    how = RankSettings()
    assert foretells(0.0, how) == 0
    assert foretells(-0.3, how) == -foretells(0.3, how)
    assert foretells(0.03, how) < 0.1 * 0.03
    assert foretells(0.4, how) > 0.9 * 0.4
    assert foretells(0.03, RankSettings(dim=0.003)) > 0.9 * 0.03


def test_a_penalty_of_length_prefers_the_shorter() -> None:
    made = Ranker().rank(FOUND, RankSettings(length_penalty=2.0))
    assert texts_of(made) == ["dogs", "red dogs", "a dog in the snow"]


def test_a_further_term_is_one_more_of_the_same() -> None:
    score = RankTerm("score", lambda how: 5.0, lambda unit, how: [len(t) for t in unit.texts])
    made = Ranker((*TERMS, score)).rank(FOUND, RankSettings())
    assert made[0].text == "a dog in the snow"
    assert made[0].terms[-1] == Term("score", 17.0, 85.0)


def test_joins_that_repeat_come_behind_other_things() -> None:
    texts = ["dogs", "dog or cats", "dogs and cars", "lamps", "tents or ropes", "cats"]
    pairs = [(text, -1.0 - i) for i, text in enumerate(texts)]
    how, rank = RankSettings(lam=0, candidates=5), Ranker().rank
    made = texts_of(rank(found(*pairs), how))
    assert made == ["dogs", "lamps", "tents or ropes", "cats", "dog or cats"]
    assert texts_of(rank(found(*pairs[1:3]), how)) == ["dog or cats", "dogs and cars"]


def test_the_likeliest_is_kept_whatever_ranks() -> None:
    how = RankSettings(agreement=9.0, candidates=1)
    made = Ranker().rank(FOUND, how, Says(ALIKE))
    assert texts_of(made) == ["dogs", "red dogs"]
    description = Description.of("layer", 3, "+", made)
    assert (description.text, description.likeliest) == ("dogs", "red dogs")
    assert description.rank == made[0].rank
    assert Description.of("layer", 3, "+", ()) == Description("layer", 3, "+", "dead")


def test_the_likeliest_of_candidates_without_language_models_is_the_description() -> None:
    near = [Candidate.of_pmi("dogs", 0.3), Candidate.of_pmi("cats", 0.2)]
    assert Description.of("layer", 0, "+", near).likeliest == "dogs"
    assert likeliest((), "nothing") == "nothing"
    one = Candidate("cats", 0.1, -5.0, -6.0)
    assert likeliest([*near, one], "dogs") == "cats"


def test_a_candidate_is_read_from_a_row_of_any_version() -> None:
    row = {"text": "dogs", "pmi": 1.0, "log_p_given_exemplars": -1.0, "log_p_prior": -2.0}
    old = Candidate.from_row(row)
    assert old == Candidate("dogs", 1.0, -1.0, -2.0) and old.terms == ()
    terms = [{"name": "pmi", "value": 1.0, "added": 1.0}]
    new = Candidate.from_row({**row, "rank": 1.0, "terms": terms})
    assert new.terms == (Term("pmi", 1.0, 1.0),) and new.rank == 1.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "argmin"}, "did you mean argmax"),
        ({"candidates": 0}, "candidates 0"),
        ({"unsure": 0.0}, "unsure 0.0"),
        ({"near_share": 2.0}, "near_share 2.0"),
        ({"strategy": "beams"}, "did you mean beam"),
    ],
)
def test_settings_without_meaning(changes: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        SearchSettings(**changes)
