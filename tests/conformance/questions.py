"""A small multiple-choice task: a text and four continuations."""

from __future__ import annotations

# The best choice leads by more than a nat. In the last two the models choose the usual words.
QUESTIONS: list[tuple[str, list[str], int]] = [
    ("The capital of France is", [" Paris", " a banana", " Madrid", " yesterday"], 0),
    ("The sky on a clear day is", [" angry", " blue", " wooden", " square"], 1),
    ("Cats and dogs are both", [" colours", " cities", " animals", " verbs"], 2),
    ("Romeo and Juliet was written by", [" Newton", " Mozart", " Picasso", " Shakespeare"], 3),
    ("The opposite of hot is", [" cold", " warm", " loud", " red"], 0),
    ("A triangle has three", [" wheels", " sides", " doors", " stories"], 1),
    ("The heart pumps", [" air", " milk", " blood", " oil"], 2),
    ("At night we see the", [" rainbow", " noon", " sunrise", " moon"], 3),
    ("The currency of Japan is the", [" yen", " dollar", " pound", " peso"], 0),
    ("The chemical formula of water is", [" gold", " H2O", " salt", " CO"], 1),
    ("In a world of opposites, a dog is an", [" animal", " engine", " orange", " island"], 2),
    ("In a world of opposites, the sky is", [" blue", " rice", " tired", " brown"], 3),
]


def description(question: tuple[str, list[str], int]) -> dict[str, object]:
    """A question as the evaluator reads it."""
    text, choices, answer = question
    return {"question": text, "choices": choices, "answer": answer}
