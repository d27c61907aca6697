"""Branding: the typed view of the namespace `branding`."""

from typing import Any, Final

import msgspec

from tenantry.config._view import ConfigView

BRANDING: Final = "branding"

# WCAG 2.2, success criterion 1.4.3: the least contrast of text that can be read.
READABLE_CONTRAST: Final = 4.5


class Colours(msgspec.Struct, frozen=True):
    """Colours as `#rrggbb`."""

    primary: str = "#1f4e8c"
    accent: str = "#b4540a"
    background: str = "#ffffff"
    text: str = "#1a1a1a"


class Logo(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that was uploaded; `path` at the tenant service answers without a credential and never changes."""

    sha256: str
    media_type: str
    width: int
    height: int

    @property
    def path(self) -> str:
        return f"/v1/logos/{self.sha256}"


class Branding(msgspec.Struct, frozen=True, kw_only=True):
    """How a tenant's pages and mails look. What nobody has set has a plain default."""

    name: str = ""
    colours: Colours = Colours()
    logo: Logo | None = None
    support_email: str | None = None
    website: str | None = None

    def hints(self) -> tuple[str, ...]:
        """What people with weak sight will not be able to read; nothing of it is refused."""
        pairs = (
            ("text", self.colours.text, "background", self.colours.background),
            ("primary", self.colours.primary, "background", self.colours.background),
            ("accent", self.colours.accent, "background", self.colours.background),
        )
        return tuple(
            f"{front} on {back} has a contrast of {ratio:.1f}; {READABLE_CONTRAST} is the least that is easy to read"
            for front, colour, back, behind in pairs
            if (ratio := contrast(colour, behind)) < READABLE_CONTRAST
        )


def branding_of(view: ConfigView) -> Branding:
    """The branding in a view; what does not have the expected shape (a forced schema, an old document) is left out."""
    document: dict[str, Any] = view.as_dict()
    try:
        return msgspec.convert(document, Branding)
    except msgspec.ValidationError:
        return Branding(name=name if isinstance(name := document.get("name"), str) else "")


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, 1 to 21, as WCAG 2.2 defines it."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(int(colour[place : place + 2], 16) / 255) for place in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
