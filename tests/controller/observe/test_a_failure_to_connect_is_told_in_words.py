from __future__ import annotations

import pytest
import urllib3

from fleet_controller.door.admin import spoken


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            urllib3.exceptions.ConnectTimeoutError(object(), "Connection to 10.0.0.1 timed out."),
            "Connection to 10.0.0.1 timed out.",
        ),
        (urllib3.exceptions.HTTPError("HTTPConnection(host='h'): refused"), "refused"),
        (urllib3.exceptions.HTTPError(), "HTTPError"),
    ],
)
def test_a_failure_to_connect_is_told_in_words(error: Exception, words: str) -> None:
    assert spoken(error) == words
