"""The rules of documents and files: values in, decisions out, no IO."""

from app_service.domain.exports import ExportState, PackedExport, export_state
from app_service.domain.storage import StorageChange, StoredFile
from app_service.domain.text import check_file_name, check_text, normalise_tags

__all__ = [
    "ExportState",
    "PackedExport",
    "StorageChange",
    "StoredFile",
    "check_file_name",
    "check_text",
    "export_state",
    "normalise_tags",
]
