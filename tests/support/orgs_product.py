"""A product as a company has it before it takes the library: `org_id bigint`, identity keys, its own table of tenants.

Its models are as they were, but for the mark `TenantScoped`; some of its routes are async and some are not.
"""

from fastapi import FastAPI
from sqlalchemy import BigInteger, ForeignKeyConstraint, Identity, select
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tenantry import NotFound, SyncTenantReadSession, SyncTenantSession, Tenancy, TenantReadSession, TenantSession
from tenantry.database import TenantColumn, TenantScoped

ORG = TenantColumn("org_id", "bigint", setting="app.org_id")
TABLES = ("project", "task", "comment", "label", "task_label", "attachment")


class Base(AsyncAttrs, DeclarativeBase):
    pass


class Project(TenantScoped, Base):
    __tablename__ = "project"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    org_id: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str]
    tasks: Mapped[list["Task"]] = relationship(back_populates="project")


class Task(TenantScoped, Base):
    __tablename__ = "task"
    __table_args__ = (ForeignKeyConstraint(["org_id", "project_id"], ["project.org_id", "project.id"]),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    org_id: Mapped[int] = mapped_column(BigInteger)
    project_id: Mapped[int] = mapped_column(BigInteger)
    title: Mapped[str]
    project: Mapped[Project] = relationship(back_populates="tasks")


app = FastAPI()


@app.post("/projects", status_code=201)
async def add_project(new: dict[str, str], session: TenantSession) -> dict[str, int]:
    project = Project(name=new["name"])
    session.add(project)
    await session.flush()
    return {"id": project.id}


@app.get("/projects")
async def list_projects(session: TenantReadSession) -> list[str]:
    return list(await session.scalars(select(Project.name).order_by(Project.name)))


@app.post("/projects/{project_id}/tasks", status_code=201)
def add_task(project_id: int, new: dict[str, str], session: SyncTenantSession) -> dict[str, int]:
    if session.get(Project, project_id) is None:
        raise NotFound
    task = Task(project_id=project_id, title=new["title"])
    session.add(task)
    session.flush()
    return {"id": task.id}


@app.get("/projects/{project_id}/tasks")
def list_tasks(project_id: int, session: SyncTenantReadSession) -> list[str]:
    project = session.get(Project, project_id)
    if project is None:
        raise NotFound
    return sorted(task.title for task in project.tasks)


@app.get("/tasks")
def list_all_tasks(session: SyncTenantReadSession) -> list[str]:
    return sorted(session.scalars(select(Task.title)))


def install(tenancy: Tenancy) -> FastAPI:
    """The application on `tenancy`; the routes are the same each time."""
    product = FastAPI(lifespan=tenancy.lifespan)
    product.router.routes.extend(app.router.routes)
    tenancy.install(product)
    return product
