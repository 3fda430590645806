"""OpenAI's Responses: ``POST /v1/responses`` and ``POST /v1/responses/input_tokens``.

Nothing is stored yet: a request brings its whole conversation.
"""
