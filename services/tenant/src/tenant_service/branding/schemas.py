"""What goes out."""

from pydantic import BaseModel

from tenantry.config import Branding, Logo


class ColoursOut(BaseModel):
    primary: str
    accent: str
    background: str
    text: str


class LogoOut(BaseModel):
    sha256: str
    media_type: str
    width: int
    height: int
    path: str

    @classmethod
    def of(cls, logo: Logo) -> "LogoOut":
        return cls(sha256=logo.sha256, media_type=logo.media_type, width=logo.width, height=logo.height, path=logo.path)


class BrandingOut(BaseModel):
    """How the tenant's pages look; `hints` say what is hard to read, and nothing is refused for it."""

    name: str
    colours: ColoursOut
    logo: LogoOut | None
    support_email: str | None
    website: str | None
    hints: list[str]

    @classmethod
    def of(cls, branding: Branding, tenant_name: str) -> "BrandingOut":
        colours = branding.colours
        return cls(
            name=branding.name or tenant_name,
            colours=ColoursOut(
                primary=colours.primary, accent=colours.accent, background=colours.background, text=colours.text
            ),
            logo=branding.logo and LogoOut.of(branding.logo),
            support_email=branding.support_email,
            website=branding.website,
            hints=list(branding.hints()),
        )
