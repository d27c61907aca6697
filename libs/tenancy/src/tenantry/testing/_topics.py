"""Clearing away what a test module left in Kafka."""

from aiokafka.admin import AIOKafkaAdminClient

from tenantry.testing._databases import run_aside


def delete_topics(bootstrap: str, prefix: str) -> None:
    """Deletes every topic whose name starts with ``prefix``."""
    run_aside(_delete(bootstrap, prefix))


async def _delete(bootstrap: str, prefix: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        if topics := [name for name in await admin.list_topics() if name.startswith(prefix)]:
            await admin.delete_topics(topics)
    finally:
        await admin.close()
