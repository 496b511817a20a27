"""`hf-unlearn init [text|llm|images]`: a commented run.yaml to fill in."""

from importlib.resources import files
from pathlib import Path

from hf_unlearn.errors import UserError
from hf_unlearn.run.line_parser import LineParser

KINDS = ("text", "llm", "images")


def init(argv: list[str] | None = None) -> None:
    """Write the file. Raises `UserError` for an unknown kind, and for a file that is there already."""
    parser = LineParser(prog="hf-unlearn init", description="Write a commented configuration to fill in.")
    parser.add_argument("kind", nargs="?", default="text", choices=KINDS, help="what the model does (default: text)")
    parser.add_argument("--output", default="run.yaml", help="the file (default: run.yaml)")
    given = parser.parse_args(argv)
    path = Path(given.output)
    if path.exists():
        raise UserError(f"--output {path} exists; name another file")
    try:
        path.write_text(template(given.kind).replace("run.yaml", str(path)), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {path} cannot be written ({error.strerror}); name another file") from None
    print(f"{path} is written: fill in your model, your rows and what must go. Then")
    print(f"    hf-unlearn train --config {path} --dry_run")


def template(kind: str) -> str:
    """The text of a configuration, `run.yaml` as its name."""
    return (files("hf_unlearn") / "commands" / "templates" / f"{kind}.yaml").read_text(encoding="utf-8")
