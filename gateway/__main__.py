"""The command line: `huren …` or `python -m gateway …`. Each command's module is imported only when it is asked for."""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Sequence

import click

from gateway import __version__, config
from gateway.errors import GatewayError, sentence_of

#: Command → module, function and the line that `huren --help` shows (so that help imports nothing).
_COMMANDS: dict[str, tuple[str, str, str]] = {
    "serve": ("serve", "serve", "Run the gateway: HTTP, MLLP and DIMSE under one supervisor."),
    "send": ("send", "send", "Send HL7v2 and DICOM files as a hospital does."),
    "adapter": ("adapter", "adapter", "Scaffold, check and record hospital folders."),
    "inbox": ("inbox", "inbox", "Show what arrived, and run it again."),
    "catalogue": ("catalogue", "catalogue", "Load, compare and show versions of the catalogue of recognition."),
    "client": ("client", "client", "Who may use the HTTP paths."),
    "figures": ("figures", "figures", "How hospitals recognise each other's results; count everything anew."),
    "settlement": ("settlement", "settlement", "The fund's share of what was recognised, with evidence."),
    "migrate": ("upkeep", "migrate", "Bring the database schema up to date."),
    "reindex": ("upkeep", "reindex", "Rebuild the search index from the stored resources."),
    "audit": ("audit", "audit", "Check that what was kept of decisions is as it was written."),
    "doctor": ("doctor", "doctor", "Check settings, ports, database, disk and adapters, and say what to do."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, function, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"gateway.commands.{module}"), function)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in _COMMANDS.items()])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="huren", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Huren (互认, mutual recognition): a FHIR/HL7 interoperability gateway.

    Settings are environment variables named HUREN_…; gateway/README.md lists them all.
    Exit status: 0 done, 1 something was refused or failed, 2 wrong usage.
    """
    try:
        ctx.obj = config.load()
    except GatewayError as error:
        raise click.UsageError(error.message) from None
    # The log lines of a gateway are for its log; a command tells people itself what it did.
    level = ctx.obj.log_level.upper() if ctx.invoked_subcommand == "serve" else "WARNING"
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s",
                        stream=sys.stderr)
    logging.getLogger("pynetdicom").setLevel(logging.ERROR)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it quotes the values that it finds odd
    warnings.filterwarnings("ignore", module="pydicom")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status; a refusal becomes one sentence on standard error."""
    try:
        status = cli.main(arguments, prog_name="huren", standalone_mode=False)
    except click.UsageError as error:
        click.echo(f"huren: {error.format_message()}", err=True)
        if error.ctx is not None:
            click.echo(f"Try '{error.ctx.command_path} --help'.", err=True)
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"huren: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except GatewayError as error:
        place = f" ({error.where})" if error.where and error.where not in error.message else ""
        click.echo(f"huren: {error.message}{place}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("huren: interrupted", err=True)
        sys.exit(1)
    except BrokenPipeError:  # `huren inbox list | head`
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        click.echo(f"huren: {sentence_of(error)}", err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
