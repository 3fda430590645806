"""Each built-in family writes exactly the prompt that its authors document."""

import pytest

from server.core.errors import ConversationError
from server.core.resources import templates_directory
from server.prompt.families.definitions import load_families
from server.prompt.template.chat_template import ChatTemplate

FAMILIES = load_families([templates_directory()])

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)

# System "Be brief.", user "Hi", assistant "Hello!", user "Bye"; then only the last message.
GOLDEN = {
    "chatml": (
        (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
            "<|im_start|>assistant\n"
        ),
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
    ),
    "llama-2": (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello! </s><s>[INST] Bye [/INST]",
        "<s>[INST] Bye [/INST]",
    ),
    "llama-3": (
        (
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
        ),
        (
            "<s><|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
        ),
    ),
    "mistral": (
        "<s>[INST] Be brief.\n\nHi [/INST] Hello!</s>[INST] Bye [/INST]",
        "<s>[INST] Bye [/INST]",
    ),
    "gemma": (
        (
            "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n"
            "<start_of_turn>model\nHello!<end_of_turn>\n"
            "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
        ),
        "<s><start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
    ),
    "phi-3": (
        (
            "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello!<|end|>\n"
            "<|user|>\nBye<|end|>\n<|assistant|>\n"
        ),
        "<|user|>\nBye<|end|>\n<|assistant|>\n",
    ),
    "zephyr": (
        (
            "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello!</s>\n"
            "<|user|>\nBye</s>\n<|assistant|>\n"
        ),
        "<|user|>\nBye</s>\n<|assistant|>\n",
    ),
    "vicuna": (
        "Be brief. USER: Hi ASSISTANT: Hello!</s>USER: Bye ASSISTANT:",
        f"{VICUNA} USER: Bye ASSISTANT:",
    ),
    "alpaca": (
        (
            "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello!\n\n"
            "### Instruction:\nBye\n\n### Response:\n"
        ),
        f"{ALPACA}\n\n### Instruction:\nBye\n\n### Response:\n",
    ),
    "command-r": (
        (
            "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Hello!<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Bye<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
        ),
        (
            "<s><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Bye<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
        ),
    ),
    "deepseek": (
        (
            "<s>Be brief.<｜User｜>Hi<｜Assistant｜>Hello!<｜end▁of▁sentence｜>"
            "<｜User｜>Bye<｜Assistant｜>"
        ),
        "<s><｜User｜>Bye<｜Assistant｜>",
    ),
    "granite": (
        (
            "<|start_of_role|>system<|end_of_role|>Be brief.<|end_of_text|>\n"
            "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n"
            "<|start_of_role|>assistant<|end_of_role|>Hello!<|end_of_text|>\n"
            "<|start_of_role|>user<|end_of_role|>Bye<|end_of_text|>\n"
            "<|start_of_role|>assistant<|end_of_role|>"
        ),
        (
            "<|start_of_role|>user<|end_of_role|>Bye<|end_of_text|>\n"
            "<|start_of_role|>assistant<|end_of_role|>"
        ),
    ),
    "human-assistant": (
        "Be brief.\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Bye\n\nAssistant:",
        "\n\nHuman: Bye\n\nAssistant:",
    ),
    "transcript": (
        "Be brief.\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Bye\n\nAssistant:",
        "Human: Bye\n\nAssistant:",
    ),
}

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye"},
]

each_family = pytest.mark.parametrize("name", sorted(FAMILIES))


def template(name: str) -> ChatTemplate:
    source = FAMILIES[name].template
    assert source is not None
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>", name=name)


@each_family
def test_a_whole_conversation_is_written_as_documented(name: str) -> None:
    assert template(name).render(CONVERSATION) == GOLDEN[name][0]


@each_family
def test_a_single_question_is_written_as_documented(name: str) -> None:
    assert template(name).render(CONVERSATION[-1:]) == GOLDEN[name][1]


@each_family
def test_without_a_generation_prompt_the_conversation_just_ends(name: str) -> None:
    whole = template(name).render(CONVERSATION)
    ended = template(name).render(CONVERSATION, add_generation_prompt=False)

    assert whole.startswith(ended)
    assert "Bye" in ended


@each_family
def test_the_last_answer_can_be_continued(name: str) -> None:
    continued = template(name).render(
        CONVERSATION[:3], add_generation_prompt=False, continue_final_message=True
    )

    assert continued.endswith("Hello!")


def test_a_role_the_format_does_not_know_is_refused() -> None:
    with pytest.raises(ConversationError, match="not tool"):
        template("gemma").render([{"role": "tool", "content": "x"}])
