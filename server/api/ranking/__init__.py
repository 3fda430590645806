"""Reranking, in the forms of Jina, Cohere and TEI, and scores of pairs in the form of vLLM."""
