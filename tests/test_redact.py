import pytest

from asyncrunner.redact import Redactor, is_secret_variable, sink_urls

CANARY = "canary-3f9c2d71"


def redactor(**environ: str) -> Redactor:
    return Redactor(environ)


@pytest.mark.parametrize(
    "argv",
    [
        ["--api-key", CANARY],
        [f"--api-key={CANARY}"],
        [f"--apiKey={CANARY}"],
        [f"--APIKEY={CANARY}"],
        ["--token", CANARY],
        ["--hf_token", CANARY],
        ["-password", CANARY],
        [f"model.secret={CANARY}"],
        [f"--client-secrets={CANARY}"],
        [f"https://{CANARY}@example.org/x"],
        [f"--url=https://user:{CANARY}@example.org/x"],
        [f"nats://{CANARY}@localhost:4222"],
        [f"http://127.0.0.1:8000/?a=1&token={CANARY}&b=2"],
        ["--header", f"Authorization: Bearer {CANARY}"],
    ],
)
def test_a_secret_on_the_command_line_is_masked(argv: list[str]):
    assert CANARY not in " ".join(redactor().arguments(["train.py", *argv]))


def test_the_rest_of_a_command_line_is_kept_as_it_is():
    argv = ["train.py", "--max-tokens", "512", "--tokenizer=bpe", "--keypoints", "17", "-v", "x@y"]
    assert redactor().arguments(argv) == argv
    assert redactor().arguments(["--token", "--lr", "1"]) == ["--token", "--lr", "1"]
    url = ["https://u:p@example.org/a?key=v&b=2"]
    assert redactor().arguments(url) == ["https://***@example.org/a?key=***&b=2"]


def test_the_value_of_a_secret_variable_is_masked_wherever_it_appears():
    safe = redactor(WANDB_API_KEY=CANARY, HOME="/home/somebody")
    assert safe.text(f"login {CANARY} /home/somebody") == "login *** /home/somebody"
    assert safe.arguments([f"--login={CANARY}"]) == ["--login=***"]
    assert safe.data({"a": [{"b": f"x{CANARY}"}]}) == {"a": [{"b": "x***"}]}


def test_short_values_and_paths_of_secret_variables_are_not_looked_for():
    safe = redactor(A_KEY="1", B_KEY="/etc/ssl/key.pem")
    assert safe.text("1 of 10 in /etc/ssl/key.pem") == "1 of 10 in /etc/ssl/key.pem"


def test_nested_settings_lose_their_secrets_and_nothing_else():
    config = {
        "lr": 1e-3,
        "tracker": {"api_key": CANARY, "keys": [CANARY], "use_auth": True, "num_keys": 3},
        "password": None,
    }
    assert redactor().data(config) == {
        "lr": 1e-3,
        "tracker": {"api_key": "***", "keys": "***", "use_auth": True, "num_keys": 3},
        "password": None,
    }


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "my_api_key", "AWS_SECRET_X", "DB_PASSWORD", "PGPASSWD"]
)
def test_a_variable_is_secret_if_any_part_of_its_name_says_so(name: str):
    assert is_secret_variable(name)


def test_a_variable_is_not_secret_otherwise():
    assert not is_secret_variable("ASYNCRUNNER_MAX_EPOCHS")


@pytest.mark.parametrize("name", ["webhook", "slack_webhook", "webhookUrl", "hook_url", "webhooks"])
def test_a_webhook_is_a_secret_by_its_name(name: str):
    url = f"https://h/{CANARY}"
    assert redactor().data({name: url, "page": url}) == {name: "***", "page": url}
    assert redactor().arguments([f"--{name}", url, f"--{name}={url}"]) == [
        f"--{name}",
        "***",
        f"--{name}=***",
    ]


def test_a_switch_about_webhooks_hides_nothing():
    argv = ["--allow-private-webhooks", "train.py"]
    assert redactor().arguments(argv) == argv


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.slack.com/services/",
        "https://discord.com/api/webhooks/",
        "https://acme.webhook.office.com/webhookb2/",
        "https://chat.googleapis.com/v1/spaces/",
        "https://api.telegram.org/bot",
        "https://me:word@hooks.slack.com/services/",
    ],
)
def test_the_path_of_a_known_webhook_is_masked_wherever_it_stands(url: str):
    text = f"POST '{url}{CANARY}/B/X', then wait"
    safe = redactor().text(text)
    assert CANARY not in safe
    assert safe.endswith("/***', then wait")


def test_numbers_are_secret_where_only_a_secret_can_stand():
    config = {"password": 1234, "db_passwd": 1.5, "secret": 7, "pin": 99}
    assert redactor().data(config) == dict.fromkeys(config, "***")
    others = {"pin_memory": 1, "key": 3, "use_password": True, "max_tokens": 5, "pin": None}
    assert redactor().data(others) == others


def test_of_sinks_the_passwords_and_of_webhooks_the_paths_are_secret():
    urls = (
        f"redis://me:{CANARY}@h:1/0?prefix=a https://h:2/{CANARY} https://me:{CANARY}@h/?k={CANARY}"
    )

    assert sink_urls(urls) == "redis://***@h:1/0?prefix=a https://h:2/*** https://***@h/***"
