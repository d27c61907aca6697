"""One form of URL for people (``postgresql://user:password@host:port/database``), the drivers' forms from it."""

from sqlalchemy import URL, make_url


def sqlalchemy_url(url: str) -> URL:
    """The URL for SQLAlchemy on asyncpg; libpq's ``sslmode`` is asyncpg's ``ssl``."""
    parsed = make_url(url).set(drivername="postgresql+asyncpg")
    query = dict(parsed.query)
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    return parsed.set(query=query)


def sync_sqlalchemy_url(url: str) -> URL:
    """The URL for SQLAlchemy on psycopg."""
    return make_url(url).set(drivername="postgresql+psycopg")


def dsn(url: str) -> str:
    """The URL for asyncpg itself."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def with_database(url: str, database: str) -> str:
    """The same server and user, another database."""
    return make_url(url).set(database=database).render_as_string(hide_password=False)


def with_user(url: str, user: str, password: str) -> str:
    """The same server and database, another user."""
    return make_url(url).set(username=user, password=password).render_as_string(hide_password=False)
