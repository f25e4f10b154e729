"""How a face is read: which columns it goes into, by how many embeddings, and what is joined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ModelError
from appliance.types import Image, Vector
from appliance.vision.occlusion import FILLED_WITH, HIDDEN, Hidden, Part, Told, area
from appliance.vision.reader import COLUMNS, WHOLE, Reader, certain, open_part

DIM = 4
ALL = (WHOLE, *COLUMNS)


class Says:
    """An embedder that always answers alike, and keeps what it was given."""

    side, model_id = 112, "says"

    def __init__(self, place: int, dim: int = DIM) -> None:
        self.dim = dim
        self._vector: Vector = np.zeros(dim, np.float32)
        self._vector[place] = 1
        self.given: list[Image] = []

    def embed(self, crop: Image) -> Vector:
        self.given.append(crop.copy())
        return self._vector.copy()

    def forget(self) -> None:
        self.given.clear()


class Tells:
    """A classifier that always says the same."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def tell(self, crop: Image) -> Told:
        del crop
        return self._told

    def forget(self) -> None:
        """Nothing is kept."""


def crop() -> Image:
    return np.random.default_rng(3).integers(0, 256, (112, 112, 3), np.uint8)


def read(told: Told, columns: tuple[str, ...] = ALL) -> tuple[dict[str, Vector], Says, Says]:
    whole, hidden = Says(0), Says(1)
    reader = Reader(embedder=whole, hidden=hidden, teller=Tells(told))
    return reader.read(crop(), columns).vectors, whole, hidden


@pytest.mark.parametrize("part", COLUMNS)
def test_a_hidden_face_is_what_both_embedders_say(part: Part) -> None:
    vectors, whole, hidden = read(Told(part, 0.99, "none"))
    assert set(vectors) == {part}
    assert (vectors[part][:2] > 0.3).all()
    assert (vectors[part][2:] == 0).all()
    assert (whole.given[0] == crop()).all()
    assert (hidden.given[0][area(part)] == FILLED_WITH).all()
    assert (hidden.given[0][~area(part)] == crop()[~area(part)]).all()


def test_a_bare_face_costs_one_embedding() -> None:
    vectors, whole, hidden = read(Told("none", 0.9, "eyes"))
    assert set(vectors) == {WHOLE}
    assert (len(whole.given), len(hidden.given)) == (1, 0)


@given(
    st.sampled_from(HIDDEN), st.sampled_from(HIDDEN), st.floats(0.2, 1.0),
    st.sets(st.sampled_from(ALL)),
)  # fmt: skip
def test_no_face_costs_more_than_two_embeddings_or_goes_where_there_is_nothing(
    first: Hidden, second: Hidden, probability: float, columns: set[str]
) -> None:
    vectors, whole, hidden = read(Told(first, probability, second), tuple(columns))
    assert len(whole.given) <= 1
    assert len(hidden.given) <= 1
    assert set(vectors) <= columns
    assert all(abs(np.linalg.norm(vector) - 1) < 1e-5 for vector in vectors.values())


def test_too_much_is_not_read_and_of_two_parts_the_likelier_one_is() -> None:
    assert read(Told("too-much", 0.95, "lower"))[0] == {}
    assert set(read(Told("lower", 0.5, "eyes"))[0]) == {"lower"}
    assert set(read(Told("none", 0.5, "eyes"))[0]) == {WHOLE, "eyes"}


def test_a_template_is_made_of_the_same_two_and_of_one_if_the_photograph_is_hidden() -> None:
    whole, hidden = Says(0), Says(1)
    face = crop()
    template = open_part(face, "lower", hidden, whole)
    assert (len(whole.given), len(hidden.given)) == (1, 2)
    assert template.tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0, 0])
    assert (face == crop()).all()
    assert open_part(face, "lower", hidden, None).tolist() == [0, 1, 0, 0]


def test_vectors_that_cannot_be_joined_are_refused() -> None:
    with pytest.raises(ModelError, match="gives 3 numbers, the other one 4"):
        Reader(embedder=Says(0), hidden=Says(1, dim=3), teller=None)


def test_a_bare_face_is_believed_sooner_than_a_hidden_one() -> None:
    assert certain(Told("none", 0.87, "eyes"))
    assert not certain(Told("eyes", 0.87, "none"))
