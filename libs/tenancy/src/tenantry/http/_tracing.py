"""The span of a request."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tenantry._tracing import TENANT_ATTRIBUTE, span
from tenantry.http._exchange import HttpExchange
from tenantry.http._metrics import METHODS
from tenantry.http._routes import route_template

_FAILED: Final = 500


@contextmanager
def server_span(exchange: HttpExchange, traceparent: str | None) -> Iterator[None]:
    """A span around a request, named after its route's template: no id and nothing that a caller chose is in it."""
    method = exchange.scope["method"] if exchange.scope["method"] in METHODS else "_OTHER"
    with span(method, "server", parent=traceparent, attributes={"http.request.method": method}) as started:
        try:
            yield
        finally:
            if started is not None:
                template = route_template(exchange.scope)
                started.update_name(f"{method} {template}")
                started.set_attribute("http.route", template)
                started.set_attribute("http.response.status_code", exchange.status)
                if exchange.tenant is not None:
                    started.set_attribute(TENANT_ATTRIBUTE, str(exchange.tenant.id))
                if exchange.status >= _FAILED:
                    started.set_attribute("error.type", str(exchange.status))
