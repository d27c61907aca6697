"""The product: documents with attachments, built on the library as any team would build theirs."""
