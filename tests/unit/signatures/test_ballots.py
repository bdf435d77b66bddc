"""Counting signers: each of them once, and each who signed once, whatever fits whom."""

from __future__ import annotations

import itertools
import random

from layertee.image.digest import Digest
from layertee.signatures.signature import Verified
from layertee.signatures.trust.ballots import Ballot


def verified(place: str) -> Verified:
    return Verified(kind="bundle", signed=Digest.of(b""), place=place)


def ballot(n_signers: int, threshold: int, fits: dict[str, set[int]]) -> Ballot:
    made = Ballot(n_signers, threshold)
    for who, which in fits.items():
        made.add(who, which, verified(who))
    return made


def test_each_counts_once() -> None:
    found = ballot(3, 2, {"a": {0}})
    found.add("a", {0}, verified("again"))
    assert (found.count, found.is_enough) == (1, False)
    assert [one.place for one in found.verified] == ["a"]
    found.add("b", {2}, verified("b"))
    assert (found.count, found.is_enough) == (2, True)


def test_who_fits_two_signers_leaves_one_to_another() -> None:
    assert ballot(2, 2, {"both": {0, 1}, "first": {0}}).is_enough
    assert ballot(2, 2, {"first": {0}, "both": {0, 1}}).is_enough
    assert not ballot(2, 2, {"both": {0, 1}}).is_enough
    assert not ballot(2, 2, {"one": {0}, "other": {0}}).is_enough


def test_who_fits_others_by_another_signature_fits_both() -> None:
    found = ballot(2, 2, {"a": {1}, "b": {1}})
    assert not found.is_enough
    found.add("a", {0}, verified("a again"))
    assert found.is_enough
    assert {one.place for one in found.verified} == {"a again", "b"}


def test_those_that_count_are_told() -> None:
    found = ballot(2, 2, {"a": {0}, "b": {0}, "c": {0, 1}})
    assert found.count == 2
    assert {one.place for one in found.verified} == {"a", "c"}


def test_it_counts_as_many_as_any_choice_would() -> None:
    chance = random.Random(7)
    for _ in range(300):
        n = chance.randint(1, 4)
        fits = {
            str(who): {s for s in range(n) if chance.random() < 0.4} for who in range(chance.randint(0, 5))
        }
        best = 0
        for choice in itertools.product(*[[None, *sorted(each)] for each in fits.values()]):
            taken = [signer for signer in choice if signer is not None]
            if len(set(taken)) == len(taken):
                best = max(best, len(taken))
        assert ballot(n, 1, fits).count == best


def test_many_who_fit_many_are_counted_quickly() -> None:
    fits = {str(who): set(range(64)) for who in range(128)}
    found = ballot(64, 64, fits)
    assert found.is_enough
