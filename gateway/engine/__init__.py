"""The engine: a child process that runs one GGUF file with llama.cpp, and nothing else.

It is spoken to over HTTP on a Unix socket, as an upstream is. Nothing outside this package imports
it; the gateway starts `python -m gateway.engine`.
"""
