"""The composition of the service: these lines are all that ties the product to the backbone."""

from fastapi import FastAPI

from app_service import documents_api, exports_api, files_api
from app_service.flags import open_flags
from app_service.settings import AppSettings
from tenantry import Tenancy
from tenantry.http import service_app

SERVICE = "app"
REQUEST_EVENT = "app.request"
UPLOAD = "PUT /v1/documents/{document_id}/files/{name}"


def create_app(settings: AppSettings, tenancy: Tenancy) -> FastAPI:
    """The product over HTTP, on a tenancy that its caller opens and closes."""
    app = service_app(
        title="Documents",
        service=SERVICE,
        max_body_bytes=settings.max_body_bytes,
        body_limits={UPLOAD: settings.max_file_bytes},
    )
    app.state.max_file_bytes = settings.max_file_bytes
    app.state.flags = open_flags(tenancy)
    app.include_router(documents_api.router)
    app.state.export_days = settings.export_days
    app.include_router(files_api.router)
    app.include_router(exports_api.router)
    tenancy.install(app, meter_requests=REQUEST_EVENT)
    return app
