"""Every command, with every option that its help lists, on a real model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup, TyperOption

from server.cli.commands import COMMANDS, application
from server.core.sampling import PARAMETERS
from tests.e2e.server import CHECKOUT, INSTRUCT, MODELS, Server, running_server
from tests.unit.library.hub_server import HubServer

DRAGOMAN = str(Path(sys.executable).with_name("dragoman"))
KEY = "secret"

SAMPLING = (
    " ".join(
        f"--{name.replace('_', '-')} {parameter.kind(min(parameter.most, 1))}"
        for name, parameter in PARAMETERS.items()
    )
    + " --max-tokens 4"
)

# What `{name}` stands for: files of `folder` below, the server's address, its database and model.
TRIALS: dict[str, list[str]] = {
    "list": ["--config {config} --models-dir {models} --cache-dir {cache}"],
    "show": [
        (
            "{model} --config {config} --models-dir {models} --cache-dir {cache} --ctx-size 512 "
            "--kv-type q8_0 --no-swa-full --parallel 2 --template-dir {templates}"
        ),
        "smollm2-135m-instruct --models-dir {models}",
        "{models}/{model}.gguf",
    ],
    "render": [
        (
            "--messages {messages} --model {model} --config {config} --models-dir {models} "
            "--cache-dir {cache} --template-dir {templates}"
        ),
        "--messages {messages} --model smollm2-135m-instruct --models-dir {models} --tokens",
        "--messages {messages} --model {model} --models-dir {models} --raw --no-generation-prompt",
        "--messages {messages} --model {model} --models-dir {models} --template {template} --guard",
        "--messages {messages} --model {model} --models-dir {models} --no-guard",
        "--messages {messages} --template {template} --tools {tools} --bos <s> --eos </s>",
        '--messages {messages} --template {template} --kwargs {{"mood":"good"}}',
    ],
    "parse": ["--template {template} --tools {tools} --config {config} --template-dir {templates}"],
    "pull": ["", "--config {config} --models-dir {models} --cache-dir {cache}"],
    "rm": ["copy --config {config} --models-dir {copies} --cache-dir {cache}"],
    "cache": ["info --config {config} --cache-dir {cache} --prefix-disk-dir {cache}/p", "clear"],
    "keys": [
        (
            "add alice --config {config} --keys-file {cache}/keys.toml --requests-per-minute 9 "
            "--tokens-per-minute 900 --concurrent 2 --priority high --admin"
        ),
        "list --keys-file {keys}",
    ],
    "store": [
        "info --config {config} --store-url {store} --store-max-bytes 99999999 --store-max-days 3",
        "prune --store-url {store}",
        "export --store-url {store}",
    ],
    "chat": ["--url {url} --raw", f"{{model}} --url {{url}} --system Brief. --raw {SAMPLING}"],
    "run": [
        "smollm2:135m --url {url} --system Brief. --max-tokens 4",
        f"{{model}} Hello there --url {{url}} --raw {SAMPLING}",
        (
            "{models}/{model}.gguf --config {config} --models-dir {copies} --cache-dir {cache} "
            "--max-tokens 4"
        ),
    ],
    "batch": [
        "{requests} --url {url} --output {requests}.out",
        (
            "{requests} --config {config} --models-dir {models} --cache-dir {cache} "
            "--host unix:{requests}.socket --port 0"
        ),
    ],
    "ps": ["--url {url}"],
    "stop": ["{model} --url {url}"],
    "adapters": ["list {model} --url {url}"],
    "cp": ["named like/this:one --config {config} --models-dir {named} --cache-dir {cache}"],
    "doctor": [
        "--config {config} --models-dir {models} --cache-dir {cache} --host 127.0.0.1 --port 1"
    ],
    "service": ["install --config {config}", "status", "uninstall"],
    "completion": ["bash", "zsh", "fish"],
    "search": ["hf repo", "hf owner/repo"],
    "connect": ["", "curl --url {url} --model {model}"],
    "health": ["--url {url}"],
    "bench": ["{url} --model {model} --workload single --kv-tokens 4096 --json"],
}

# `serve`: values for all its options that are no switches.
VALUES = {
    "--prefix-disk": "1MiB",
    "--prefix-disk-days": "3",
    "--prefix-disk-daily": "1GiB",
    "--host": "127.0.0.1",
    "--api-key": KEY,
    "--image-host": "images.example.com",
    "--allowed-host": "llm.example.com",
    "--root-path": "/llm",
    "--trusted-proxy": "127.0.0.1",
    "--cors-origin": "https://example.com",
    "--ctx-size": "2048",
    "--parallel": "2",
    "--kv-tokens": "4096",
    "--queue-size": "8",
    "--threads": "2",
    "--gpu-layers": "0",
    "--batch-size": "128",
    "--ubatch-size": "128",
    "--flash-attention": "on",
    "--kv-type": "q8_0",
    "--itl-budget-ms": "300",
    "--memory-budget": "75%",
    "--idle-unload": "600",
    "--max-body-bytes": "1000000",
    "--max-header-bytes": "16384",
    "--request-timeout": "30",
    "--max-connections": "64",
    "--ping-seconds": "5",
    "--drain-seconds": "1",
    "--store-max-bytes": "10000000",
    "--store-max-days": "2",
    "--files-max-bytes": "10000000",
    "--max-file-bytes": "1000000",
    "--batch-parallel": "2",
    "--metrics-key": "metrics",
    "--otlp-endpoint": "http://127.0.0.1:9",
    "--log-format": "text",
    "--log-level": "warning",
}


def options(command: str) -> dict[str, list[str]]:
    """The options of ``command`` with all names that each has, by the first one; help aside.

    A switch comes with its opposite.
    """
    found = typer.main.get_command(application())
    assert isinstance(found, TyperGroup)
    given = [p for p in found.commands[command].params if isinstance(p, TyperOption)]
    return {
        option.opts[0]: [*option.opts, *option.secondary_opts]
        for option in given
        if option.name != "help"
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the commands take."""
    made = tmp_path_factory.mktemp("commands")
    files = {
        "config.toml": "parallel = 4\n",
        "keys.toml": '[keys.bob]\nkey = "other"\n',
        "requests.jsonl": json.dumps(
            {
                "custom_id": "one",
                "method": "POST",
                "url": "/v1/completions",
                "body": {"model": INSTRUCT, "prompt": "The cat", "max_tokens": 2},
            }
        ),
        "messages.json": json.dumps([{"role": "user", "content": "Hi"}]),
        "template.jinja": "{{ mood }}{{ tools }}{{ bos_token }}{% for m in messages %}"
        "<{{ m.role }}>{{ m.content }}{{ eos_token }}\n{% endfor %}",
        "tools.json": json.dumps([{"type": "function", "function": {"name": "f"}}]),
    }
    for name, text in files.items():
        (made / name).write_text(text)
    for name in ("templates", "cache", "copies", "named", "bin"):
        (made / name).mkdir()
    (made / "copies/copy.gguf").write_bytes(b"GGUF")
    (made / "bin/systemctl").write_text("#!/bin/sh\necho $@\n")
    (made / "bin/systemctl").chmod(0o755)
    (made / "named/named.gguf").write_bytes(b"GGUF")
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """One that has every option of `serve`, and a response in its store."""
    arguments = [str(MODELS / f"{INSTRUCT}.gguf")]
    places = {
        "--config": "config.toml",
        "--files-dir": "cache/files",
        "--keys-file": "keys.toml",
        "--models-dir": "copies",
        "--cache-dir": "cache",
        "--prefix-disk-dir": "cache/prefixes",
        "--template-dir": "templates",
    }
    stated = {name: str(folder / place) for name, place in places.items()} | VALUES
    stated["--store-url"] = f"sqlite:///{folder}/store.db"
    for option, names in options("serve").items():
        if len(names) > 1:
            arguments.append(option)
        elif option not in {"--port", "--metrics-port", "--tls-certificate", "--tls-key"}:
            arguments += [option, stated[option]]
    with running_server(*arguments) as started:
        with started.client(api_key=KEY) as client:
            client.responses.create(model=INSTRUCT, input="Hi", max_output_tokens=16)
        yield started


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as started:
        started.files["owner/repo/tiny-Q4_K_M.gguf"] = b"GGUF"
        yield started


def test_every_option_of_every_command_is_tried() -> None:
    # `kernels build` would replace llama.cpp under the tests: see tests/unit/cli/test_kernels.py.
    # `cluster` needs Ray: see tests/cluster.
    assert {*TRIALS, "serve", "kernels", "cluster"} == COMMANDS.keys()
    for command, trials in TRIALS.items():
        tried = set(" ".join(trials).split())
        for option, names in options(command).items():
            assert tried & set(names), f"{command} {option}"


def words(trial: str, folder: Path, server: Server) -> list[str]:
    """The arguments of ``trial``."""
    names = {
        "config": folder / "config.toml",
        "keys": folder / "keys.toml",
        "models": MODELS,
        "cache": folder / "cache",
        "copies": folder / "copies",
        "templates": folder / "templates",
        "named": folder / "named",
        "template": folder / "template.jinja",
        "requests": folder / "requests.jsonl",
        "messages": folder / "messages.json",
        "tools": folder / "tools.json",
        "store": f"sqlite:///{folder}/store.db",
        "model": INSTRUCT,
        "url": server.url,
    }
    return [word.format_map(names) for word in trial.split(" ") if word]


@pytest.mark.parametrize(
    ("command", "trial"), [(name, trial) for name, trials in TRIALS.items() for trial in trials]
)
def test_a_command_does_its_work(
    command: str, trial: str, folder: Path, server: Server, hub: HubServer
) -> None:
    result = subprocess.run(
        [DRAGOMAN, command, *words(trial, folder, server)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "DRAGOMAN_API_KEYS": KEY,
            "HF_ENDPOINT": hub.url,
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "XDG_CONFIG_HOME": str(folder / "config"),
            # Where `run` finds no server and starts its own.
            "DRAGOMAN_HOST": f"unix:{folder}/run",
        },
        input="Hi\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    # The result of a batch is a file.
    assert result.stdout or command == "batch"
    assert "Traceback" not in result.stderr
