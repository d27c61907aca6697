"""The operator's console: a page that follows the rollup stream, never the database."""
