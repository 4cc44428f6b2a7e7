import pytest
import yaml

from ssm_core.errors import ConfigError, UnknownNameError
from ssm_core.train.resolve import read_yaml, resolve


@pytest.fixture
def base(host):
    return read_yaml(host.get("recipes", "points-net").path)


def test_resolve_fills_defaults_and_keeps_the_recipe(host, base):
    config = resolve(host, "points-net", base)
    assert config.options["model"] == {"name": "net", "width": 12, "dropout": 0.1, "delay_s": 0.0}
    assert config.typed["model"].width == 12
    assert config.optim.lr == 0.01
    assert config.trainer.max_steps is None
    assert config.specs["data"].name == "points"


def test_resolve_precedence(host, base, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: {width: 5, dropout: 0.5}\noptim: {lr: 3e-4}\n")
    config = resolve(host, "points-net", base, [file], ["--model.width", "7"])
    assert config.typed["model"].width == 7
    assert config.typed["model"].dropout == 0.5
    assert config.optim.lr == 3e-4


def test_resolve_is_its_own_fixed_point(host, base):
    config = resolve(host, "points-net", base, arguments=["--count", "counter"])
    again = resolve(host, "points-net", yaml.safe_load(config.to_yaml()))
    assert again.options == config.options
    assert again.typed == config.typed


def test_resolve_extension_only_when_chosen(host, base):
    assert "count" not in resolve(host, "r", base).typed
    config = resolve(host, "r", base, arguments=["--count", "counter", "--count.start=4"])
    assert config.typed["count"].start == 4


def test_resolve_null_on_the_command_line(host, base):
    config = resolve(
        host, "r", base, arguments=["--trainer.max_epochs", "null", "--trainer.max_steps", "9"]
    )
    assert config.trainer.max_epochs is None
    assert config.trainer.max_steps == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.widht", "3"], "unknown option '--model.widht': did you mean '--model.width'"),
        (["--model", "nett"], "unknown model 'nett': did you mean 'net'?"),
        (["--model"], "--model: a name is missing"),
        (["--modle.width", "3"], "unknown option '--modle.width': did you mean '--model.width'"),
        (["--data.size", "x"], '"data.size": expected int. Got value: x'),
        (["--data.size", "-3"], "data.size is -3, expected 0 or more"),
        (["--optim.schedule", "cosin"], "optim.schedule"),
        (["--optim.lr", "0"], "optim.lr is 0.0, expected a number above 0"),
        (["--count.start", "3"], "unknown option '--count.start'"),
        (["stray"], "stray"),
    ],
)
def test_resolve_bad_words(host, base, words, message):
    with pytest.raises(ConfigError) as caught:
        resolve(host, "r", base, arguments=words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modle": {}}, "unknown section 'modle': did you mean 'model'?"),
        ({"model": {"name": "net", "wdth": 3}}, "unknown key 'model.wdth'"),
        ({"model": 3}, "model is 3, expected a section of options"),
        ({"task": {}}, "task.name is missing"),
        ({"trainer": {"max_epochs": None}}, "both null"),
    ],
)
def test_resolve_bad_files(host, base, change, message):
    merged = {k: v for k, v in base.items() if k not in change} | change
    with pytest.raises(ConfigError) as caught:
        resolve(host, "r", merged)
    assert message in str(caught.value)


def test_resolve_another_name_drops_the_old_options(host, base):
    other = dict(base, model={"name": "gone", "width": 3, "never": 1})
    config = resolve(host, "r", other, arguments=["--model", "net"])
    assert config.options["model"] == {"name": "net", "width": 16, "dropout": 0.0, "delay_s": 0.0}


def test_read_yaml_errors_name_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1")
    with pytest.raises(ConfigError, match=r"bad\.yaml: not valid YAML"):
        read_yaml(bad)
    bad.write_text("- 1")
    with pytest.raises(ConfigError, match=r"bad\.yaml: holds list"):
        read_yaml(bad)


def test_unknown_name_without_similar_ones_lists_what_there_is(host):
    with pytest.raises(UnknownNameError, match="known: points-net"):
        host.get("recipes", "zzzz")
