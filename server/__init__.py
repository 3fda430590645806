"""dragoman: a local OpenAI-compatible inference server for GGUF models."""

__version__ = "0.2.0"
