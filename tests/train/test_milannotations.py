"""MILANNOTATIONS on a tiny synthetic copy in the published layout."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from milanx.errors import InputError
from milanx.train.data.milannotations import Geometry, Milannotations, image_folder
from milanx.train.data.networks import BASE, DINO, GROUPS, SPLITS, held_out_unit
from milanx.train.data.summaries import clean_description

SIDE, K, UNITS = 28, 4, 30
CROP = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(SIDE)])
SQUASH = transforms.Resize((SIDE, SIDE))


def write_network(root: Path, network: str, units: int = UNITS, seed: int = 0) -> Path:
    """Write one layer of ``units`` with random views, masks and three annotations each."""
    rng = np.random.default_rng(seed)
    folder = root / network / "layer1"
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", rng.integers(0, 256, (units, K, 3, SIDE, SIDE), np.uint8))
    np.save(folder / "masks.npy", rng.integers(0, 2, (units, K, 1, SIDE, SIDE), np.uint8))
    np.savetxt(folder / "ids.csv", rng.integers(0, 12, (units, K)), "%d", ",")
    rows = [(u, f"Images of thing {u} {i}.") for u in range(units) for i in (1, 2, 3)]
    annotate(root / network, rows)
    return folder


def annotate(folder: Path, rows: list[tuple[int, str]]) -> None:
    with (folder / "annotations.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["layer", "unit", "summary"])
        writer.writerows(("layer1", unit, text) for unit, text in rows)


def write_photos(root: Path) -> Path:
    """Write twelve wide and tall photos, smooth and all different, in three classes."""
    rng = np.random.default_rng(7)
    for i in range(12):
        folder = root / f"n{i % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        size = (60, 40) if i % 2 else (40, 52)
        small.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return root


def merge(folder: Path, photos: Path, way: object, floats: bool) -> None:
    """Make images.npy from the photos: what the published tool does when ``way`` squashes."""
    source = ImageFolder(str(photos), transform=way)
    ids = np.loadtxt(folder / "ids.csv", int, delimiter=",")
    images = np.stack([[np.asarray(source[i][0]).transpose(2, 0, 1) for i in row] for row in ids])
    np.save(folder / "images.npy", (images / 255).astype(np.float32) if floats else images)


def test_groups_and_splits_are_the_published_ones() -> None:
    assert len(BASE) == 6 and DINO not in BASE
    assert GROUPS["imagenet"] == ("alexnet/imagenet", "resnet152/imagenet", "biggan/imagenet")
    assert GROUPS["cls"] + GROUPS["gen"] == BASE
    assert sum(name.startswith("not-") for name in GROUPS) == 6
    kinds = {"within-network": 6, "across-network": 2, "across-dataset": 2, "across-task": 2,
             "across-arch": 1, "leave-one-out": 6}  # fmt: skip
    for kind, count in kinds.items():
        assert sum(name.startswith(f"{kind}/") for name in SPLITS) == count
    for name, split in SPLITS.items():
        assert split.within or not set(split.train) & set(split.test), name
    assert SPLITS["leave-one-out/biggan-places365"].test == ("biggan/places365",)


def test_within_a_network_no_unit_is_on_both_sides(tmp_path: Path) -> None:
    write_network(tmp_path, "alexnet/places365", units=200)
    parts = {p: Milannotations(tmp_path, "alexnet/places365", p) for p in ("train", "test", "all")}
    train, test = ({u.unit for u in parts[p].units} for p in ("train", "test"))
    assert not train & test
    assert train | test == {u.unit for u in parts["all"].units} == set(range(200))
    assert 8 <= len(test) <= 35
    again = Milannotations(tmp_path, "alexnet/places365", "test")
    assert again.units == parts["test"].units
    other = Milannotations(tmp_path, "alexnet/places365", "test", seed=1)
    assert {u.unit for u in other.units} != test


def test_the_rule_of_the_split_never_changes() -> None:
    held = [u for u in range(40) if held_out_unit("resnet152/imagenet", "layer4", u)]
    from milanx.images.splits import held_out

    assert held == [u for u in range(40) if held_out(f"resnet152 layer4 {u}", 0.1)]


def test_arrays_are_mapped_and_read_unit_by_unit(tmp_path: Path) -> None:
    folder = write_network(tmp_path, "biggan/imagenet")
    data = Milannotations(tmp_path, "biggan/imagenet")
    images, masks = np.load(folder / "images.npy"), np.load(folder / "masks.npy")
    arrays = data._layers["biggan/imagenet", "layer1"]
    assert isinstance(arrays.images, np.memmap) and isinstance(arrays.masks, np.memmap)
    seen = 0
    for unit, view, mask in data:
        assert view.dtype == mask.dtype == np.uint8
        np.testing.assert_array_equal(view, images[unit.row])
        np.testing.assert_array_equal(mask, masks[unit.row])
        assert unit.descriptions == tuple(f"thing {unit.unit} {i}" for i in (1, 2, 3))
        seen += 1
    assert seen == len(data) == UNITS
    assert data.geometry == {"biggan/imagenet": Geometry.SHIPPED}


def test_few_annotations_are_left_out_and_many_cut(tmp_path: Path) -> None:
    write_network(tmp_path, "alexnet/places365", units=4)
    texts = {0: ["a", "b"], 1: ["a", "b", "c", "d"], 2: ["a", " .", "c"], 9: ["a", "b", "c"]}
    rows = [(unit, text) for unit, of_unit in texts.items() for text in of_unit]
    annotate(tmp_path / "alexnet/places365", rows)
    data = Milannotations(tmp_path, "alexnet/places365")
    assert [(u.unit, u.descriptions) for u in data.units] == [(1, ("a", "b", "c"))]
    assert "2 units with fewer than 3" in data.notes[0]
    assert "1 annotated units are not in its arrays" in data.notes[1]


def test_units_npy_says_which_unit_a_row_is(tmp_path: Path) -> None:
    folder = write_network(tmp_path, "biggan/places365", units=3)
    np.save(folder / "units.npy", np.array([5, 0, 2]))
    annotate(tmp_path / "biggan/places365", [(u, f"t{u}") for u in (0, 2, 5) for _ in range(3)])
    data = Milannotations(tmp_path, "biggan/places365")
    assert {u.unit: u.row for u in data.units} == {5: 0, 0: 1, 2: 2}
    images = np.load(folder / "images.npy")
    for unit in data.units:
        np.testing.assert_array_equal(data.views(unit), images[unit.row])
        assert unit.descriptions[0] == f"t{unit.unit}"
    np.save(folder / "units.npy", np.array([5, 0]))
    with pytest.raises(InputError, match="names 2 units"):
        Milannotations(tmp_path, "biggan/places365")


def test_image_folder_order_is_torchvisions(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "val")
    (photos / "n1" / "deeper").mkdir()
    (photos / "n1" / "1.png").rename(photos / "n1" / "deeper" / "z.JPEG")
    (photos / "n2" / "notes.txt").write_text("no photo")
    expected = [Path(path) for path, _ in ImageFolder(str(photos)).samples]
    assert image_folder(photos) == expected


@pytest.mark.parametrize("floats", [True, False])
def test_squashed_views_are_found_and_made_anew(tmp_path: Path, floats: bool) -> None:
    folder = write_network(tmp_path, "alexnet/imagenet", units=5)
    photos = write_photos(tmp_path / "imagenet" / "val")
    merge(folder, photos, SQUASH, floats)
    data = Milannotations(tmp_path, "alexnet/imagenet")
    assert data.geometry["alexnet/imagenet"] is Geometry.REMADE
    assert any("squashed" in note for note in data.notes)
    source = ImageFolder(str(photos), transform=CROP)
    ids = np.loadtxt(folder / "ids.csv", int, delimiter=",")
    for unit in data.units:
        expected = [np.asarray(source[i][0]).transpose(2, 0, 1) for i in ids[unit.row]]
        np.testing.assert_array_equal(data.views(unit), np.stack(expected))


def test_cropped_views_are_left_as_they_are(tmp_path: Path) -> None:
    folder = write_network(tmp_path, "alexnet/imagenet", units=5)
    photos = write_photos(tmp_path / "elsewhere")
    merge(folder, photos, CROP, floats=False)
    data = Milannotations(tmp_path, "alexnet/imagenet", photos=photos)
    assert data.geometry["alexnet/imagenet"] is Geometry.ALIGNED and not data.notes
    np.testing.assert_array_equal(data.views(data.units[2]), np.load(folder / "images.npy")[2])


def test_other_photos_are_told_from_the_right_ones(tmp_path: Path) -> None:
    write_network(tmp_path, "alexnet/imagenet", units=5)  # views of noise
    data = Milannotations(tmp_path, "alexnet/imagenet", photos=write_photos(tmp_path / "p"))
    assert data.geometry["alexnet/imagenet"] is Geometry.OTHER and "neither" in data.notes[0]


def test_without_photos_what_cannot_be_known_is_said(tmp_path: Path) -> None:
    folder = write_network(tmp_path, "alexnet/imagenet", units=5)
    data = Milannotations(tmp_path, "alexnet/imagenet")
    assert data.geometry["alexnet/imagenet"] is Geometry.UNKNOWN
    assert "cannot be checked" in data.notes[0]
    photos = write_photos(tmp_path / "elsewhere")
    merge(folder, photos, SQUASH, floats=True)
    data = Milannotations(tmp_path, "alexnet/imagenet")
    assert data.geometry["alexnet/imagenet"] is Geometry.MERGED
    whole = np.load(folder / "images.npy")[0]
    np.testing.assert_allclose(data.views(data.units[0]) / 255, whole, atol=1 / 255)


def test_views_are_made_where_the_archive_has_none(tmp_path: Path) -> None:
    folder = write_network(tmp_path, "resnet152/imagenet", units=3)
    (folder / "images.npy").unlink()
    with pytest.raises(InputError, match=r"imagenet/val"):
        Milannotations(tmp_path, "resnet152/imagenet")
    photos = write_photos(tmp_path / "imagenet" / "val")
    data = Milannotations(tmp_path, "resnet152/imagenet")
    assert data.geometry["resnet152/imagenet"] is Geometry.REMADE
    first = int(np.loadtxt(folder / "ids.csv", int, delimiter=",")[0, 0])
    expected = np.asarray(CROP(Image.open(image_folder(photos)[first]))).transpose(2, 0, 1)
    np.testing.assert_array_equal(data.views(data.units[0])[0], expected)
    np.savetxt(folder / "ids.csv", np.full((3, K), 12), "%d", ",")
    data = Milannotations(tmp_path, "resnet152/imagenet")
    with pytest.raises(InputError, match="holds 12 photos"):
        data.views(data.units[0])


def test_errors_are_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean base"):
        Milannotations(tmp_path, "bases")
    with pytest.raises(InputError, match=r"annotations\.csv is missing"):
        Milannotations(tmp_path, "gen")
    folder = write_network(tmp_path, "biggan/imagenet", units=3)
    np.save(folder / "masks.npy", np.array([{"a": 1}] * 3, object), allow_pickle=True)
    with pytest.raises(InputError, match=r"masks\.npy cannot be read"):
        Milannotations(tmp_path, "biggan/imagenet")
    (folder / "masks.npy").unlink()
    with pytest.raises(InputError, match=r"masks\.npy is missing"):
        Milannotations(tmp_path, "biggan/imagenet")
    (folder.parent / "annotations.csv").write_text("layer,unit\nlayer1,0\n")
    with pytest.raises(InputError, match="lacks the column summary"):
        Milannotations(tmp_path, "biggan/imagenet")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Images of dogs.", "dogs"),
        ("all of the pictures show  different kinds of Birds", "birds"),
        ("These are pictures of animal faces", "animal faces"),
        ("rounded edges in pictures", "rounded edges"),
        ("there are people in the water", "people in the water"),
        ("a dog that shows its teeth", "a dog that shows its teeth"),
        ("picture frames", "picture frames"),
        ("pictures", "pictures"),
        ("photo of", "photo of"),
        ("kinds of", "kinds of"),
        ("view of the sky from a window", "the sky from a window"),
    ],
)
def test_cleaning(text: str, expected: str) -> None:
    assert clean_description(text) == expected
