"""What the server is for, on the two real models, through OpenAI's own client."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.server import BASE, INSTRUCT, Server

QUESTION = "What is the capital of Australia?"

# Rounding decides between two equally likely tokens, and batched kernels round differently from
# those for one row, so a computed and a cached prompt may continue differently. Tests compare texts
# only if every token of the greedy answer leads by at least 0.4 nats.
SURE_QUESTION = {INSTRUCT: "What is 2+2?", BASE: QUESTION}


def ask(client: OpenAI, model: str, question: str = QUESTION, **options: object) -> str:
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        **({"temperature": 0, "max_tokens": 60} | options),  # type: ignore[call-overload]
    )
    content: str = answer.choices[0].message.content
    return content


def test_the_base_model_continues_text(client: OpenAI) -> None:
    answer = client.completions.create(
        model=BASE, prompt="The cat sat on the", max_tokens=12, temperature=0
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "length"
    assert choice.text.startswith(" ")
    assert len(choice.text.split()) >= 5
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12


def test_the_instruct_model_answers_and_stops_by_itself(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=INSTRUCT, messages=[{"role": "user", "content": QUESTION}], temperature=0
    )
    assert "Canberra" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"


def test_the_base_model_chats_through_the_transcript_and_invents_no_human(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=BASE,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=200,
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "stop"
    assert choice.message.content
    assert not choice.message.content.startswith(" ")
    assert "Human:" not in choice.message.content


def test_the_stream_is_the_answer_in_pieces(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=INSTRUCT,
            messages=[{"role": "user", "content": SURE_QUESTION[INSTRUCT]}],
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    pieces = [
        c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content
    ]
    assert len(pieces) > 3
    assert "".join(pieces) == ask(client, INSTRUCT, SURE_QUESTION[INSTRUCT])
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_seed_minus_one_is_a_new_seed_each_time(client: OpenAI) -> None:
    texts = {
        ask(client, INSTRUCT, "Tell me a story.", temperature=1, seed=-1, max_tokens=24)
        for _ in range(3)
    }
    assert len(texts) > 1


def test_the_bos_of_an_echoed_prompt_takes_no_room_in_its_text(client: OpenAI) -> None:
    (choice,) = client.completions.create(
        model=BASE, prompt="a", echo=True, max_tokens=0, logprobs=0
    ).choices
    assert choice.text == "a"
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == ["<bos>", "a"]
    assert choice.logprobs.text_offset == [0, 0]


def test_the_same_seed_gives_the_same_answer(client: OpenAI) -> None:
    """Unit tests check exact repetition on a model that does not round.

    Here cells and batches differ from run to run, and a quantised model rounds accordingly, so a
    token may change: at least two of three short answers must be equal.
    """

    def sample(seed: int) -> str:
        question = "Tell me about the sea."
        return ask(client, INSTRUCT, question, temperature=0.7, seed=seed, max_tokens=12)

    answers = [sample(11) for _ in range(3)]
    assert len(set(answers)) < 3
    assert sample(12) not in answers


def test_several_answers_come_from_one_prompt(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=INSTRUCT,
        messages=[{"role": "user", "content": "Name a colour."}],
        n=3,
        max_tokens=8,
        temperature=1.2,
        seed=3,
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 24


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(client: OpenAI) -> None:
    whole = ask(client, INSTRUCT)
    assert "Canberra" in whole
    assert ask(client, INSTRUCT, stop=["Canberra"]) == whole.split("Canberra")[0]


def test_a_returning_chat_takes_its_history_from_the_cache(client: OpenAI) -> None:
    story = "Once upon a time there was a small town at the foot of a mountain. " * 20
    history: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": story + "Who lived there?"}
    ]
    first = client.chat.completions.create(
        model=INSTRUCT,
        messages=history,
        temperature=0,
        max_tokens=16,
    )
    history += [
        {"role": "assistant", "content": first.choices[0].message.content or ""},
        {"role": "user", "content": "And then?"},
    ]
    second = client.chat.completions.create(
        model=INSTRUCT,
        messages=history,
        temperature=0,
        max_tokens=4,
    )
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached is not None
    assert cached >= first.usage.prompt_tokens


def test_an_answer_written_in_unusual_tokens_comes_back_from_the_cache(client: OpenAI) -> None:
    """The tokenizer cuts the texts of such answers into other tokens than the model wrote."""
    compared = 0
    for seed in range(8):
        history: list[ChatCompletionMessageParam] = [
            {"role": "user", "content": f"Write down {seed} strange words."}
        ]
        first = client.chat.completions.create(
            model=INSTRUCT, messages=history, temperature=2, seed=seed, max_tokens=20
        )
        content = first.choices[0].message.content or ""
        history += [
            {"role": "assistant", "content": content},
            {"role": "user", "content": "And then?"},
        ]
        second = client.chat.completions.create(model=INSTRUCT, messages=history, max_tokens=1)
        assert first.usage is not None
        assert second.usage is not None
        assert second.usage.prompt_tokens_details is not None
        if "\N{REPLACEMENT CHARACTER}" in content:
            continue  # bytes that are no text cannot come back
        compared += 1
        written = first.usage.prompt_tokens + first.usage.completion_tokens
        # The last token was chosen but never computed.
        assert second.usage.prompt_tokens_details.cached_tokens == written - 1
    assert compared >= 4


def test_sixteen_requests_at_a_time_against_both_models(server: Server) -> None:
    client = server.client()
    alone = {model: ask(client, model, question) for model, question in SURE_QUESTION.items()}
    jobs = [INSTRUCT, BASE] * 8
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda model: ask(client, model, SURE_QUESTION[model]), jobs))
    same = [answer == alone[model] for model, answer in zip(jobs, answers, strict=True)]
    assert sum(same) >= 14
    assert set(server.worker_pids()) >= {INSTRUCT, BASE}


def test_the_model_list_says_kind_reasons_context_and_template(server: Server) -> None:
    models = {m["id"]: m for m in httpx.get(f"{server.url}/v1/models").json()["data"]}
    assert models[INSTRUCT]["kind"] == "instruct"
    assert models[BASE]["kind"] == "base"
    for model in (INSTRUCT, BASE):
        one = httpx.get(f"{server.url}/v1/models/{model}").json()
        assert one["object"] == "model"
        assert one["kind_reasons"]
        assert one["context"] > 0
        assert one["template_source"]


def test_an_unknown_model_is_404_in_openais_shape(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "no-such-model")
    assert caught.value.code == "model_not_found"
    assert caught.value.type == "invalid_request_error"


def test_too_long_a_prompt_is_refused_with_both_counts_and_the_field(client: OpenAI) -> None:
    words = "word " * 9000
    with pytest.raises(openai.BadRequestError, match=r"8192 tokens.*has \d{4,} tokens") as chat:
        client.chat.completions.create(
            model=INSTRUCT, messages=[{"role": "user", "content": words}]
        )
    with pytest.raises(openai.BadRequestError, match=r"8192 tokens.*has \d{4,} tokens") as text:
        client.completions.create(model=INSTRUCT, prompt=words)
    assert chat.value.code == text.value.code == "context_length_exceeded"
    assert (chat.value.param, text.value.param) == ("messages", "prompt")


def test_malformed_json_is_400(server: Server) -> None:
    answer = httpx.post(
        f"{server.url}/v1/chat/completions",
        content=b'{"model": ',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such policy")
def test_the_api_process_gives_way_to_the_threads_that_compute(
    client: OpenAI, server: Server
) -> None:
    ask(client, INSTRUCT)
    of_the_api = os.sched_getscheduler(server.process.pid)
    of_the_worker = os.sched_getscheduler(server.worker_pids()[INSTRUCT])
    assert (of_the_api, of_the_worker) == (os.SCHED_BATCH, os.SCHED_OTHER)


def test_a_killed_worker_ends_its_stream_with_an_error_and_the_next_request_works(
    server: Server,
) -> None:
    client = server.client()
    stream = client.chat.completions.create(
        model=INSTRUCT,
        messages=[{"role": "user", "content": "Tell me a very long story."}],
        stream=True,
        max_tokens=2000,
        extra_body={"ignore_eos": True},
    )
    other = client.completions.create(model=BASE, prompt="One, two,", max_tokens=4)
    next(chunk for chunk in stream if chunk.choices[0].delta.content)
    pids = server.worker_pids()
    os.kill(pids[INSTRUCT], signal.SIGKILL)
    with pytest.raises(openai.APIError) as caught:
        for _ in stream:
            pass
    assert "worker" in str(caught.value)
    assert "Canberra" in ask(client, INSTRUCT)
    assert server.worker_pids()[BASE] == pids[BASE]
    assert server.worker_pids()[INSTRUCT] != pids[INSTRUCT]
    assert other.choices[0].text
