"""Near-duplicates: the index against the plain comparison of all pairs, flat images, union."""

from __future__ import annotations

import time
import tracemalloc
from itertools import combinations

import imagehash
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from milanx.images import near
from milanx.images.near import (
    BITS,
    FLAT_NEAR,
    NEAR,
    by_first,
    clusters,
    parts,
    picture_hash,
    united,
)
from tests.helpers import noise


def plain(labels: int, pairs: list[tuple[int, int]]) -> list[int]:
    """Components of a graph by the plainest way, numbered by first member."""
    parts = [{i} for i in range(labels)]
    for a, b in pairs:
        one, other = (next(p for p in parts if x in p) for x in (a, b))
        if one is not other:
            one |= other
            parts.remove(other)
    number = {i: n for n, part in enumerate(sorted(parts, key=min)) for i in part}
    return [number[i] for i in range(labels)]


def alike(a: str, b: str) -> bool:
    """Whether two hashes are near, by the words of the head of `near`."""
    if a.startswith("flat:") != b.startswith("flat:"):
        return False
    if a.startswith("flat:"):
        pairs = zip(bytes.fromhex(a[5:]), bytes.fromhex(b[5:]), strict=True)
        return all(abs(x - y) <= FLAT_NEAR for x, y in pairs)
    return (int(a, 16) ^ int(b, 16)).bit_count() <= NEAR


def test_parts_share_out_all_bits_so_that_one_is_the_same() -> None:
    assert len(parts(range(BITS))) == NEAR + 1
    assert sorted(bit for part in parts(range(BITS)) for bit in part) == list(range(BITS))


@pytest.mark.parametrize("long_run", [0, 2, near.LONG_RUN])
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_clusters_are_those_of_all_pairs(
    long_run: int, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    """Around few centres, so that there are chains, copies, and pairs at exactly NEAR + 1 bits."""
    monkeypatch.setattr(near, "LONG_RUN", long_run)
    centres = data.draw(st.lists(st.integers(0, 2**BITS - 1), min_size=1, max_size=4))
    hashes = []
    for _ in range(data.draw(st.integers(1, 45))):
        if data.draw(st.integers(0, 4)) == 0:
            levels = data.draw(st.lists(st.integers(0, 25), min_size=4, max_size=4))
            hashes.append(f"flat:{bytes(levels).hex()}")
            continue
        value = data.draw(st.sampled_from(centres))
        for bit in data.draw(st.lists(st.integers(0, BITS - 1), max_size=9)):
            value ^= 1 << bit
        hashes.append(f"{value:016x}")
    pairs = [(i, j) for i, j in combinations(range(len(hashes)), 2) if alike(hashes[i], hashes[j])]
    assert clusters(hashes).tolist() == plain(len(hashes), pairs)


@pytest.mark.parametrize("kind", ["apart", "one part the same", "dense", "flat", "copies"])
def test_twenty_thousand_take_little_time_and_memory(kind: str) -> None:
    """All pairs would be 200 million; as bits of one matrix 400 MB."""
    rng = np.random.default_rng(0)
    count = 20_000
    values = rng.integers(0, 2**63, count, dtype=np.uint64)
    if kind == "one part the same":
        values &= ~np.uint64(sum(1 << bit for bit in parts(range(BITS))[0]))
    if kind == "dense":  # at most three bits of 64: most are near to one another
        bits = rng.integers(0, BITS, (count, 3)).astype(np.uint64)
        values = np.bitwise_or.reduce(np.uint64(1) << bits, axis=1)
    hashes = [f"{v:016x}" for v in values.tolist()]
    if kind == "flat":
        hashes = [f"flat:{bytes(c).hex()}" for c in rng.integers(0, 256, (count, 4)).tolist()]
    if kind == "copies":
        hashes = hashes[:1] * count
    tracemalloc.start()
    started = time.process_time()
    found = clusters(hashes)
    seconds = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * 2**20
    assert seconds < 90  # of this process; all pairs would take many minutes
    assert len(set(found.tolist())) == {"dense": 1, "copies": 1}.get(kind, len(set(hashes))) or (
        kind == "flat"
    )


def test_hashes_are_imagehashs() -> None:
    for image in [*noise(8, side=90), *noise(4, side=8), Image.linear_gradient("L")]:
        assert picture_hash(image.convert("RGB")) == str(imagehash.dhash(image.convert("RGB")))


@pytest.mark.parametrize("shape", [(6000, 1), (1, 6000), (1, 3_000_000)])
def test_extreme_shapes_have_a_hash_too(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape[::-1], 3), dtype=np.uint8)
    assert len(picture_hash(Image.fromarray(pixels).convert("RGB"))) in (13, 16)


def test_flat_images_are_told_by_colour_and_grain() -> None:
    """Of one colour they are near-duplicates, of another not; so with even textures."""

    def flat(*colour: int) -> str:
        return picture_hash(Image.new("RGB", (64, 48), colour))

    rng = np.random.default_rng(0)

    def grain(amount: int) -> str:
        pixels = 128 + rng.integers(-amount, amount + 1, (1440, 1440, 1)).repeat(3, 2)
        return picture_hash(Image.fromarray(pixels.astype(np.uint8)))

    hashes = [flat(200, 30, 30), flat(30, 200, 30), flat(202, 31, 28), flat(0, 0, 0), flat(1, 2, 0),
              flat(128, 128, 128), grain(60), grain(60), grain(120)]  # fmt: skip
    assert all(h.startswith("flat:") for h in hashes)
    assert clusters(hashes).tolist() == [0, 1, 0, 2, 2, 3, 4, 4, 5]
    assert not picture_hash(Image.linear_gradient("L").convert("RGB")).startswith("flat:")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_both_relations_are_united(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 25))
    drawn = data.draw(st.lists(st.integers(0, 6), min_size=count, max_size=count))
    like = by_first(np.array(drawn))
    own = data.draw(st.lists(st.sampled_from([None, None, "a", "b", "c"]), min_size=count,
                             max_size=count))  # fmt: skip
    sources = data.draw(st.lists(st.sampled_from("xy"), min_size=count, max_size=count))

    def word(cluster: int) -> bool:
        members = [i for i in range(count) if like[i] == cluster]
        return len({sources[i] for i in members}) == 1 and all(own[i] for i in members)

    def joined(i: int, j: int) -> bool:
        return (like[i] == like[j] and not word(like[i])) or bool(own[i] and own[i] == own[j])

    pairs = [pair for pair in combinations(range(count), 2) if joined(*pair)]
    assert united(like, own, sources).tolist() == plain(count, pairs)
