"""`--no-skips`, with which CI runs: a test that was skipped is a test that proved nothing."""

import pytest

pytest_plugins = ["pytester"]

SKIPPED = "import pytest\ndef test_runs(): pass\ndef test_does_not(): pytest.skip('no engine')\n"
RUN = "def test_runs(): pass\n"


@pytest.mark.parametrize(
    ("content", "options", "code"),
    [(SKIPPED, ["--no-skips"], 1), (SKIPPED, [], 0), (RUN, ["--no-skips"], 0)],
)
def test_a_skipped_test_fails_the_session_where_none_may_be(pytester, content, options, code):
    """It is named, and the exit code says so; without the option it is as always."""
    pytester.makepyfile(content)
    run = pytester.runpytest_inprocess("-p", "tests.conftest", *options)
    said = run.stdout.str()
    assert run.ret == code
    assert ("skipped, which --no-skips forbids" in said) == bool(code)
    assert (
        "test_a_skipped_test_fails_the_session_where_none_may_be.py::test_does_not" in said
    ) == bool(code)
