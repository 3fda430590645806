"""Summaries that stand for conversations: how a model is asked for one, and how one comes back."""

from __future__ import annotations

SUMMARY_TASK = (
    "Sum up this conversation so that it can go on from your summary alone: what was asked for, "
    "what was found out and done, what was decided, and what is left to do. Keep names, paths, "
    "numbers and errors exactly. Write only the summary."
)
MOST_SUMMARY_TOKENS = 2048
"""A choice: some pages."""


def summed_up(summary: str) -> str:
    """What the model reads in place of the conversation that ``summary`` stands for."""
    return f"This is a summary of the conversation so far:\n\n{summary}"
