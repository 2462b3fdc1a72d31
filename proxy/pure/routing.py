"""Which route takes a request, and what target the upstream gets. The first route that matches wins."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.words.plan import RoutePlan


class Routes:
    """An ordered list of routes, ready to match. `host` headers are compared without port and case."""

    __slots__ = ("_only", "_routes")

    def __init__(self, routes: Sequence[RoutePlan]) -> None:
        self._routes = tuple(routes)
        first = self._routes[0] if len(self._routes) == 1 else None
        self._only = first if first and not first.path_prefix and not first.match_host else None

    def match(self, host: str, path: str) -> RoutePlan | None:
        """`path` has no query. None: no route takes it."""
        if self._only is not None:
            return self._only
        name = host_name(host)
        for route in self._routes:
            if route.match_host and route.match_host != name:
                continue
            if below(path, route.path_prefix):
                return route
        return None


def below(path: str, prefix: str) -> bool:
    """`/a` matches `/a` and `/a/b`, not `/ab`."""
    return not prefix or path == prefix or path.startswith(prefix + "/")


def host_name(host: str) -> str:
    """A Host header without its port, lower case."""
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit() and not (":" in name and not name.endswith("]")):
        host = name
    return host.strip("[]").lower()


def origin_form(target: str) -> str:
    """A request target as a server gets it: `http://host/path` -> `/path`. The rest stays as it came.

    The authority of an absolute target is dropped on purpose: only the configuration says where requests go.
    """
    if target.startswith("/") or target == "*":
        return target
    scheme, separator, rest = target.partition("://")
    if not separator or not scheme.isalnum():
        return "/" + target
    slash = min((i for i in (rest.find("/"), rest.find("?")) if i >= 0), default=len(rest))
    path = rest[slash:]
    return path if path.startswith("/") else "/" + path


def upstream_target(route: RoutePlan, target: str) -> str:
    """The raw path and query that go upstream: `base` + target, without the prefix if the route strips it."""
    if route.strip_prefix and route.path_prefix and target.startswith(route.path_prefix):
        target = target[len(route.path_prefix) :]
        if not target.startswith("/"):
            target = "/" + target
    return route.base + target if target != "*" else target
