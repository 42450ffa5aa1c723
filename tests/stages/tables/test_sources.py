"""Folders of pictures and IDX files: samples, their order, and rejects."""

import gzip
import itertools
import os
import pickle
import random
import struct

import numpy as np
import pytest

from stages.core.errors import UserError
from stages.schema import Column, Schema
from stages.tables import sources
from stages.tables.sources import Reject, idx, image_folder
from tests.support.failing import failing

LABEL = Column("label", "target_class")
SPLITS = ("train", "val", "test")
SCHEMA = Schema((Column("image", "image"),), LABEL)


def samples(source, path, schema=SCHEMA):
    """All samples and rejects, with chunks pickled as between processes."""
    chunks = (pickle.loads(pickle.dumps(chunk)) for chunk in source.chunks(path, schema, source.Options()))
    return [found for chunk in chunks for found in source.read(chunk)]


def rejects(source, path):
    return {found.source: found.reason for found in samples(source, path) if isinstance(found, Reject)}


def labels(path):
    found = (each for each in samples(image_folder, path) if not isinstance(each, Reject))
    return {each.source: each.values["label"] for each in found}


@pytest.fixture
def folder(tmp_path):
    """Writes files below a folder."""

    def write(*paths):
        for path in paths:
            (tmp_path / "set" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / path).write_bytes(b"content")
        return tmp_path / "set"

    return write


def test_folders_are_classes(folder):
    path = folder("cat/1.png", "cat/2.png", "dog/3.jpg")
    first, *_ = samples(image_folder, path)
    assert first == sources.Sample("cat/1.png", None, {"image": str(path / "cat/1.png"), "label": "cat"})
    assert labels(path) == {"cat/1.png": "cat", "cat/2.png": "cat", "dog/3.jpg": "dog"}


def test_columns_take_the_names_of_the_schema(folder):
    schema = Schema((Column("photo", "image"),), Column("animal", "target_class"))
    (found,) = samples(image_folder, folder("cat/1.png"), schema)
    assert list(found.values) == ["photo", "animal"]


@pytest.mark.parametrize("source", [image_folder, idx])
def test_several_features_are_an_error_for_picture_formats(source, tmp_path):
    schema = Schema((Column("photo", "image"), Column("rooms", "image")), LABEL)
    with failing(UserError, "params-one-feature", "photo, rooms"):
        samples(source, tmp_path, schema)


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "valid", "TEST"), ("training", "validation", "test")]
)
def test_official_splits(folder, names):
    path = folder(*(f"{name}/{label}/1.png" for name in names for label in ("cat", "dog")))
    found = samples(image_folder, path)
    assert {(each.source.split("/")[0], each.split) for each in found} == set(zip(names, SPLITS, strict=True))
    assert {each.values["label"] for each in found} == {"cat", "dog"}


def test_a_data_set_may_have_only_some_official_splits(folder):
    path = folder("train/cat/1.png", "test/cat/2.png")
    assert [each.split for each in samples(image_folder, path)] == ["test", "train"]


def test_classes_may_have_the_names_of_splits(folder):
    path = folder("train/1.png", "bus/2.png", "test/3.png")
    assert labels(path) == {"bus/2.png": "bus", "test/3.png": "test", "train/1.png": "train"}
    assert {each.split for each in samples(image_folder, path)} == {None}


def test_a_class_folder_beside_splits_is_an_error(folder):
    path = folder("train/cat/1.png", "test/cat/2.png", "cat/3.png")
    with failing(UserError, "data-mixed-folders", "test", "cat"):
        samples(image_folder, path)


def test_unlabeled_official_test_files_are_rejects(folder):
    path = folder("train/cat/1.png", "test/2.png")
    assert rejects(image_folder, path) == {"test/2.png": "lies beside the class folders, not in one"}


def test_nested_files_belong_to_their_class(folder):
    assert labels(folder("cat/a/b/1.png", "cat/2.png", "dog/a/3.png")) == {
        "cat/2.png": "cat",
        "cat/a/b/1.png": "cat",
        "dog/a/3.png": "dog",
    }


def test_files_of_the_operating_system_are_ignored(folder):
    path = folder("cat/1.png", "cat/.hidden.png", ".git/x/1.png", "cat/.cache/1.png", "cat/Thumbs.db", "desktop.ini",
                  "dog/Desktop.ini", "dog/2.png", "__MACOSX/cat/._1.png", ".DS_Store")  # fmt: skip
    assert list(labels(path)) == ["cat/1.png", "dog/2.png"]


def test_samples_are_sorted_by_path(folder, monkeypatch):
    names = [f"{label}/{name}.png" for label in ("b", "a", "a b", "ä") for name in ("10", "9", "Z", "é", "n/1", "n.1")]
    path = folder(*names)
    expected = sorted(names, key=lambda name: [os.fsencode(part) for part in name.split("/")])
    assert list(labels(path)) == expected

    def shuffled(folder, scan=os.scandir):
        class Entries:
            def __enter__(self):
                return iter(random.sample(entries := list(scan(folder)), len(entries)))

            def __exit__(self, *_):
                pass

        return Entries()

    monkeypatch.setattr(os, "scandir", shuffled)
    assert list(labels(path)) == expected


def test_links_out_of_the_data_set_are_rejects(folder, tmp_path):
    path = folder("cat/1.png", "dog/2.png")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (path / "cat/out.png").symlink_to(tmp_path / "secret.png")
    (path / "cat/gone.png").symlink_to("nothing.png")
    (path / "cat/circle.png").symlink_to("circle.png")
    (path / "cat/within.png").symlink_to("../dog/2.png")
    assert rejects(image_folder, path) == {
        "cat/out.png": f"a link out of the data set, to {tmp_path / 'secret.png'}",
        "cat/gone.png": "cannot be read: No such file or directory",
        "cat/circle.png": "cannot be read: Too many levels of symbolic links",
    }
    assert "cat/within.png" in labels(path)


def test_links_into_dvcs_cache_are_followed(folder, tmp_path):
    path = folder("cat/1.png")
    cached = tmp_path / "cache/files/md5/ab" / ("0" * 30)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"content")
    (path / "cat/2.png").symlink_to(cached)
    assert list(labels(path)) == ["cat/1.png", "cat/2.png"]


def test_loops_are_not_followed(folder):
    path = folder("cat/1.png")
    (path / "cat/loop").symlink_to(path)
    (path / "elsewhere").symlink_to("/")
    assert rejects(image_folder, path) == dict.fromkeys(("cat/loop", "elsewhere"), "a link to a folder: not followed")
    assert list(labels(path)) == ["cat/1.png"]


def test_the_data_set_itself_may_be_a_link(folder, tmp_path):
    path = folder("cat/1.png")
    (tmp_path / "link").symlink_to(path)
    assert list(labels(tmp_path / "link")) == ["cat/1.png"]


def test_special_files_are_rejects(folder):
    path = folder("cat/1.png")
    os.mkfifo(path / "cat/pipe.png")
    assert rejects(image_folder, path) == {"cat/pipe.png": "not a file"}


def test_files_beside_the_class_folders_are_rejects(folder):
    path = folder("cat/1.png", "README.txt", "2.png")
    assert rejects(image_folder, path) == dict.fromkeys(
        ("2.png", "README.txt"), "lies beside the class folders, not in one"
    )


def test_names_that_are_not_utf_8(folder):
    path = folder("cat/1.png")
    strange = os.fsencode(path) + b"/d\xffg"
    os.mkdir(strange)
    with open(strange + b"/\xfe.png", "wb") as file:
        file.write(b"content")
    _, found = samples(image_folder, path)
    assert (found.source, found.values["label"]) == (r"d\xffg/\xfe.png", r"d\xffg")
    with open(found.values["image"], "rb") as file:
        assert file.read() == b"content"


def test_very_long_names(folder):
    name = "x" * 251 + ".png"
    deep = "/".join(["y" * 200] * 15)
    assert sorted(labels(folder(f"cat/{name}", f"dog/{deep}/1.png"))) == [f"cat/{name}", f"dog/{deep}/1.png"]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ((), ("data-other-format", "CLASS/FILE")),
        ((".gitignore",), ("data-other-format", "CLASS/FILE")),
        (("1.png", "2.png"), ("data-other-format", "1.png", "CLASS/FILE")),
    ],
)
def test_a_folder_without_classes_is_an_error(folder, tmp_path, paths, expected):
    folder(*paths)
    (tmp_path / "set").mkdir(exist_ok=True)
    with failing(UserError, *expected):
        samples(image_folder, tmp_path / "set")


def test_a_file_instead_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"")
    with failing(UserError, "data-unreadable", "set.zip"):
        samples(image_folder, tmp_path / "set.zip")


def test_chunks_are_bounded_in_files_and_bytes(folder, monkeypatch):
    monkeypatch.setattr(image_folder, "CHUNK_FILES", 3)
    path = folder(*(f"cat/{number}.png" for number in range(7)))
    assert [len(chunk.files) for chunk in image_folder.chunks(path, SCHEMA, image_folder.Options())] == [3, 3, 1]
    monkeypatch.setattr(image_folder, "CHUNK_BYTES", 2 * len(b"content"))
    assert [len(chunk.files) for chunk in image_folder.chunks(path, SCHEMA, image_folder.Options())] == [2, 2, 2, 1]


def test_listing_is_lazy(folder, monkeypatch):
    monkeypatch.setattr(image_folder, "CHUNK_FILES", 2)
    path = folder(*(f"{label}/{number}.png" for label in "abc" for number in range(2)))
    entered = []
    monkeypatch.setattr(os, "scandir", lambda folder, scan=os.scandir: entered.append(folder) or scan(folder))
    next(image_folder.chunks(path, SCHEMA, image_folder.Options()))
    assert os.fsencode(path / "b") not in entered


def packed(array, kind=8):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)
TRAIN = {"train-images-idx3-ubyte": packed(IMAGES), "train-labels-idx1-ubyte": packed(LABELS)}
TEST = {"t10k-images-idx3-ubyte": packed(IMAGES[:2]), "t10k-labels-idx1-ubyte": packed(LABELS[:2])}


@pytest.fixture
def mnist(tmp_path):
    """Write IDX files, gzipped if their name ends in .gz."""

    def write(files):
        for name, content in files.items():
            (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return tmp_path

    return write


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
def test_the_four_files_of_mnist_are_read(mnist, ending, mark):
    files = {name.replace("-idx", f"{mark}idx") + ending: content for name, content in (TRAIN | TEST).items()}
    found = samples(idx, mnist({"LICENSE": b"MIT"} | files))
    assert [each.split for each in found] == ["test"] * 2 + ["train"] * 5
    assert [each.values["label"] for each in found] == ["3", "1", "3", "1", "4", "1", "5"]
    assert np.array_equal([each.values["image"] for each in found[2:]], IMAGES)
    assert found[1].source == f"t10k-images{mark}idx3-ubyte{ending}#1"


def test_pairs_with_other_names_are_read(mnist):
    files = {f"emnist-letters-validation-{name[6:]}": content for name, content in TRAIN.items()}
    files |= {name[6:]: content for name, content in TRAIN.items()}
    assert [each.split for each in samples(idx, mnist(files))] == [None] * 5 + ["val"] * 5


def test_a_file_that_is_also_there_gzipped_is_read_once(mnist):
    assert len(samples(idx, mnist(TRAIN | {f"{name}.gz": content for name, content in TRAIN.items()}))) == 5


def test_color_pictures_in_idx(mnist):
    color = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), np.uint8)
    found = samples(idx, mnist(TRAIN | {"train-images-idx3-ubyte": packed(color)}))
    assert np.array_equal([each.values["image"] for each in found], color)


def test_idx_is_streamed_in_chunks(mnist, monkeypatch):
    monkeypatch.setattr(idx, "CHUNK_ROWS", 2)
    path = mnist({f"{name}.gz": content for name, content in TRAIN.items()})
    assert [len(chunk.labels) for chunk in idx.chunks(path, SCHEMA, idx.Options())] == [2, 2, 1]
    monkeypatch.setattr(idx, "CHUNK_BYTES", 12)
    assert [len(chunk.labels) for chunk in idx.chunks(path, SCHEMA, idx.Options())] == [1] * 5
    assert [each.source[-2:] for each in samples(idx, path)] == ["#0", "#1", "#2", "#3", "#4"]


FAULTS = {
    "wrong magic": (
        {"train-images-idx3-ubyte": packed(LABELS)},
        ("data-damaged", "train-images-idx3-ubyte", "00000801", "0x00000803"),
    ),
    "not bytes but floats": (
        {"train-images-idx3-ubyte": packed(IMAGES.astype(">f4"), 13)},
        ("data-damaged", "00000d03"),
    ),
    "no IDX at all": ({"train-labels-idx1-ubyte": b"<html>"}, ("data-damaged", "3c68746d")),
    "empty": ({"train-labels-idx1-ubyte": b""}, ("data-damaged", "0x00000801")),
    "within its header": ({"train-images-idx3-ubyte": packed(IMAGES)[:9]}, ("data-damaged", "9")),
    "giant": (
        {"train-images-idx3-ubyte": struct.pack(">BBBB3I", 0, 0, 8, 3, 1, 65536, 65536)},
        ("data-damaged", "65536x65536", "268,435,456"),
    ),
    "short": ({"train-images-idx3-ubyte": packed(IMAGES)[:-7]}, ("data-damaged", "53", "60")),
    "long": ({"train-images-idx3-ubyte": packed(IMAGES) + b"more"}, ("data-damaged", "64", "60")),
    "unequal": (
        {"train-labels-idx1-ubyte": packed(LABELS[:4])},
        (
            "data-unpaired",
            "train-images-idx3-ubyte",
            "5",
            "train-labels-idx1-ubyte",
            "4",
        ),
    ),
}
ZIPPED = {
    "short": (("data-damaged", "53", "60"), packed(IMAGES)[:-7]),
    "long": (("data-damaged", "60"), packed(IMAGES) + b"more"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_idx_files_are_an_error(mnist, fault):
    files, expected = FAULTS[fault]
    with failing(UserError, *expected):
        samples(idx, mnist(TRAIN | files))


@pytest.mark.parametrize("fault", ZIPPED)
def test_faulty_gzipped_idx_files_are_an_error(mnist, fault):
    expected, body = ZIPPED[fault]
    files = TRAIN | {"train-images-idx3-ubyte.gz": body}
    del files["train-images-idx3-ubyte"]
    with failing(UserError, *expected):
        samples(idx, mnist(files))


@pytest.mark.parametrize("harm", [lambda zipped: zipped[:-9], lambda zipped: zipped[:50] + b"\xff" + zipped[51:]])
def test_broken_gzip_is_an_error(mnist, harm):
    path = mnist(TRAIN)
    (path / "train-images-idx3-ubyte").write_bytes(harm(gzip.compress(packed(IMAGES))))
    with failing(UserError, "data-unreadable", "train-images-idx3-ubyte"):
        samples(idx, path)


@pytest.mark.parametrize("missing", TRAIN)
def test_a_missing_partner_is_an_error(mnist, missing):
    files = dict(TRAIN)
    del files[missing]
    what = "images" if "images" in missing else "labels"
    with failing(UserError, "data-unpaired", next(iter(files)), what):
        samples(idx, mnist(files))


def test_a_folder_without_idx_files_is_an_error(tmp_path):
    with failing(UserError, "data-other-format", "train-images-idx3-ubyte"):
        samples(idx, tmp_path)


def test_an_unreadable_idx_file_is_an_error(mnist):
    path = mnist({"train-labels-idx1-ubyte": TRAIN["train-labels-idx1-ubyte"]})
    (path / "train-images-idx3-ubyte").symlink_to("nothing")
    with failing(UserError, "data-unreadable", "train-images-idx3-ubyte"):
        samples(idx, path)


def test_each_format_recognizes_its_own_layout(folder, mnist):
    pictures, arrays = folder("cat/1.png"), mnist(TRAIN)
    assert image_folder.claims(pictures)
    assert not idx.claims(pictures)
    assert idx.claims(arrays)
    for source, nothing in itertools.product((image_folder, idx), (arrays / "absent", arrays / next(iter(TRAIN)))):
        assert not source.claims(nothing)
