"""Settings: where values come from, and what is said about wrong ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from server.core.settings import Settings, flag, load
from server.core.settings_file import ConfigError
from server.core.worker_settings import WorkerSettings
from server.worker.supervise.defaults import worker_defaults


@pytest.fixture(autouse=True)
def nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the developer's environment nor files take part."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DRAGOMAN_{name.upper()}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_flag_beats_environment_beats_file_beats_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load().port == 8000
    write(tmp_path / "dragoman.toml", "port = 8001")
    assert load().port == 8001
    monkeypatch.setenv("DRAGOMAN_PORT", "8002")
    assert load().port == 8002
    assert load(port="8003").port == 8003


def test_the_file_is_found_by_flag_then_environment_then_working_directory_then_xdg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "xdg/dragoman/dragoman.toml", "parallel = 1")
    assert load().parallel == 1
    write(tmp_path / "dragoman.toml", "parallel = 2")
    assert load().parallel == 2
    monkeypatch.setenv("DRAGOMAN_CONFIG", str(write(tmp_path / "other.toml", "parallel = 3")))
    assert load().parallel == 3
    assert load(config=str(write(tmp_path / "flag.toml", "parallel = 4"))).parallel == 4


def test_an_unknown_key_is_an_error_that_names_file_and_key(tmp_path: Path) -> None:
    file = write(tmp_path / "dragoman.toml", "prot = 9000")
    with pytest.raises(
        ConfigError, match=r"dragoman.toml: unknown key 'prot'; did you mean 'port'"
    ):
        load()
    with pytest.raises(ConfigError, match=r"other.toml: unknown key 'config'"):
        load(config=str(write(file.with_name("other.toml"), "config = 'again.toml'")))


@pytest.mark.parametrize("text", ["port = ", "\x00", "port = 1\nport = 2"])
def test_a_file_that_is_no_toml_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    write(tmp_path / "dragoman.toml", text)
    with pytest.raises(ConfigError, match=r"^dragoman.toml: "):
        load()


def test_the_byte_order_mark_that_some_editors_write_is_no_part_of_a_file(tmp_path: Path) -> None:
    write(tmp_path / "dragoman.toml", "\ufeffport = 9000")
    assert load().port == 9000


def test_a_stated_file_that_is_missing_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^nowhere.toml: No such file or directory$"):
        load(config="nowhere.toml")


def test_a_wrong_value_is_reported_with_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "dragoman.toml", "kv_type = 'f8'")
    monkeypatch.setenv("DRAGOMAN_PORT", "eighty")
    with pytest.raises(ConfigError) as raised:
        load(parallel="257")
    lines = str(raised.value).splitlines()
    assert [line.split(": ")[:2] for line in sorted(lines)] == [
        ["--parallel", "Input should be less than or equal to 256"],
        [
            "DRAGOMAN_PORT",
            "Input should be a valid integer, unable to parse string as an integer",
        ],
        ["dragoman.toml", "kv_type"],
    ]


def test_a_wrong_api_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_API_KEYS", "secret")
    assert "secret" not in repr(load())


def test_lists_in_the_environment_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_API_KEYS", "one, two,,")
    monkeypatch.setenv("DRAGOMAN_TEMPLATE_DIRS", "~/mine,theirs")
    settings = load()
    assert settings.api_keys == ["one", "two"]
    assert settings.template_dirs == [Path.home() / "mine", Path("theirs")]


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_API_KEYS", "")
    monkeypatch.setenv("DRAGOMAN_THREADS", "")
    assert load().api_keys == []
    assert load().threads is None


def test_an_empty_api_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="--api-key"):
        load(api_keys=[""])


@pytest.mark.parametrize("host", ["https://llm.example.com", "llm.example.com/", "me@here", ""])
def test_an_allowed_host_that_is_no_name_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="--allowed-host"):
        load(allowed_hosts=[host])


@pytest.mark.parametrize("network", ["proxy", "10.0.0.1/8", "10.0.0.0/33", ""])
def test_a_trusted_proxy_that_is_no_address_is_refused(network: str) -> None:
    with pytest.raises(ConfigError, match="--trusted-prox"):
        load(trusted_proxies=[network])


@pytest.mark.parametrize("path", ["llm", "/a b", "//llm", "https://example.com/llm", "/%2e"])
def test_a_root_path_that_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="--root-path: give a path"):
        load(root_path=path)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (None, None),
        (5000, 5000),
        ("5000", 5000),
        ("1.5GiB", 3 << 29),
        ("2G", 2 << 30),
        ("512 MB", 512 << 20),
        ("75%", 750),
    ],
)
def test_the_memory_budget_is_bytes_or_a_share(
    stated: str | int | None, expected: int | None
) -> None:
    assert load(memory_budget=stated).memory_budget_bytes(1000) == expected


@pytest.mark.parametrize("name", ["memory_budget", "prefix_disk", "prefix_disk_daily"])
@pytest.mark.parametrize("share", ["100.5%", "200%", "1000 %"])
def test_no_share_is_more_than_the_whole(name: str, share: str) -> None:
    assert load(**{name: "100%"})
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}: a share is at most 100%"):
        load(**{name: share})


@pytest.mark.parametrize("stated", ["", "-1", "lots", "10 %%", "8 GiB extra", True])
def test_a_memory_budget_that_is_no_amount_is_refused(stated: object) -> None:
    with pytest.raises(ConfigError, match="--memory-budget"):
        load(memory_budget=stated)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.1.2", False),
        ("example.org", False),
    ],
)
def test_only_loopback_addresses_stay_on_this_machine(host: str, loopback: bool) -> None:
    assert Settings(host=host).loopback is loopback


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_flags_of_lists_are_singular() -> None:
    assert flag("api_keys") == "--api-key"
    assert flag("itl_budget_ms") == "--itl-budget-ms"


def test_a_worker_is_told_every_setting_that_it_knows() -> None:
    settings = Settings(
        ctx_size=100,
        threads=3,
        template_dirs=[Path("mine")],
        guard=False,
        kv_type="q8_0",
        prefix_disk="3KiB",
        prefix_disk_dir=Path("/prefixes"),
    )
    told = worker_defaults(settings)
    assert told == WorkerSettings(
        ctx_size=100,
        threads=3,
        template_dirs=["mine"],
        guard=False,
        kv_type="q8_0",
        prefix_disk_bytes=3072,
        prefix_disk_daily_bytes=8 * 3072,
        prefixes_dir="/prefixes",
    )


def test_the_defaults_of_a_worker_are_those_of_the_settings() -> None:
    assert worker_defaults(Settings(prefix_disk="0")) == WorkerSettings()


def test_prefixes_take_a_share_of_the_disk_they_lie_on(tmp_path: Path) -> None:
    settings = Settings(prefix_disk="50%", prefix_disk_dir=tmp_path / "not" / "there")
    half = shutil.disk_usage(tmp_path).total // 2
    assert abs(worker_defaults(settings).prefix_disk_bytes - half) <= 1


def test_what_a_day_may_write_to_disk_follows_from_the_room_unless_it_is_set() -> None:
    told = worker_defaults(Settings(prefix_disk="1GiB"))
    assert (told.prefix_disk_daily_bytes, told.prefix_disk_days) == (8 << 30, 30)
    told = worker_defaults(
        Settings(prefix_disk="1GiB", prefix_disk_daily="512MiB", prefix_disk_days=0.5)
    )
    assert (told.prefix_disk_daily_bytes, told.prefix_disk_days) == (512 << 20, 0.5)


def test_prefixes_lie_in_the_cache_unless_told_otherwise() -> None:
    assert Settings(cache_dir=Path("/c")).prefixes_dir == Path("/c/prefixes")
