"""No secret that a job file, a command line or a message spells out is stored or shown."""

from __future__ import annotations

import pytest

from pipelines.masking import mask_text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("path: s3://KEY:sec/ret+x@bucket/lake", "path: s3://***@bucket/lake"),
        ("http://user:pass@host:5000/x?token=abc&page=1", "http://***@host:5000/x?token=***&page=1"),
        ("postgresql+psycopg2://me:pa@ss@db/x", "postgresql+psycopg2://***@db/x"),
        ("password: hunter2", "password: ***"),
        ("  aws_secret_access_key: 'a b c'", "  aws_secret_access_key: '***'"),
        ("fit: {tokens: 512, api_key: xyz, seed: 1}", "fit: {tokens: 512, api_key: ***, seed: 1}"),
        ("genai run x.yaml --set sink.token=abc", "genai run x.yaml --set sink.token=***"),
        ("https://a.blob/x?sv=1&sig=AbC%3d&se=2", "https://a.blob/x?sv=1&sig=***&se=2"),
        ("s3://b/x?X-Amz-Credential=foo", "s3://b/x?X-Amz-Credential=***"),
        ('{"password": "x y", "rows": 1}', '{"password": "***", "rows": 1}'),
        ("Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer ***"),
    ],
)
def test_secrets_go_and_the_rest_stays(text: str, masked: str) -> None:
    assert mask_text(text) == masked
    assert mask_text(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "model: models:/flights@latest",
        "path: s3://bucket/a@b",
        "max_tokens: 5",
        "keep: [flight, secret]",
        "lake/x",
    ],
)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert mask_text(text) == text
