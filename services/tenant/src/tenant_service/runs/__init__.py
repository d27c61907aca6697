"""Durable sagas: runs, their steps, and the worker that carries them out."""
