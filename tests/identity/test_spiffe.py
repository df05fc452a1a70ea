"""SPIFFE ids: what is one, and whom a certificate names."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.errors import ConfigError, IdentityError
from grpclb_core.identity import SpiffeId, check_spiffe_id, parse_spiffe_id

ID = "spiffe://example.org/ns/default/sa/greeter"
EXPECTED = parse_spiffe_id(ID)
DOMAIN = parse_spiffe_id("spiffe://example.org")


class TestParsing:
    @pytest.mark.parametrize("text", [ID, "spiffe://example.org", "spiffe://a_b-c.9/x", "spiffe://d/..."])
    def test_an_id_reads_as_it_is_written(self, text: str) -> None:
        assert str(parse_spiffe_id(text)) == text

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "https://example.org/a",
            "SPIFFE://example.org/a",
            "spiffe://",
            "spiffe:///a",
            "spiffe://Example.org/a",
            "spiffe://example.org:443/a",
            "spiffe://user@example.org/a",
            "spiffe://example.org/",
            "spiffe://example.org/a/",
            "spiffe://example.org/a//b",
            "spiffe://example.org/../b",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a#b",
            "spiffe://example.org/%61",
            "spiffe://example.org/ä",
            "spiffe://example.org/a\n",
            "spiffe://example.org\x00.evil/a",
            "spiffe://" + "a" * 256,
            "spiffe://example.org/" + "a" * 2048,
        ],
    )
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(ConfigError):
            parse_spiffe_id(text)

    @given(st.text(max_size=60).map(lambda rest: "spiffe://" + rest))
    def test_anything_is_read_as_written_or_refused(self, text: str) -> None:
        with contextlib.suppress(ConfigError):
            assert str(parse_spiffe_id(text)) == text


class TestChecking:
    @pytest.mark.parametrize("expected", [EXPECTED, DOMAIN])
    def test_the_workload_itself_or_its_trust_domain(self, expected: SpiffeId) -> None:
        assert check_spiffe_id([ID], expected, "10.0.0.1:50051") == EXPECTED

    @pytest.mark.parametrize(
        ("uris", "message"),
        [
            ([], "has 0 URIs"),
            ([ID, ID], "has 2 URIs"),
            ([ID, "https://example.org"], "has 2 URIs"),
            (["https://example.org"], "names no SPIFFE id"),
            (["spiffe://example.org"], "no workload in it"),
            (["spiffe://example.org/ns/default/sa/other"], "was expected"),
            (["spiffe://example.org.evil/ns/default/sa/greeter"], "was expected"),
            ([ID + "/more"], "was expected"),
        ],
    )
    def test_anyone_else_is_refused(self, uris: list[str], message: str) -> None:
        with pytest.raises(IdentityError, match=message) as raised:
            check_spiffe_id(uris, EXPECTED, "10.0.0.1:50051")
        assert str(raised.value).startswith("10.0.0.1:50051: ")

    def test_a_domain_that_only_begins_alike_is_another(self) -> None:
        with pytest.raises(IdentityError):
            check_spiffe_id(["spiffe://example.organic/a"], DOMAIN, "here")
