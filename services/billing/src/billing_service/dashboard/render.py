"""HTML of the console. One set of templates renders the first page and every live update."""

from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from billing_service.dashboard.view import SPARK_HEIGHT, SPARK_WIDTH, View

STATIC: Final = Path(__file__).parent / "static"

# What the page may do: nothing but its own style, script, stream and pictures.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
FRAGMENTS: Final = ("figures", "tenants", "usage", "invoices", "lags")


class Fragments:
    """The parts of the page that change, by the id of the element that holds each."""

    def __init__(self) -> None:
        environment = Environment(
            loader=PackageLoader("billing_service.dashboard"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals.update(spark_width=SPARK_WIDTH, spark_height=SPARK_HEIGHT)
        self._page = environment.get_template("console.html")
        self._parts = {name: environment.get_template(f"{name}.html") for name in FRAGMENTS}

    def render(self, view: View) -> dict[str, str]:
        return {name: template.render(view=view) for name, template in self._parts.items()}

    def page(self, view: View, subject: str) -> str:
        return self._page.render(view=view, subject=subject)
