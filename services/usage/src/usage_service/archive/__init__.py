"""Raw events as Parquet in a blob store: written before a day leaves PostgreSQL, read ever after."""
