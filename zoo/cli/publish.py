"""``zoo publish``: trained weights into a weights folder or onto the Hugging Face hub."""

from __future__ import annotations

import click

from zoo.cli.output import code_option, echo, json_option, print_json


@click.command("publish", short_help="Publish weights to a folder or the hub.")
@click.argument("source")
@click.option("--to", required=True, help="hf:OWNER/NAME, or a folder of weights with its index.json.")
@click.option("--name", help="The name in the index.  [default: the recipe's]")
@click.option("--below-bar", metavar="REASON", help="Why the scores do not reach the bar of the task, if they do not.")
@code_option
@json_option
def command(source: str, to: str, name: str | None, below_bar: str | None, code: str | None, as_json: bool) -> None:
    """Publish the weights of SOURCE (a run's folder, a weights file, a name).

    In half precision if 99.9 % of the values of images differ by less than 2/255,
    else in float32.
    """
    from zoo.publish import publish

    entry = publish(source, to, name, below_bar, code)
    if as_json:
        print_json(entry)
        return
    kind = "half precision" if entry["half"] else "float32"
    difference = entry["difference"]
    note = "" if difference is None else f" (99.9 % differ by at most {difference * 255:.2f}/255 in half precision)"
    echo(f"{entry['path']}: {entry['bytes']:,} bytes in {kind}{note}")
