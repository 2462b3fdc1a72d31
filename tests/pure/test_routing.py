"""Which route takes a request, and what target the upstream gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pure.routing import Routes, below, host_name, origin_form, upstream_target
from proxy.words.plan import RoutePlan


def route(
    name: str = "r", prefix: str = "", host: str = "", base: str = "", strip: bool = False
) -> RoutePlan:
    return RoutePlan(name, "http", "up", 80, base, prefix, host, strip, "")


def test_the_first_match_wins() -> None:
    routes = Routes([route("a", "/x/y"), route("b", host="h"), route("c", "/x"), route("d")])
    for host, path, name in (
        ("h", "/x/y/z", "a"),
        ("H:80", "/x", "b"),
        ("other", "/x", "c"),
        ("other", "/xy", "d"),
        ("", "*", "d"),
    ):
        found = routes.match(host, path)
        assert found is not None
        assert found.name == name
    assert Routes([route("a", "/x"), route("b", host="h")]).match("other", "/") is None
    assert Routes([]).match("h", "/") is None


def test_one_route_without_conditions_takes_everything() -> None:
    only = route()
    assert Routes([only]).match("any", "*") is only


@pytest.mark.parametrize(
    ("path", "prefix", "is_below"),
    [("/a", "/a", True), ("/a/", "/a", True), ("/ab", "/a", False), ("/", "", True), ("/A", "/a", False)],
)
def test_a_prefix_ends_at_a_segment(path: str, prefix: str, is_below: bool) -> None:
    assert below(path, prefix) is is_below


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Example.ORG", "example.org"),
        ("example.org:8080", "example.org"),
        ("[::1]:8080", "::1"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("", ""),
        ("a:b", "a:b"),
    ],
)
def test_a_host_header_is_compared_without_its_port(header: str, name: str) -> None:
    assert host_name(header) == name


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        ("/a?b", "/a?b"),
        ("//a", "//a"),
        ("*", "*"),
        ("http://evil/a?b", "/a?b"),
        ("HTTPS://user:pw@evil:1/a//b", "/a//b"),
        ("http://evil", "/"),
        ("http://evil?q=/x", "/?q=/x"),
        ("/redirect?to=http://evil/", "/redirect?to=http://evil/"),
        ("example.org:443", "/example.org:443"),
    ],
)
def test_the_authority_of_an_absolute_target_is_dropped(target: str, origin: str) -> None:
    assert origin_form(target) == origin


@given(st.text())
def test_a_target_always_becomes_a_path(target: str) -> None:
    assert origin_form(target).startswith("/") or target == "*"


@pytest.mark.parametrize(
    ("plan", "target", "expected"),
    [
        (route(), "/a%2Fb//?", "/a%2Fb//?"),
        (route(base="/v1"), "/a", "/v1/a"),
        (route(prefix="/x"), "/x/a", "/x/a"),
        (route(prefix="/x", strip=True), "/x/a", "/a"),
        (route(prefix="/x", strip=True, base="/v1"), "/x", "/v1/"),
        (route(prefix="/x", strip=True), "/x?q", "/?q"),
        (route(prefix="/x", strip=True), "/x//a", "//a"),
        (route(base="/v1"), "*", "*"),
    ],
)
def test_the_upstream_gets_its_base_and_the_raw_rest(plan: RoutePlan, target: str, expected: str) -> None:
    assert upstream_target(plan, target) == expected


def test_an_authority_names_the_port_only_where_it_must() -> None:
    assert RoutePlan("a", "https", "up", 443, "", "", "", False, "").authority == "up"
    assert RoutePlan("a", "https", "up", 80, "", "", "", False, "").authority == "up:80"
    assert RoutePlan("a", "http", "::1", 8080, "", "", "", False, "").authority == "[::1]:8080"
