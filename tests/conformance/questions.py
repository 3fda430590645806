"""A small multiple-choice task: what is said before a blank, and four ways to go on."""

from __future__ import annotations

QUESTIONS: list[tuple[str, list[str], int]] = [
    ("The capital of France is", [" Paris", " a banana", " Madrid", " yesterday"], 0),
    ("The sky on a clear day is", [" angry", " blue", " wooden", " square"], 1),
    ("Cats and dogs are both", [" colours", " cities", " animals", " verbs"], 2),
    ("Cows give us", [" coal", " petrol", " wool", " milk"], 3),
    ("The opposite of hot is", [" cold", " warm", " loud", " red"], 0),
    ("Fish live in the", [" oven", " water", " desert", " attic"], 1),
    ("A week has seven", [" months", " hours", " days", " years"], 2),
    ("The sun rises in the", [" south", " north", " west", " east"], 3),
    ("Bread is made from", [" flour", " glass", " iron", " paper"], 0),
    ("A triangle has three", [" wheels", " sides", " doors", " stories"], 1),
    ("The largest planet of the solar system is", [" Mars", " Venus", " Jupiter", " Pluto"], 2),
    ("Romeo and Juliet was written by", [" Newton", " Mozart", " Picasso", " Shakespeare"], 3),
    ("Ice melts and becomes", [" water", " sand", " wood", " steel"], 0),
    ("The author of a book is called a", [" baker", " writer", " driver", " sailor"], 1),
    ("The heart pumps", [" air", " milk", " blood", " oil"], 2),
    ("At night we see the", [" rainbow", " noon", " sunrise", " moon"], 3),
    ("The currency of Japan is the", [" yen", " dollar", " pound", " peso"], 0),
    ("The chemical formula of water is", [" gold", " H2O", " salt", " CO"], 1),
    ("A dog is an", [" orange", " engine", " animal", " island"], 2),
    ("The first month of the year is", [" May", " June", " August", " January"], 3),
]


def description(question: tuple[str, list[str], int]) -> dict[str, object]:
    """A question as the evaluator reads it."""
    text, choices, answer = question
    return {"question": text, "choices": choices, "answer": answer}
