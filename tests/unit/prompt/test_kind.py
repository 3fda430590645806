"""The kind of a model, judged by its metadata and names."""

import pytest

from server.core.model_kind import detect_kind


@pytest.mark.parametrize(
    ("file_name", "name", "eos", "has_template", "kind"),
    [
        (
            "SmolLM2-135M-Instruct.Q4_1",
            "Smollm2 135M 8k Lc100K Mix1 Ep2",
            "<|im_end|>",
            True,
            "instruct",
        ),
        ("gemma-3-270m-q4_k_m", "Gemma 3 270m", "<eos>", False, "base"),
        ("gemma-3-270m-it-Q8_0", "Gemma 3 270m It", "<end_of_turn>", True, "instruct"),
        ("gemma-3-270m-pt", "Gemma 3 270m Pt", "<eos>", False, "base"),
        # Qwen2.5's base files carry a chat template.
        ("qwen2.5-0.5b", "Qwen2.5 0.5B", "<|endoftext|>", True, "base"),
        ("Qwen2.5-0.5B-base", "Qwen2.5 0.5B", "<|im_end|>", True, "base"),
        ("Llama-2-7b-chat.Q4_K_M", "LLaMA v2", "</s>", False, "chat"),
        ("vicuna-13b-v1.5", "", "</s>", False, "chat"),
        ("NeuralChat-7B", "", "</s>", False, "chat"),
        ("Qwen3-4B-Thinking-2507", "", "<|im_end|>", True, "instruct"),
        ("transit-7b", "Edit Split", "</s>", False, "base"),
        ("mystery", "", None, False, "base"),
    ],
)
def test_kind_follows_names_template_and_turn_end(
    file_name: str, name: str, eos: str | None, has_template: bool, kind: str
) -> None:
    metadata = {"general.name": name}

    assert detect_kind(metadata, file_name, eos, has_template=has_template).kind == kind


def test_a_template_and_a_model_it_was_tuned_from_are_enough_together() -> None:
    tuned = {"general.base_model.count": "1"}

    assert detect_kind(tuned, "zeta-7b", "</s>", has_template=True).kind == "instruct"
    assert detect_kind({}, "zeta-7b", "</s>", has_template=True).kind == "base"


def test_a_conversational_tag_makes_it_a_chat_model() -> None:
    tagged = {"general.tags": "text-generation, conversational"}

    assert detect_kind(tagged, "zeta-7b", "</s>", has_template=True).kind == "chat"


def test_every_reason_states_its_points() -> None:
    verdict = detect_kind({}, "x-instruct", "<|im_end|>", has_template=True)

    assert verdict.reasons == [
        "+3: its end-of-sequence token <|im_end|> ends a turn",
        "+3: its name says instruct",
        "+2: it has a chat template",
        "score 8, at least 3: instruct",
    ]


def test_a_base_model_with_a_template_says_that_it_is_used() -> None:
    verdict = detect_kind({}, "x-base", "</s>", has_template=True)

    assert verdict.kind == "base"
    assert verdict.reasons[-1] == "its chat template is used for chats all the same"
