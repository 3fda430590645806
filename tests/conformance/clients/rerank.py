"""Clients of rerankers; prints the order in which each has the documents as JSON.

Arguments: the server's URL, the model's id. Standard LangChain and LlamaIndex rerankers call the
same SDK, or post the same bodies to ``/v1/rerank`` (Jina) and ``/rerank`` (TEI).
"""

from __future__ import annotations

import json
import sys

import cohere
import httpx
import litellm

QUERY = "cat"
DOCUMENTS = ["a dog ran", "the cat sat", "x"]


def main(url: str, model: str) -> None:
    """Rank the same documents with each client."""
    told: dict[str, object] = {}
    first = cohere.Client(api_key="unused", base_url=url)
    answer = first.rerank(
        model=model,
        query=QUERY,
        documents=[{"text": text} for text in DOCUMENTS],
        top_n=2,
        return_documents=True,
    )
    told["cohere 1"] = [result.index for result in answer.results]
    told["documents"] = [result.document.text for result in answer.results if result.document]
    second = cohere.ClientV2(api_key="unused", base_url=url)
    ranked = second.rerank(
        model=model, query=QUERY, documents=DOCUMENTS, top_n=2, max_tokens_per_doc=64
    )
    told["cohere 2"] = [result.index for result in ranked.results]
    told["scores"] = [result.relevance_score for result in ranked.results]
    units = ranked.meta.billed_units if ranked.meta else None
    told["search units"] = units.search_units if units else None
    try:
        second.rerank(model=model, query=QUERY, documents=[])
    except cohere.BadRequestError as error:
        told["refused"] = error.body["message"]
    litellm.suppress_debug_info = True
    for provider in ("cohere", "jina_ai", "hosted_vllm"):
        found = litellm.rerank(
            model=f"{provider}/{model}",
            query=QUERY,
            documents=DOCUMENTS,
            top_n=2,
            api_base=f"{url}/v1/rerank",
            api_key="unused",
        )
        told[f"litellm {provider}"] = [result["index"] for result in found.results]
    with httpx.Client(base_url=url) as http:
        body = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": False, "truncate": True}
        texts = http.post("/rerank", json=body).json()
        told["tei"] = [each["index"] for each in texts][:2]
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
