"""Commands in this process: quicker than as a user starts them, where many are to be looked at."""

from typer.testing import CliRunner

from episodes_assets.cli.app import app
from episodes_assets.errors import EpisodesError


def refusal(*arguments: str, typed: str | None = None) -> EpisodesError:
    """The foreseen error that a command ends with."""
    result = CliRunner().invoke(app, list(arguments), input=typed)
    assert isinstance(result.exception, EpisodesError), (result.exception, result.output)
    return result.exception


def output(*arguments: str, typed: str | None = None) -> tuple[str, str]:
    """What a command prints: to stdout, and to stderr."""
    result = CliRunner().invoke(app, list(arguments), input=typed)
    assert result.exit_code == 0, (result.exception, result.output)
    return result.stdout, result.stderr
