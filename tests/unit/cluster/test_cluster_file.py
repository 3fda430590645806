"""`cluster.toml` is checked as a whole, and wrong ones say what is wrong where."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.cluster.cluster_file import read_cluster
from server.cluster.tables import Cluster
from server.core.settings_file import ConfigError

LEAST = """
[head]
address = "10.0.0.1"
[settings]
store = false
files = false
[groups.chat]
models = ["smollm2"]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "cluster.toml"
    path.write_text(text)
    return path


def read(folder: Path, text: str) -> Cluster:
    return read_cluster(written(folder, text))


def test_the_least_file_serves_one_replica_of_each_group(tmp_path: Path) -> None:
    cluster = read(tmp_path, LEAST)
    group = cluster.groups["chat"]
    assert (group.replicas.min, group.replicas.max) == (1, 1)
    assert (cluster.head.port, cluster.head.members_port) == (6379, 6390)
    assert cluster.front_settings().port == 8000


def test_settings_of_a_group_go_before_those_of_all(tmp_path: Path) -> None:
    text = LEAST.replace("[settings]", "[settings]\nparallel = 4\nctx_size = 512") + (
        "[groups.chat.settings]\nctx_size = 1024\n"
    )
    settings = read(tmp_path, text).replica_settings("chat")
    assert (settings["parallel"], settings["ctx_size"]) == (4, 1024)
    assert settings["store"] is False


def test_values_have_the_forms_that_the_settings_have(tmp_path: Path) -> None:
    text = LEAST.replace("[settings]", '[settings]\napi_keys = "a, b"\nmodels_dir = "~/m"')
    settings = read(tmp_path, text).replica_settings("chat")
    assert settings["api_keys"] == ["a", "b"]
    assert settings["models_dir"] == str(Path("~/m").expanduser())


def test_the_front_is_set_by_its_table_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAGOMAN_PORT", "1234")
    text = "[front]\nmax_connections = 7\n" + LEAST
    front = read(tmp_path, text).front_settings()
    assert (front.port, front.max_connections) == (8000, 7)


def test_replicas_may_be_a_number_or_a_range(tmp_path: Path) -> None:
    fixed = read(tmp_path, LEAST + "replicas = 3\n").groups["chat"].replicas
    assert (fixed.min, fixed.max) == (3, 3)
    text = LEAST + "replicas = { min = 1, max = 4, requests = 2.5 }\n"
    ranged = read(tmp_path, text).groups["chat"].replicas
    assert (ranged.min, ranged.max, ranged.requests) == (1, 4, 2.5)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("[head]", "[haed]"), "unknown key 'haed'; did you mean 'head'?"),
        (("[head]", "[[head]]"), "head: give a table"),
        (("[head]\naddress =", "[front]\nhost ="), "head: it is missing"),
        (('"10.0.0.1"', "10"), "head.address: give a text"),
        (
            ('"10.0.0.1"', '"10.0.0.1:6379"'),
            "head.address: give an address or a host name, without",
        ),
        (('"10.0.0.1"', '"http://head"'), "head.address: give an address or a host name,"),
        (('"10.0.0.1"', '"::1"'), "head.address: give the address by which other machines"),
        (('"10.0.0.1"', '"10.0.0.1"\nport = true'), "head.port: give a whole number"),
        (('"10.0.0.1"', '"10.0.0.1"\nport = 6390'), "head.members_port: 6390 is head.port"),
        (
            ('"10.0.0.1"', '"10.0.0.1"\nmembers_port = 8000\nmembers_host = "127.0.0.1"'),
            "front.port: 8000 is head.members_port already",
        ),
        (('"10.0.0.1"', '"127.0.0.1"'), "head.address: give the address by which other machines"),
        (('"10.0.0.1"', '"localhost"'), "head.address: give the address by which other machines"),
        (('"10.0.0.1"', '"0.0.0.0"'), "head.address: give the address by which other machines"),
        (("store = false", ""), 'groups.chat: replicas share one store: set store_url = "postgres'),
        (
            ("store = false", 'store_url = "sqlite:///a.db"'),
            "groups.chat: replicas share one store",
        ),
        (
            ("store = false\nfiles = false", 'store_url = "postgresql://a@b/c"'),
            "groups.chat: replicas share uploaded files: set files_dir",
        ),
        (("files = false", "fils = false"), "settings: unknown key 'fils'; did you mean 'files'?"),
        (("files = false", "files = false\nport = 1"), "settings: port belongs into [front]"),
        (
            ("files = false", "files = false\nconfig = 'x'"),
            "settings: config is no setting of a cluster",
        ),
        (("files = false", "files = false\nparallel = 0"), "settings.parallel: Input should be"),
        (
            ("[settings]", "[front]\nctx_size = 1\n[settings]"),
            "front: ctx_size belongs into [settings]",
        ),
        (
            ("[settings]", '[front]\nhost = "0.0.0.0"\n[settings]'),
            "groups.chat: other machines may use the front at 0.0.0.0: set api_keys or keys_file",
        ),
        (
            ("files = false", "files = false\ndrain_seconds = inf"),
            "drain_seconds: give a finite",
        ),
        (('models = ["smollm2"]', ""), "groups.chat.models: it is missing"),
        (('["smollm2"]', '"smollm2"'), "groups.chat.models: give a list"),
        (('["smollm2"]', '[""]'), "groups.chat.models.0: it is empty"),
        (('["smollm2"]', '["smollm2"]\nreplicas = "2"'), "groups.chat.replicas: give a whole"),
        (('["smollm2"]', '["smollm2"]\nreplicas = {mx = 2}'), "did you mean 'max'?"),
        (
            ('["smollm2"]', '["smollm2"]\nreplicas = 99999'),
            "groups.chat.replicas.min: Input",
        ),
        (('["smollm2"]', '["smollm2"]\ncpus = inf'), "groups.chat.cpus: give a finite number"),
        (
            ('["smollm2"]', '["smollm2"]\nresources = {GPU = 1}'),
            "groups.chat.resources.GPU: cpus, gpus and memory are claimed by these keys",
        ),
        (("groups.chat", "groups.Chat"), "groups.Chat: names have lower-case letters, digits and"),
        (('["smollm2"]', "[]"), "groups.chat.models: List should have at least 1 item"),
        (('["smollm2"]', '["smollm2"]\nreplicas = 0'), "groups.chat.replicas.min: Input should be"),
        (
            ('["smollm2"]', '["smollm2"]\nreplicas = {min = 2}'),
            "groups.chat.replicas: max is smaller than min",
        ),
        (('["smollm2"]', '["smollm2"]\nmemory = "50%"'), "groups.chat.memory: give bytes"),
        (('["smollm2"]', '["smollm2"]\ngpu = 1'), "unknown key 'groups.chat.gpu'"),
        (("[groups.chat]\nmodels", "models"), "there is no table [groups.NAME]"),
        (("[head]", "head]"), "Expected '=' after a key"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(
    tmp_path: Path, change: tuple[str, str], problem: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, LEAST.replace(*change))
    assert problem in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / "cluster.toml"))


def test_ports_of_one_number_at_two_addresses_are_two(tmp_path: Path) -> None:
    text = '[front]\nhost = "127.0.0.1"\n' + LEAST.replace(
        '"10.0.0.1"', '"10.0.0.1"\nmembers_port = 8000'
    )
    assert read(tmp_path, text).head.members_port == 8000


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff" + LEAST).head.address == "10.0.0.1"


def test_all_groups_need_keys_where_others_reach_the_front(tmp_path: Path) -> None:
    text = LEAST.replace("[settings]", '[front]\nhost = "0.0.0.0"\n[settings]\napi_keys = ["k"]')
    assert read(tmp_path, text).replica_settings("chat")["api_keys"] == ["k"]
    with pytest.raises(ConfigError, match=r"groups\.chat"):
        read(tmp_path, text + "[groups.chat.settings]\napi_keys = []\n")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.toml: .*No such file"):
        read_cluster(tmp_path / "cluster.toml")
