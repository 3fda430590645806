"""dragoman: a local inference server for GGUF models that speaks OpenAI's API and Anthropic's."""

__version__ = "0.3.0"
