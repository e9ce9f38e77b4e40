"""What is taken out of sentences, and what is not."""

import pytest

from qbench.secrets import is_secret, without_secrets


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "API_KEY",
     "OPENAI_APIKEY", "db_password", "PGPASSWORD", "GOOGLE_APPLICATION_CREDENTIALS", "REDIS_AUTH", "PRIVATE_KEY",
     "PROXY_AUTHORIZATION"],
)  # fmt: skip
def test_names_of_secrets(name: str):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["HF_HOME", "PATH", "QBENCH_STORE", "KEYBOARD", "OMP_NUM_THREADS", "HOME", "LANG", "GIT_AUTHOR_NAME"]
)
def test_names_of_others(name: str):
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no luck at https://a:b@c.org/d", "no luck at https://***@c.org/d"),
        ("s3://key:a/b@bucket/x", "s3://key:a/b@bucket/x"),  # a path may hold the sign
        ("GET https://c.org/d?token=abc&size=3#e", "GET https://c.org/d?token=***&size=3#e"),
        ("https://c.org/d?X-Amz-Credential=a%2Fb&X-Amz-Signature=0f", "https://c.org/d?X-Amz-Credential=***&X-Amz-Signature=***"),
        ("Authorization: Bearer abc.def-g", "Authorization: Bearer ***"),
        ("write to me@here.org", "write to me@here.org"),
        ("tokens=3 of 5, mean and sigma", "tokens=3 of 5, mean and sigma"),
        ("https://arxiv.org/abs/2302.04304", "https://arxiv.org/abs/2302.04304"),
        ("Basic sense", "Basic sense"),
        ("a basic transformer block; Basic settings", "a basic transformer block; Basic settings"),
        ("Basic dXNlcjpwYXNz", "Basic ***"),
        ("sent basic abc123def", "sent basic ***"),
        ("'Authorization': 'Basic lowercase'", "'Authorization': 'Basic ***'"),
    ],
)  # fmt: skip
def test_addresses_and_headers(text: str, expected: str):
    assert without_secrets(text, {}) == expected


def test_values_of_variables():
    environment = {
        "HF_TOKEN": "hf_secret",
        "MORE_TOKEN": "hf_secret_and_more",
        "SHORT_TOKEN": "abc",
        "https_proxy": "http://u:p@proxy.example:3128",
        "SSH_AUTH_SOCK": "/tmp/agent",
        "PATH": "/usr/bin:/bin",
    }
    text = "hf_secret, hf_secret_and_more, abc, http://u:p@proxy.example:3128, proxy.example:3128, /tmp/agent, /usr/bin"
    expected = "$HF_TOKEN, $MORE_TOKEN, abc, $https_proxy, $https_proxy, /tmp/agent, /usr/bin"
    assert without_secrets(text, environment) == expected


@pytest.mark.parametrize(
    ("name", "value", "text", "expected"),
    [
        ("AWS_SECRET_ACCESS_KEY", "/abcd1234EFGHijkl", "/abcd1234EFGHijkl!", "$AWS_SECRET_ACCESS_KEY!"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/home/me/key.json", "no /home/me/key.json", "no /home/me/key.json"),
        ("HF_ENDPOINT", "https://hub.corp.example:8443", "host='hub.corp.example'", "host='$HF_ENDPOINT'"),
        ("RAY_ADDRESS", "10.1.2.3:6379", "at 10.1.2.3: it died", "at $RAY_ADDRESS: it died"),
        ("https_proxy", "http://u:pw@proxy.example:3128", "proxy.example is away", "$https_proxy is away"),
        ("RAY_ADDRESS", "worker:6379", "its worker died", "its worker died"),
        ("http_proxy", "http://localhost:3128", "localhost, 127.0.0.1", "localhost, 127.0.0.1"),
        ("HF_ENDPOINT", "http://[::bad", "as it was", "as it was"),
    ],
)  # fmt: skip
def test_machines_without_their_port_and_keys_like_paths(name: str, value: str, text: str, expected: str):
    assert without_secrets(text, {name: value}) == expected


def test_a_text_without_any_is_the_same():
    text = "weights: RuntimeError: no luck\nwith 'these' {weights}"
    assert without_secrets(text, {"HF_TOKEN": ""}) == text
