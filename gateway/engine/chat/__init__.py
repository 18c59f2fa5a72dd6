"""The engine for chat: what differs from embeddings when a GGUF file is to write text."""
