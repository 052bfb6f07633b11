"""The command that makes a folder of concepts which a model recognises."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.cli import output
from expunge.cli.options import Json
from expunge.core.texts import CONTEXT


def concepts(
    pictures: Annotated[
        Path, typer.Argument(metavar="PICTURES", help="A folder of pictures for each concept, and facts.jsonl.")
    ],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of an image-text-to-text model.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder, which jobs and recipes read.")],
    kind: Annotated[str, typer.Option(help="How questions are worded: thing or person.")] = "thing",
    alike: Annotated[float, typer.Option(help="Least similarity of a picture to the seed of its concept.")] = 0.3,
    least: Annotated[int, typer.Option(help="Pictures that a concept must have left.")] = 2,
    questions: Annotated[int, typer.Option(help="Open questions about each test picture.")] = 1,
    pictures_alone: Annotated[
        bool, typer.Option("--pictures-alone", help="Drop pictures that are not recognised, and keep their concepts.")
    ] = False,
    phrases: Annotated[
        Path | None, typer.Option(help="JSON: of each concept the phrases that an answer which recognises it says.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Of a model without chat template, with {question} and {answer}.")
    ] = None,
    image_text: Annotated[str | None, typer.Option(help="What stands for the picture in it.")] = None,
    context: Annotated[int, typer.Option(help="Tokens of a prompt with its answer.")] = CONTEXT,
    json: Json = False,
) -> None:
    """Keep the pictures and concepts that a model recognises, as MMUBench does, and write what is asked about them."""
    from expunge.modalities.vision_language.construction import construct_folder

    found = construct_folder(
        pictures, model, out, kind=kind, alike=alike, least=least, questions=questions, every=not pictures_alone,
        phrases=phrases, template=template, image_text=image_text, context=context,
    )  # fmt: skip
    if json:
        output.show(found, True)
        return
    _show(found)


def _show(found: dict[str, Any]) -> None:
    heads = ("concept", "pictures", "unlike the seed", "not recognised", "")
    rows = [
        [
            each["concept"],
            str(each["pictures"]),
            str(len(each["unlike"])),
            str(len(each["unrecognised"])),
            each["why"] or "kept",
        ]
        for each in found["concepts"]
    ]
    output.table_("Concepts", heads, rows, numbers=heads[1:4])
    print(
        f"{found['out']}: questions: {found['open']} open, {found['yes_no']} by yes or no, {found['facts']} in words."
    )
