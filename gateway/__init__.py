"""OpenAI-compatible embedding gateway: one text, one vector."""

__version__ = "0.1.0"
