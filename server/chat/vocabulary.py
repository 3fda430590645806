"""Moved: import from server.vocabulary (this file goes away)."""

from server.vocabulary import SpecialToken as SpecialToken
from server.vocabulary import TokenType as TokenType
from server.vocabulary import Vocabulary as Vocabulary
