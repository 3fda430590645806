"""All inputs."""

from __future__ import annotations

from tests.inputs import forms, nonsense, parameters, prompts, schemas

INPUTS = [*prompts.INPUTS, *schemas.INPUTS, *forms.INPUTS, *parameters.INPUTS, *nonsense.INPUTS]
