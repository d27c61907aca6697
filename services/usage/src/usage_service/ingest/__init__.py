"""POST /v1/events: from a request to an acknowledgement of Kafka."""
