"""Settings and where they come from."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue.config import CONFIG_FILE_VARIABLE, LeaseConfig, PoolConfig, ProviderConfig, RetryConfig, Settings
from aiqueue.errors import StartError
from aiqueue.levels import AIJobPriority


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the machine has set."""
    import os

    for name in [name for name in os.environ if name.startswith("AIQUEUE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a settings file that the environment names."""
    path = tmp_path / "aiqueue.toml"
    path.write_text(
        """
        namespace = "from-file"
        [providers.local]
        kind = "simulated"
        [pools.main]
        providers = ["local"]
        slots = 7
        [journal]
        durability = "normal"
        path = "file.db"
        [sla_ms]
        urgent = 500
        """
    )
    monkeypatch.setenv(CONFIG_FILE_VARIABLE, str(path))
    return path


def test_defaults_are_the_specifications() -> None:
    settings = Settings()
    assert settings.sla_by_rank() == (3_000, 10_000, 30_000, 60_000)
    assert (settings.journal.durability, settings.lease.heartbeat_s, settings.lease.lease_s) == ("full", 30.0, 90.0)
    assert (settings.retry.base_s, settings.retry.cap_s, settings.retry.max_crashes) == (1.0, 30.0, 3)
    assert settings.limits.max_payload_bytes == 4 * 2**20
    assert settings.http.host == "127.0.0.1"


@pytest.mark.usefixtures("toml")
def test_a_file_is_read() -> None:
    settings = Settings()
    assert (settings.namespace, settings.pools["main"].slots) == ("from-file", 7)
    assert settings.sla_by_rank() == (500, 10_000, 30_000, 60_000)


@pytest.mark.usefixtures("toml")
def test_the_environment_beats_the_file_and_an_argument_beats_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIQUEUE_NAMESPACE", "from-environment")
    monkeypatch.setenv("AIQUEUE_JOURNAL__DURABILITY", "off")
    settings = Settings()
    assert (settings.namespace, settings.journal.durability) == ("from-environment", "off")
    assert settings.journal.path == Path("file.db"), "what the environment does not say stays"
    assert Settings(namespace="from-argument").namespace == "from-argument"


def test_the_environment_holds_nested_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIQUEUE_PROVIDERS__A__KIND", "openai")
    monkeypatch.setenv("AIQUEUE_PROVIDERS__A__MODELS", '["m-1", "m-2"]')
    monkeypatch.setenv("AIQUEUE_RETRY__MAX_CRASHES", "5")
    settings = Settings()
    assert settings.providers["a"].models == ("m-1", "m-2")
    assert settings.retry.max_crashes == 5


@pytest.mark.parametrize("name", ["AIQUEUE_JOURNAL__DURABLITY", "AIQUEUE_HTTP__PROT"])
def test_a_misspelt_nested_variable_does_not_pass_in_silence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        Settings()


def test_a_file_that_is_no_toml_is_an_error(toml: Path) -> None:
    toml.write_text("no toml at all")
    with pytest.raises(ValueError, match="Expected"):
        Settings()


def test_a_misspelt_setting_in_a_file_does_not_pass_in_silence(toml: Path) -> None:
    toml.write_text("[journal]\ndurablity = 'off'")
    with pytest.raises(pydantic.ValidationError, match="durablity"):
        Settings()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"journal": {"durability": "maybe"}}, "durability"),
        ({"retry": {"jitter": 2}}, "jitter"),
        ({"http": {"port": 70_000}}, "port"),
        ({"providers": {"a": {"kind": "llama_cpp"}}}, "needs model_path"),
        ({"providers": {"a": {"kind": "magic"}}}, "kind"),
        ({"pools": {"p": {"providers": ["nobody"]}}}, "not configured: nobody"),
        ({"pools": {"p": {"providers": []}}}, "at least 1"),
        ({"sla_ms": {"asap": 1}}, "sla_ms"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_what_can_not_be_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        Settings(**fields)  # type: ignore[arg-type]


@given(heartbeat_s=st.floats(0.01, 3_600.0), missed=st.integers(1, 20))
def test_a_worker_whose_call_was_lost_speaks_again_while_its_lease_lasts(heartbeat_s: float, missed: int) -> None:
    lease = LeaseConfig(heartbeat_s=heartbeat_s, missed_heartbeats=missed)
    assert lease.poll_s < lease.poll_limit_s, "the queue has time to answer"
    assert lease.poll_s + lease.poll_limit_s <= lease.lease_s * 5 / 6 + 1e-9
    assert lease.poll_s <= lease.heartbeat_s


def test_the_usual_lease_asks_every_30_seconds_and_waits_15_more() -> None:
    assert (LeaseConfig().poll_s, LeaseConfig().poll_limit_s) == (30.0, 45.0)


def test_the_section_of_dead_letters_may_have_the_specifications_name(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml.write_text("[dead_letter_config]\nmax_retries = 5\nqueue_name = 'lost'")
    assert (Settings().dead_letter.max_retries, Settings().dead_letter.queue_name) == (5, "lost")
    toml.write_text("")
    settings = Settings(dead_letter_config={"enabled": False})  # type: ignore[call-arg]
    assert not settings.dead_letter.enabled
    assert Settings.model_validate_json(settings.model_dump_json()) == settings
    with pytest.raises(pydantic.ValidationError, match="one section"):
        Settings(dead_letter_config={}, dead_letter={})  # type: ignore[call-arg, arg-type]
    monkeypatch.setenv("AIQUEUE_DEAD_LETTER_CONFIG__ENABLED", "false")
    with pytest.raises(StartError, match="AIQUEUE_DEAD_LETTER__"):
        Settings()
    monkeypatch.delenv("AIQUEUE_DEAD_LETTER_CONFIG__ENABLED")
    with pytest.raises(pydantic.ValidationError, match="enabledd"):
        Settings(dead_letter_config={"enabledd": False})  # type: ignore[call-arg]


def test_a_provider_belongs_to_one_pool() -> None:
    provider, pool = ProviderConfig(kind="simulated"), PoolConfig(providers=("a",))
    with pytest.raises(pydantic.ValidationError, match="stand in several: a"):
        Settings(providers={"a": provider}, pools={"p": pool, "q": pool})


def test_a_model_in_memory_has_a_pool_of_its_own() -> None:
    providers = {"a": ProviderConfig(kind="llama_cpp", model_path=Path("m.gguf")), "b": ProviderConfig(kind="openai")}
    with pytest.raises(pydantic.ValidationError, match="pool of its own"):
        Settings(providers=providers, pools={"p": PoolConfig(providers=("a", "b"))})
    settings = Settings(
        providers=providers, pools={"p": PoolConfig(providers=("a",)), "q": PoolConfig(providers=("b",))}
    )
    assert (settings.serves_local_model("p"), settings.serves_local_model("q")) == (True, False)
    assert (settings.pool_of("a"), settings.pool_of("nobody")) == ("p", "")


@pytest.mark.parametrize(
    ("fields", "variable"),
    [
        ({"kind": "openai"}, "OPENAI_API_KEY"),
        ({"kind": "anthropic", "credential": "MINE"}, "MINE"),
        ({"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}, ""),
        ({"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "credential": "THEIRS"}, "THEIRS"),
        ({"kind": "simulated"}, ""),
    ],
)
def test_a_key_goes_only_where_it_belongs(fields: dict[str, str], variable: str) -> None:
    assert ProviderConfig(**fields).key_variable == variable  # type: ignore[arg-type]


def test_settings_travel_to_actors_as_json_and_come_back_the_same() -> None:
    settings = Settings(
        namespace="n",
        providers={"a": ProviderConfig(kind="llama_cpp", model_path=Path("m.gguf"), models=("m",))},
        pools={"p": PoolConfig(providers=("a",), resources={"big": 1.0})},
        sla_ms={AIJobPriority.URGENT: 1},
        retry=RetryConfig(base_s=0.5),
    )
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_settings_that_travelled_are_not_changed_by_the_environment_there(monkeypatch: pytest.MonkeyPatch) -> None:
    json = Settings(namespace="n").model_dump_json()
    monkeypatch.setenv("AIQUEUE_NAMESPACE", "elsewhere")
    monkeypatch.setenv("AIQUEUE_RETRY__BASE_S", "9")
    there = Settings.model_validate_json(json)
    assert (there.namespace, there.retry.base_s) == ("n", 1.0)


def test_settings_can_not_be_changed() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Settings().namespace = "other"
